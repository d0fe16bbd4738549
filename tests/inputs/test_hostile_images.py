"""Whatever a sample is, it gives pixels or an UnreadableImageError; no program is started."""

import io
import os
import stat
import struct
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import decode, encoded, exif_of, jpeg_with, photo, png, png_chunk, ramp, tiff
from PIL import Image, ImageFile

from featx.exceptions import UnreadableImageError
from featx.inputs.images import FORMATS, check_header, decode_to, pixels_of

SMALL = photo().resize((16, 12))
FILES = {
    "JPEG": jpeg_with([(0xE1, b"Exif\0\0" + exif_of())]),
    "progressive JPEG": encoded(SMALL, "JPEG", progressive=True),
    "CMYK JPEG": encoded(SMALL.convert("CMYK"), "JPEG"),
    "MPO": encoded(SMALL, "MPO", save_all=True, append_images=[SMALL]),
    "PNG": encoded(SMALL, "PNG", exif=exif_of()),
    "palette PNG": encoded(SMALL.quantize(8), "PNG", transparency=3),
    "16-bit PNG": png(ramp(0, 65535, np.uint16), before=png_chunk(b"tRNS", b"\0\1")),
    "animated PNG": encoded(SMALL, "PNG", save_all=True, append_images=[SMALL.rotate(180)]),
    "BMP": encoded(SMALL, "BMP"),
    "palette BMP": encoded(SMALL.quantize(8), "BMP"),
    "GIF": encoded(SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(180)]),
    "WebP": encoded(SMALL, "WEBP", exif=exif_of()),
    "animated WebP": encoded(SMALL, "WEBP", save_all=True, append_images=[SMALL.rotate(180)]),
    "TIFF": encoded(SMALL, "TIFF"),
    "16-bit TIFF": tiff(ramp(0, 65535, ">u2"), more=[(281, 65535)]),
    "LZW TIFF": encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": encoded(SMALL, "TIFF", compression="jpeg"),
    "bilevel TIFF": encoded(SMALL.convert("1"), "TIFF", compression="group4"),
}
STARTS = [
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"BM",
    b"GIF89a",
    b"RIFF\x20\0\0\0WEBPVP8 ",
]
STARTS += [b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0"]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
FUZZ = settings(
    derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def mutated(data, changes, length):
    """Return data with some bytes replaced, cut or extended to a length."""
    changed = bytearray(data)
    for place, value in changes:
        changed[place % len(changed)] = value
    return bytes(changed[:length] + bytes(max(0, length - len(changed))))


def check_outcome(data):
    for read in (check_header, decode, lambda data: decode_to(data, (8, 8, 3))):
        try:
            pixels = read(data)
        except UnreadableImageError:
            continue
        assert pixels is None or (pixels.dtype == np.uint8 and pixels.shape[2] == 3)


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4)


def check_mutations(data, n_examples):
    @settings(FUZZ, max_examples=n_examples)
    @given(CHANGES, st.integers(-len(data) // 2, 0) | st.just(0))
    def check(changes, shift):
        check_outcome(mutated(data, changes, len(data) + shift))

    check()


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_decode_mutated_file_gives_pixels_or_reason(data):
    check_mutations(data, n_examples=120)


@pytest.mark.long
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_decode_many_mutations_give_pixels_or_reason(data):
    check_mutations(data, n_examples=5_000)


@settings(FUZZ, max_examples=300)
@given(st.sampled_from(STARTS), st.binary(max_size=200))
def test_decode_random_bytes_give_pixels_or_reason(start, data):
    check_outcome(start + data)


@pytest.mark.long
@settings(FUZZ, max_examples=20_000)
@given(st.sampled_from(STARTS), st.binary(max_size=2000))
def test_decode_many_random_bytes_say_why(start, data):
    check_outcome(start + data)


@pytest.mark.parametrize("is_lax", [False, True])
@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG", "PNG", "GIF", "BMP", "LZW TIFF"])
def test_decode_truncated_file_ignores_pillows_setting(name, is_lax, monkeypatch):
    # Other libraries set it when they are imported; half gray images would be remembered.
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_lax)
    data = FILES[name]
    whole = decode(data)
    for length in np.linspace(len(data) * 0.6, len(data) * 0.9, 8).astype(int):
        try:
            np.testing.assert_array_equal(decode(data[:length]), whole)  # the rest is unused
        except UnreadableImageError:
            continue
    assert ImageFile.LOAD_TRUNCATED_IMAGES is is_lax


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_decode_damage_ignores_pillows_setting(data, monkeypatch):
    def outcomes():
        rng, found = np.random.default_rng(0), []
        for _ in range(25):
            changes = zip(rng.integers(0, len(data), 3), rng.integers(0, 256, 3), strict=True)
            try:
                found.append(decode(mutated(data, changes, len(data))).tobytes())
            except UnreadableImageError:
                found.append(None)
        return found

    expected = outcomes()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert outcomes() == expected


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "SGI", "JPEG2000", "AVIF", "QOI"])
def test_decode_undocumented_format_is_refused(kind):
    with pytest.raises(UnreadableImageError, match="expected JPEG, PNG, BMP, GIF, WebP or TIFF"):
        decode(encoded(SMALL, kind))
    assert kind not in FORMATS


def test_eps_never_starts_a_program(tmp_path, monkeypatch):
    program, trace = tmp_path / "gs", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(UnreadableImageError, match="not an image in a known format"):
        decode(EPS)
    with pytest.raises(UnreadableImageError, match=r"image\.load\(\) yourself"):
        pixels_of(Image.open(io.BytesIO(EPS)))
    assert not trace.exists()


def test_pixels_of_closed_file_names_the_cure(tmp_path):
    photo().save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as in_context:
        pass
    closed = Image.open(tmp_path / "photo.png")
    closed.close()
    with open(tmp_path / "photo.png", "rb") as file:
        without_file = Image.open(file)
    for image in (in_context, closed, without_file):
        with pytest.raises(UnreadableImageError, match=r"call image\.load\(\) before that"):
            pixels_of(image)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, UserWarning, RecursionError])
def test_pixels_of_unloadable_image_names_reason(error):
    class Failing(Image.Image):
        def load(self):
            raise error("gone")

    with pytest.raises(UnreadableImageError, match=r"cannot be loaded .*gone"):
        pixels_of(Failing())


@pytest.mark.parametrize(
    ("n_bytes", "reason"), [(0, "empty file"), (12, "not a PNG file that Pillow")]
)
def test_decode_cut_header_names_the_format(n_bytes, reason):
    with pytest.raises(UnreadableImageError, match=reason):
        decode(FILES["PNG"][:n_bytes])


def test_decode_too_many_pixels_names_the_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for size in (
        (11, 11),
        (40, 40),
    ):  # Pillow warns of the first and raises an error for the second
        with pytest.raises(UnreadableImageError, match=r"PIL\.Image\.MAX_IMAGE_PIXELS = n"):
            decode(encoded(Image.new("L", size)))


@pytest.mark.parametrize("is_wide", [False, True])
def test_decode_to_endless_line_keeps_its_pixels(is_wide):
    # Pillow's filter alone would take fifty bytes for each pixel of the longer side.
    levels = np.repeat(np.linspace(0, 255, 8).astype(np.uint8), 25_000)
    data = png(levels[np.newaxis] if is_wide else levels[:, np.newaxis])
    pixels = decode_to(data, (16, 16, 3))[..., 0]
    line = (pixels if is_wide else pixels.T)[8]
    # Half way between the edges of the steps, which the filter rounds off.
    assert np.abs(line[[0, 15]].astype(int) - (0, 255)).max() <= 3
    assert np.abs(line.astype(int) - np.repeat(levels[::25_000], 2)).max() <= 12


def test_decode_tiff_of_huge_tiles_is_refused():
    # A bomb of 8 by 8 pixels: 1.6 billion bytes are decompressed for them.
    tiles = [(322, 40_000), (323, 40_000)]
    with pytest.raises(UnreadableImageError, match="40000x40000 pixels exceed"):
        decode(tiff(ramp(0, 255, np.uint8), more=tiles))


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "WebP", "TIFF", "LZW TIFF"])
def test_pixels_of_damaged_file_fails_each_time(name):
    # Pillow takes an image whose loading has failed at its end for loaded.
    data = bytearray(FILES[name])
    at = int(len(data) * {"PNG": 0.8, "LZW TIFF": 0.2}.get(name, 0.5))  # within the pixels
    data[at : at + 10] = bytes(byte ^ 0xA5 for byte in data[at : at + 10])
    image = Image.open(io.BytesIO(data))
    outcomes = []
    for _ in range(3):
        try:
            outcomes.append(pixels_of(image).tobytes())
        except UnreadableImageError:
            outcomes.append(None)
    assert outcomes == outcomes[:1] * 3


@pytest.mark.parametrize("more", [(282, 5), (34665, 65535)])
def test_pixels_of_tiff_of_broken_tags_agree(more):
    data = bytearray(tiff(ramp(0, 255, np.uint8), more=[more, (274, 6)]))
    at = bytes(data).rindex(struct.pack("<HH", more[0], 3))
    data[at + 2 : at + 12] = struct.pack("<HII", 10, 1, len(data) - 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, for the caller
        image = Image.open(io.BytesIO(data))
    for _ in range(2):
        np.testing.assert_array_equal(pixels_of(image), decode(bytes(data))[..., 0])


@pytest.mark.parametrize("kind", [b"zTXt", b"pHYs", b"iCCP"])
def test_pixels_of_png_of_broken_end_agree(kind):
    data = png(ramp(0, 255, np.uint8), after=png_chunk(kind, b"a\0\7"))
    image = Image.open(io.BytesIO(data))
    for _ in range(2):
        np.testing.assert_array_equal(pixels_of(image), ramp(0, 255, np.uint8))
