"""Pixels of more than 8 bits: one rule for files, PIL images and arrays."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import color_tiff, decode, encoded, png, png_chunk, ramp, tiff
from PIL import Image

from featx.exceptions import UnreadableImageError
from featx.inputs.images import conform_pixels, decode_to, pixels_of

SHAPE = (24, 32, 3)
WAYS = {
    "file": lambda values, data: decode_to(data, SHAPE),
    "PIL": lambda values, data: conform_pixels(pixels_of(Image.open(io.BytesIO(data))), SHAPE),
    "array": lambda values, data: conform_pixels(values, SHAPE),
}


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (ramp(0, 255, "<i2"), 2),
        (ramp(0, 255, ">i2"), 2),
        (ramp(0, 127, "i1"), 2),
        (ramp(0, 255, "<i4"), 2),
        (ramp(0, 255, ">i4"), 2),
        (ramp(0, 255, "<u4"), 1),
    ],
)
def test_integers_unknown_range_up_to_255_stay(values, sample_format, read):
    pixels = read(values, tiff(values, sample_format=sample_format))
    np.testing.assert_array_equal(pixels[..., 0], values)


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(
    ("values", "sample_format", "reason"),
    [
        (ramp(-1000, 3000, "<i2"), 2, "from -1000 to 3000"),
        (ramp(-128, 127, "i1"), 2, "from -128 to 127"),
        (ramp(-1, 255, "<i4"), 2, "from -1 to 255"),
        (ramp(0, 256, "<i4"), 2, "from 0 to 256"),
        (ramp(0, 2**31 + 2**30, "<u4"), 1, "uint32 values from 0 to 3.22"),
    ],
)
def test_integers_of_unknown_range_beyond_are_refused(values, sample_format, reason, read):
    with pytest.raises(UnreadableImageError, match=reason) as caught:
        read(values, tiff(values, sample_format=sample_format))
    assert "np.clip" in str(caught.value)


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("highest", [0, 4096, 16383, 65535])
def test_uint16_is_scaled_from_its_full_range(order, highest, read):
    values = ramp(0, highest, f"{order}u2")
    pixels = read(values, tiff(values))
    np.testing.assert_array_equal(pixels[..., 0], np.rint(values / 257))


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("highest", [255, 1023, 4095])
def test_uint16_of_unknown_range_names_ways_out(highest, read):
    values = ramp(0, highest, "<u2")
    with pytest.raises(UnreadableImageError, match=f"up to {highest} only.*X / 4095 \\* 255"):
        read(values, tiff(values))


@pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)
def test_uint16_widened_dark_image_stays_dark(read):
    values = ramp(0, 15, "<u2") * 257
    pixels = read(values, tiff(values))
    np.testing.assert_array_equal(pixels[..., 0], values // 257)


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_decode_tiff_stated_white_is_scaled_to(bits, white_is_zero):
    values = ramp(0, min(2**bits - 1, 4095), "<u2")
    data = tiff(values, white_is_zero=white_is_zero, more=[(281, 2**bits - 1)])
    levels = np.rint(values * (255 / (2**bits - 1)))
    expected = 255 - levels if white_is_zero else levels
    np.testing.assert_array_equal(decode(data)[..., 0], expected)


def test_decode_tiff_highest_value_not_white():
    # Some writers put the brightest pixel there: each image would have a scale of its own.
    with pytest.raises(UnreadableImageError, match="up to 4000 only"):
        decode(tiff(ramp(0, 4000, "<u2"), more=[(281, 4000)]))


def test_decode_tiff_packed_twelve_bits_are_scaled():
    packed = np.tile(np.uint8([0xFF, 0xF8, 0x00]), 16 * 24).reshape(24, 48)
    pixels = decode(tiff(packed, bits=12, width=32))
    assert pixels[0, :4, 0].tolist() == [255, 128, 255, 128]  # 4095 and 2048


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_decode_sixteen_bit_white_is_zero_inverted(compression):
    values = ramp(0, 65535, np.uint16)
    image = Image.fromarray(values)
    data = encoded(image, "TIFF", compression=compression, tiffinfo={262: 0})
    np.testing.assert_array_equal(decode(data)[..., 0], 255 - np.rint(values / 257))
    np.testing.assert_array_equal(pixels_of(Image.open(io.BytesIO(data))), decode(data)[..., 0])


def test_decode_white_is_zero_gives_white():
    assert decode(tiff(np.zeros((4, 4), "<u2"), white_is_zero=True)).min() == 255
    assert decode(tiff(np.zeros((4, 4), "u1"), white_is_zero=True)).min() == 255


@pytest.mark.parametrize(("color_type", "n_channels"), [(2, 3), (4, 2), (6, 4)])
def test_decode_sixteen_bit_colors_unknown_range_refused(color_type, n_channels):
    values = np.full((4, 4, n_channels), 1800, np.uint16)
    values[..., 1:] = 65535 if n_channels == 2 else 1700
    data = png(values, color_type=color_type)
    for read in (decode, lambda data: pixels_of(Image.open(io.BytesIO(data)))):
        with pytest.raises(UnreadableImageError, match="16-bit values up to 2047"):
            read(data)


def file_of_colors(values, kind):
    """Return a PNG or a TIFF of 16 bits a channel."""
    if kind == "PNG":
        return png(values, color_type={2: 4, 3: 2, 4: 6}[values.shape[2]])
    return color_tiff(values.astype("<u2"), is_deflated=kind == "deflated TIFF")


@pytest.mark.parametrize(
    ("kind", "n_channels"),
    [
        ("PNG", 2),
        ("PNG", 3),
        ("PNG", 4),
        ("TIFF", 3),
        ("TIFF", 4),
        ("deflated TIFF", 3),
        ("deflated TIFF", 4),
    ],
)
def test_decode_sixteen_bit_colors_to_255_refused(kind, n_channels):
    values = np.zeros((4, 4, n_channels), np.uint16)
    values[1, 2, 0] = 255
    if n_channels != 3:
        values[..., -1] = 65535
    data = file_of_colors(values, kind)
    for read in (decode, lambda data: pixels_of(Image.open(io.BytesIO(data)))):
        with pytest.raises(UnreadableImageError, match="16-bit values up to 255 only"):
            read(data)
    values[1, 2, 0] = 0
    assert decode(file_of_colors(values, kind)).max() == 0
    values[1, 2, 0] = 51 * 257
    assert decode(file_of_colors(values, kind))[1, 2, 0] == 51


def test_decode_wide_inks_unknown_range_are_refused():
    inks = np.full((4, 4, 4), 1800, "<u2")
    with pytest.raises(UnreadableImageError, match="16-bit values up to 2047"):
        decode(color_tiff(inks, photometric=5))
    expected = decode(color_tiff(np.full((4, 4, 4), 200, "u1"), photometric=5))
    np.testing.assert_array_equal(decode(color_tiff(inks * 0 + 200 * 257, photometric=5)), expected)


def test_decode_wide_colors_stated_white_are_refused():
    colors = np.stack([ramp(0, 16383, "<u2")] * 3, axis=-1)
    with pytest.raises(UnreadableImageError, match=r"white at 16383.*X / 16383"):
        decode(color_tiff(colors, more=[(281, (16383,) * 3)]))
    pixels = decode(color_tiff(colors * 4, more=[(281, (16383,) * 3)]))  # no such white
    np.testing.assert_allclose(pixels, colors / 64.25, atol=1)


def test_decode_wide_channels_apart_are_refused():
    # Pillow takes each byte of an uncompressed file for a pixel.
    colors = np.stack([ramp(0, 65535, "<u2")] * 3, axis=-1)
    data = color_tiff(colors, are_apart=True)
    for read in (decode, lambda data: pixels_of(Image.open(io.BytesIO(data)))):
        with pytest.raises(UnreadableImageError, match=r"channels separately.*as an array"):
            read(data)
    narrow = (colors // 257).astype("u1")
    np.testing.assert_array_equal(decode(color_tiff(narrow, are_apart=True)), narrow)
    with pytest.raises(UnreadableImageError, match="channels separately"):
        decode(color_tiff(narrow, photometric=8, are_apart=True))


@pytest.mark.parametrize("value", [0, 255])
def test_decode_black_channels_apart_are_refused(value):
    # Their lower bytes cannot be read, so that black and 8 bits in 16 look the same.
    data = color_tiff(np.full((4, 4, 3), value, "<u2"), are_apart=True, is_deflated=True)
    with pytest.raises(UnreadableImageError, match="16-bit values up to 255 only"):
        decode(data)


@pytest.mark.parametrize("highest", [255, 65535])
def test_decode_palette_eight_bits_is_not_black(highest):
    places = np.arange(256, dtype="u1").reshape(16, 16, 1)
    colors = np.concatenate([np.arange(256), np.arange(256)[::-1], np.full(256, 7)])
    palette = tuple((colors * (highest // 255)).tolist())
    data = color_tiff(places, photometric=3, more=[(320, palette)])
    for pixels in (decode(data), pixels_of(Image.open(io.BytesIO(data)))):
        np.testing.assert_array_equal(pixels.reshape(256, 3), colors.reshape(3, 256).T)


def test_decode_sixteen_bit_transparency_lies_on_white():
    data = png(np.array([[0, 30000, 65535]], np.uint16), before=png_chunk(b"tRNS", b"\x75\x30"))
    assert decode(data)[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(("bits", "gray"), [(1, 1), (2, 1), (2, 2), (4, 8), (8, 8), (8, 0x188)])
def test_decode_transparent_gray_lies_on_white(bits, gray):
    highest = 2**bits - 1
    pixels = [gray & highest, highest - (gray & highest)] * 8
    row = np.packbits([int(bit) for each in pixels for bit in f"{each:0{bits}b}"])
    header = struct.pack(">IIBBBBB", 16, 1, bits, 0, 0, 0, 0)
    content = zlib.compress(b"\0" + row.tobytes())
    color = png_chunk(b"tRNS", struct.pack(">H", gray))
    chunks = png_chunk(b"IHDR", header) + color + png_chunk(b"IDAT", content)
    data = b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")
    assert decode(data)[0, :2, 0].tolist() == [255, pixels[1] * 255 // highest]
    levels = pixels_of(Image.open(io.BytesIO(data)))
    assert levels[0, :2, 3].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("opacity", "expected"), [((0, 0), [30, 30]), ((0, 255), [255, 30]), ((255, 255), [30, 30])]
)
def test_decode_bmp_without_opacity_is_opaque(opacity, expected):
    pixels = b"".join(bytes([10, 20, 30, each]) for each in opacity)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0) + masks
    data = b"BM" + struct.pack("<IHHI", 130, 0, 0, 122) + header.ljust(108, b"\0") + pixels
    assert decode(data)[0, :, 0].tolist() == expected
    shown = conform_pixels(pixels_of(Image.open(io.BytesIO(data))), (1, 2, 3))
    assert shown[0, :, 0].tolist() == expected


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257)])
def test_decode_transparent_color_lies_on_white(dtype, scale):
    colors = np.array([[(200, 100, 50), (200, 100, 51), (0, 0, 0)]]) * scale
    if scale == 257:
        colors[0, 1] = colors[0, 0] + 1  # which has the same upper bytes
    color = png_chunk(b"tRNS", struct.pack(">HHH", *colors[0, 0]))
    data = png(colors.astype(dtype), color_type=2, before=color)
    expected = [[255, 255, 255], [200, 100, 51 if scale == 1 else 50], [0, 0, 0]]
    assert decode(data)[0].tolist() == expected
    assert pixels_of(Image.open(io.BytesIO(data)))[0, :, 3].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("La", (100, 255), (100, 100, 100)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGBa", (200, 30, 10, 255), (200, 30, 10)),
        ("RGBX", (200, 30, 10, 0), (200, 30, 10)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16L", 65535, (255, 255, 255)),
        ("I;16B", 65535, (255, 255, 255)),
        ("I;16N", 65535, (255, 255, 255)),
        ("I", 200, (200, 200, 200)),
    ],
)
def test_pixels_of_any_mode_becomes_rgb(mode, color, expected):
    pixels = conform_pixels(pixels_of(Image.new(mode, (3, 2), color)), (2, 3, 3))
    assert pixels[0, 0].tolist() == list(expected)


def test_pixels_of_floating_point_image_is_refused():
    with pytest.raises(UnreadableImageError, match=r"np\.asarray"):
        pixels_of(Image.new("F", (4, 4), 0.5))


def test_uint16_opacity_does_not_tell_the_range():
    image = np.full((4, 4, 4), 1800, np.uint16)
    image[..., 3] = 65535
    with pytest.raises(UnreadableImageError, match="up to 1800 only"):
        conform_pixels(image, (4, 4, 3))


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA"])
def test_decode_to_four_channels_keeps_opacity(mode):
    image = Image.new("RGBA", (4, 4), (200, 30, 10, 128)).convert(mode)
    if mode == "P":
        image.info["transparency"] = image.getpixel((0, 0))
    pixels = decode_to(encoded(image), (4, 4, 4))
    np.testing.assert_array_equal(pixels, conform_pixels(pixels_of(image), (4, 4, 4)))
    if mode == "RGBA":
        assert pixels[0, 0].tolist() == [200, 30, 10, 128]
    if mode == "P":
        assert pixels[0, 0, 3] == 0
