"""Images become pixels as a person would see them, or one reason why not."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import image_files
import numpy as np
import pytest
from cykooz_resizer import CpuExtensions, Resizer
from image_files import decode, encoded
from PIL import Image, ImageFilter

from featx.exceptions import UnreadableImageError
from featx.inputs import images
from featx.inputs.images import check_header, conform_pixels, decode_to, pixels_of

RED = (200, 30, 10)


def two_halves(left, right, mode, size=(8, 4)):
    image = Image.new(mode, size, left)
    image.paste(right, (size[0] // 2, 0, size[0], size[1]))
    return image


@pytest.fixture
def photo():
    return image_files.photo()


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 95}, 6),
        ("JPEG", {"quality": 95}, 6),
        ("JPEG", {"quality": 95, "progressive": True}, 6),
    ],
)
def test_decode_format_gives_the_pixels(kind, options, tolerance, photo):
    pixels = decode(encoded(photo, kind, **options))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (48, 64, 3)
    difference = np.abs(pixels.astype(int) - np.asarray(photo))
    assert difference.mean() <= tolerance


def test_decode_gif_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 5), color) for color in (RED, (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).reshape(-1, 3).tolist() == [list(RED)] * 30


@pytest.mark.parametrize(
    ("image", "left", "right"),
    [
        (two_halves(0, 255, "L"), (0, 0, 0), (255, 255, 255)),
        (two_halves(0, 1, "1"), (0, 0, 0), (255, 255, 255)),
        (two_halves(RED, (0, 255, 0), "RGB"), RED, (0, 255, 0)),
        (two_halves((*RED, 255), (0, 0, 0, 0), "RGBA"), RED, (255, 255, 255)),
        (two_halves((0, 0, 0, 255), (0, 0, 0, 128), "RGBA"), (0, 0, 0), (127, 127, 127)),
        (two_halves((0, 255), (0, 0), "LA"), (0, 0, 0), (255, 255, 255)),
        (two_halves(RED, (0, 0, 255), "RGB").quantize(2), RED, (0, 0, 255)),
    ],
    ids=["gray", "bilevel", "rgb", "transparent", "half transparent", "gray alpha", "palette"],
)
def test_decode_png_mode_becomes_rgb(image, left, right):
    pixels = decode(encoded(image))
    assert pixels.shape == (4, 8, 3)
    assert np.abs(pixels[0, 0].astype(int) - left).max() <= 1
    assert np.abs(pixels[-1, -1].astype(int) - right).max() <= 1


def test_decode_palette_transparent_color_lies_on_white():
    image = two_halves(RED, (0, 0, 255), "RGB").quantize(2)
    pixels = decode(encoded(image, transparency=image.getpixel((7, 0))))
    assert pixels[0, 0].tolist() == list(RED)
    assert pixels[0, 7].tolist() == [255, 255, 255]


def test_decode_cmyk_jpeg_is_rgb():
    pixels = decode(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95))
    assert np.abs(pixels[0, 0].astype(int) - (255, 0, 0)).max() <= 5


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_decode_sixteen_bits_become_eight(kind):
    levels = np.array([[0, 257, 128 * 257], [65535, 65400, 100]], np.uint16)
    pixels = decode(encoded(Image.fromarray(levels), kind))
    assert pixels[..., 0].tolist() == [[0, 1, 128], [255, 254, 0]]
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_exif_orientation_is_obeyed(orientation, photo):
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode(encoded(photo, exif=exif))
    np.testing.assert_array_equal(pixels, turns[orientation](np.asarray(photo)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1600, 1200), (400, 300)),
        ((1600, 900), (800, 450)),  # a quarter would be high enough only for what lies upright
        ((500, 375), (500, 375)),
        ((257, 640), (257, 640)),
    ],
)
def test_decode_to_large_jpeg_is_reduced_early(size, expected, monkeypatch):
    level = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 251
    waves = np.stack([level, 250 - level, level // 2], axis=-1).astype(np.uint8)
    data = encoded(Image.fromarray(waves).filter(ImageFilter.GaussianBlur(4)), "JPEG", quality=95)
    whole = conform_pixels(decode(data), (96, 128, 3))
    sizes, resized = [], images.resized

    def noting(image, *how):
        sizes.append(image.size)
        return resized(image, *how)

    monkeypatch.setattr(images, "resized", noting)
    reduced = decode_to(data, (96, 128, 3))
    assert sizes == [expected]
    assert np.abs(reduced.astype(int) - whole).mean() < 1


@pytest.mark.parametrize("shape", [(480, 640, 3), (8, 8, 3), (8, 8, 1), (50, 20, 4)])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "I;16"])
def test_decode_to_agrees_with_conform(mode, shape, photo):
    large = photo.resize((640, 480))
    if mode == "I;16":
        large = Image.fromarray(np.asarray(large.convert("L")).astype(np.uint16) * 257)
    data = encoded(large.convert(mode), "TIFF" if mode == "CMYK" else "PNG")
    own = pixels_of(Image.open(io.BytesIO(data)))
    if shape[2] == 4 and own.shape[2:] != (4,):
        with pytest.raises(UnreadableImageError, match=r"[13] channels?,.*takes 4: pass RGBA"):
            decode_to(data, shape)
        return
    if shape[2] != 4:
        np.testing.assert_array_equal(decode_to(data, shape), conform_pixels(decode(data), shape))
    np.testing.assert_array_equal(decode_to(data, shape), conform_pixels(own, shape))


def test_decode_floating_point_pixels_are_refused():
    data = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    for read in (decode, check_header):
        with pytest.raises(UnreadableImageError, match="floating-point pixels"):
            read(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"empty file \(0 bytes\)"),
        (b"<html>not found</html>", "not an image in a known format.*<html>"),
        (b"\x89PNG\r\n\x1a\n", "damaged header|not an image"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "damaged header|not an image"),
    ],
)
def test_decode_no_image_says_why(data, reason):
    for read in (decode, check_header):
        with pytest.raises(UnreadableImageError, match=reason):
            read(data)


def test_decode_bomb_is_refused_by_its_header():
    # A PNG that claims 100,000 x 100,000 pixels in 60 bytes.
    data = bytearray(encoded(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    for read in (decode, check_header):
        with pytest.raises(UnreadableImageError, match="decompression bomb"):
            read(bytes(data))


def test_decode_above_pillows_warning_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = encoded(Image.new("L", (12, 12)))
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        decode(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImageError, match="12x12 pixels exceed 100"):
            decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decode(data).shape == (12, 12, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_decode_truncated_raises_or_keeps_size(kind, photo):
    data = encoded(photo, kind)
    n_refused = 0
    for length in np.linspace(0, len(data) - 1, 60).astype(int):
        try:
            assert decode(data[:length]).shape == (48, 64, 3)
        except UnreadableImageError:
            n_refused += 1
    assert n_refused > 30


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_decode_flipped_bits_never_raise_anything_else(kind, photo):
    data = encoded(photo.resize((16, 12)), kind)
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            damaged[place] ^= 1 << rng.integers(0, 8)
        for read in (check_header, decode):
            try:
                pixels = read(bytes(damaged))
            except UnreadableImageError:
                continue
            assert pixels is None or (pixels.dtype == np.uint8 and pixels.ndim == 3)


def test_pixels_of_does_not_change_the_image(photo):
    photo.getexif()[0x0112] = 6
    before = photo.tobytes()
    assert pixels_of(photo).shape == (64, 48, 3)
    assert photo.size == (64, 48)
    assert photo.tobytes() == before


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_pixels_of_other_color_spaces_become_rgb(mode):
    image = Image.new("RGB", (4, 4), RED).convert(mode)
    assert np.abs(pixels_of(image)[0, 0].astype(int) - RED).max() <= 4


def test_conform_fitting_image_is_not_copied():
    image = np.zeros((8, 8, 3), np.uint8)
    assert np.shares_memory(conform_pixels(image, (8, 8, 3)), image)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_conform_resizes_nearly_as_pillow_does(dtype, photo):
    pixels = np.asarray(photo).astype(dtype)
    expected = np.asarray(photo.resize((20, 30), Image.Resampling.LANCZOS))
    resized = conform_pixels(pixels, (30, 20, 3))
    assert resized.dtype == dtype
    assert np.abs(resized.astype(float) - expected).max() <= 1


@pytest.mark.parametrize("size", [(5, 300), (224, 224), (700, 90)])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "colors"])
def test_conform_is_equal_with_any_instruction_set(channels, size, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (375, 500, *channels), dtype=np.uint8)
    shape = (*size, *(channels or (1,)))
    expected = conform_pixels(pixels, shape)

    def portable():
        resizer = Resizer()
        resizer.cpu_extensions = CpuExtensions.none
        return resizer

    monkeypatch.setattr("featx.inputs.resize.Resizer", portable)
    np.testing.assert_array_equal(conform_pixels(pixels, shape), expected)


def test_conform_resizes_in_many_threads_at_once(photo):
    images = [np.roll(np.asarray(photo), number, axis=1) for number in range(64)]
    expected = [conform_pixels(image, (30, 20, 3)) for image in images]
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda image: conform_pixels(image, (30, 20, 3)), images))
    np.testing.assert_array_equal(found, expected)


def test_conform_floats_never_leave_the_range():
    edge = np.zeros((20, 20, 3), np.float32)
    edge[:, 10:] = 255
    resized = conform_pixels(edge, (13, 13, 3))
    assert resized.min() >= 0
    assert resized.max() <= 255


@pytest.mark.parametrize(
    ("given", "n_channels", "expected"),
    [
        (np.full((2, 2), 7, np.uint8), 3, [7, 7, 7]),
        (np.full((2, 2, 1), 7, np.uint8), 3, [7, 7, 7]),
        (np.full((2, 2), True), 3, [255, 255, 255]),
        (np.full((2, 2), 7, np.int64), 1, [7]),
        (np.full((2, 2, 3), 7.5, np.float64), 3, [7.5, 7.5, 7.5]),
        (np.tile(np.uint8([255, 0, 0]), (2, 2, 1)), 1, [76]),
        (np.tile(np.float32([255, 0, 0]), (2, 2, 1)), 1, [76.245]),
        (np.tile(np.uint8([10, 20, 30, 255]), (2, 2, 1)), 3, [10, 20, 30]),
        (np.tile(np.uint8([10, 20, 30, 0]), (2, 2, 1)), 3, [255, 255, 255]),
        (np.tile(np.float32([10, 20, 30, 0]), (2, 2, 1)), 1, [255]),
        (np.full((2, 2, 5), 7, np.uint8), 5, [7] * 5),
    ],
)
def test_conform_channels(given, n_channels, expected):
    pixels = conform_pixels(given, (2, 2, n_channels))
    assert pixels.shape == (2, 2, n_channels)
    np.testing.assert_allclose(pixels[0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (np.zeros(5, np.uint8), r"has shape \(5,\)"),
        (np.zeros((0, 5), np.uint8), r"has shape \(0, 5\)"),
        (np.zeros((2, 2, 2), np.uint8), "has 2 channels, but the backbone takes 3"),
        (np.zeros((2, 2, 5), np.uint8), "has 5 channels, but the backbone takes 3"),
        (np.full((2, 2), 256), "values from 256 to 256"),
        (np.full((2, 2), -1), "values from -1 to -1"),
        (np.full((2, 2), "a"), "has dtype <U1"),
        (np.full((2, 2), 1j), "has dtype complex128"),
    ],
)
def test_conform_unusable_array_says_why(given, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        conform_pixels(given, (4, 4, 3))
