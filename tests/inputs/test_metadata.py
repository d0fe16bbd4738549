"""Broken metadata never costs the pixels, whatever warnings do and wherever it stands."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from image_files import decode, encoded, exif_of, jpeg_with, photo, png, png_chunk, ramp, tiff
from PIL import Image, ImageFile

from featx.inputs.images import check_header, conform_pixels, pixels_of
from featx.inputs.metadata import orientation_of, without_metadata

GRAY = np.full((4, 4), 9, np.uint8)
BOMB = zlib.compress(bytes(2**23))


def entry(tag, kind, count, value):
    return struct.pack("<HHI", tag, kind, count) + value


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry(0x011A, 10, 1, struct.pack("<I", 38) + struct.pack("<ii", -1, 0))],
        [entry(0x011A, 2, 1, b"1\0\0\0")],
        [entry(0x8769, 4, 1, b"\xff\xff\xff\xff")],
        [entry(0x927C, 7, 2**31, b"\xff\xff\xff\xff")],
        [entry(0, 99, 2**32 - 1, b"abcd")],
    ],
    ids=["sound", "rational", "text", "pointer", "maker note", "unknown type"],
)
def test_decode_jpeg_broken_exif_keeps_the_orientation(entries):
    exif = b"Exif\0\0" + exif_of(*entries)
    data = jpeg_with([(0xE1, exif)])
    upright = decode(encoded(photo(), "JPEG"))
    check_header(data)
    np.testing.assert_array_equal(decode(data), np.rot90(upright, -1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, for the caller
        image = Image.open(io.BytesIO(data))
    np.testing.assert_array_equal(pixels_of(image), np.rot90(upright, -1))


@pytest.mark.parametrize(
    "segments",
    [
        [(0xE1, b"Exif\0\0")],
        [(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff")],
        [(0xE1, b"Exif\0\0" * 2000)],
        [(0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0" + entry(0xB001, 4, 1, b"\2\0\0\0"))],
        [(0xE2, b"MPF\0garbage")],
        [(0xE2, b"ICC_PROFILE\0")],
        [(0xED, b"Photoshop 3.0\x008BIM")],
        [(0xEE, b"Adobe")],
        [(0xFE, b"\xff\xff\xff")],
    ],
)
def test_decode_jpeg_broken_segments_are_left_out(segments):
    data = jpeg_with(segments)
    check_header(data)
    np.testing.assert_array_equal(decode(data), decode(encoded(photo(), "JPEG")))


CHUNKS = {
    "text of a wrong checksum": png_chunk(b"tEXt", b"a\0b", is_sound=False),
    "text that names a transparent color": png_chunk(b"tEXt", b"transparency\0abc"),
    "text that names a frame": png_chunk(b"tEXt", b"bbox\0abc"),
    "EXIF as text": png_chunk(b"tEXt", b"exif\0abc"),
    "raw profile of letters": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB[:20]),
    "compressed text that is a bomb": png_chunk(b"zTXt", b"a\0\0" + BOMB),
    "international text that is a bomb": png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
    "profile that is a bomb": png_chunk(b"iCCP", b"a\0\0" + BOMB),
    "empty profile": png_chunk(b"iCCP", b""),
    "short resolution": png_chunk(b"pHYs", b"a"),
    "short gamma": png_chunk(b"gAMA", b""),
    "short transparency": png_chunk(b"tRNS", b"a"),
    "EXIF without a header": png_chunk(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    "short animation": png_chunk(b"acTL", b"ab"),
    "animation of no frames": png_chunk(b"acTL", bytes(8)),
    "frame without animation": png_chunk(b"fcTL", bytes(26)),
    "name that is none": png_chunk(b"a1b\0", b"x"),
}


@pytest.mark.parametrize("is_lax", [False, True])
@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_decode_png_broken_chunk_is_left_out(chunk, is_lax, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_lax)
    for data in (png(GRAY, before=chunk), png(GRAY, after=chunk)):
        check_header(data)
        np.testing.assert_array_equal(decode(data)[..., 0], GRAY)


def test_decode_png_orientation_survives_another_broken_chunk():
    values = ramp(0, 200, np.uint8)
    chunks = png_chunk(b"eXIf", exif_of()) + CHUNKS["short gamma"]
    np.testing.assert_array_equal(decode(png(values, before=chunks))[..., 0], np.rot90(values, -1))


def test_decode_png_transparency_survives_broken_chunk():
    chunks = png_chunk(b"tRNS", b"\0\x09") + CHUNKS["short gamma"]
    assert decode(png(GRAY, before=chunks)).min() == 255


@pytest.mark.parametrize("exif", [b"garbage", b"", exif_of(entry(0x011A, 2, 1, b"1\0\0\0"))])
def test_decode_webp_broken_exif_costs_nothing(exif):
    data = encoded(photo(), "WEBP", lossless=True, exif=exif)
    expected = np.rot90(photo(), -1) if exif.startswith(b"II") else photo()
    np.testing.assert_array_equal(decode(data), expected)


def test_decode_webp_cut_metadata_costs_nothing():
    data = encoded(photo(), "WEBP", lossless=True, exif=exif_of() + bytes(400), xmp=bytes(500))
    np.testing.assert_array_equal(decode(data[:-600]), np.rot90(photo(), -1))


@pytest.mark.parametrize(
    "more", [(270, 7), (34665, 65535), (700, 1), (33723, 9), (65000, 1), (306, 99), (282, 5)]
)
def test_decode_tiff_broken_tags_cost_nothing(more):
    values = ramp(0, 255, np.uint8)
    data = bytearray(tiff(values, more=[more]))
    at = bytes(data).rindex(struct.pack("<HH", more[0], 3))
    data[at + 2 : at + 12] = struct.pack("<HII", 2, 2**20, 2**31)  # text far outside the file
    np.testing.assert_array_equal(decode(bytes(data))[..., 0], values)
    data[at + 2 : at + 12] = struct.pack("<HII", 10, 1, len(data) - 6)
    np.testing.assert_array_equal(decode(bytes(data))[..., 0], values)


def test_decode_tiff_orientation_is_obeyed_once():
    values = ramp(0, 255, np.uint8)
    data = tiff(values, more=[(274, 6)])
    np.testing.assert_array_equal(decode(data)[..., 0], np.rot90(values, -1))
    np.testing.assert_array_equal(pixels_of(Image.open(io.BytesIO(data))), np.rot90(values, -1))


@pytest.mark.parametrize("transparency", ["abc", b"ab", (1, 2), 3.5])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "I;16"])
def test_pixels_of_invalid_transparency_is_left_out(mode, transparency):
    image = Image.new(mode, (3, 2), 0)
    image.info["transparency"] = transparency
    assert conform_pixels(pixels_of(image), (2, 3, 3)).shape == (2, 3, 3)
    assert image.info["transparency"] == transparency


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"exif": 5},
        {"exif": "text"},
        {"exif": b"II*\0"},
        {"exif": b"II*\0\xff\xff\xff\xff"},
        {"xmp": 7},
        {"xmp": b'tiff:Orientation="'},
        {"Raw profile type exif": "\nexif\n 3\nzz"},
    ],
)
def test_orientation_of_senseless_metadata_is_upright(info):
    assert orientation_of(info) == 1


@pytest.mark.parametrize(
    "info",
    [
        {"exif": exif_of()},
        {"exif": b"Exif\0\0" * 2 + exif_of()},
        {"Raw profile type exif": f"\nexif\n   38\n{exif_of().hex()}\n"},
        {"xmp": b'<x tiff:Orientation="6"/>'},
        {"XML:com.adobe.xmp": "<tiff:Orientation>6</tiff:Orientation>"},
        {"exif": b"garbage", "xmp": b'<x tiff:Orientation="6"/>'},
        {"exif": b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, 6, 0)},
    ],
)
def test_orientation_of_metadata_is_found(info):
    assert orientation_of(info) == 6


def test_decode_photo_takes_first_frame():
    data = encoded(photo(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    np.testing.assert_array_equal(decode(data), decode(encoded(photo(), "JPEG")))


def test_decode_works_while_warnings_are_errors():
    # The gate makes warnings errors; by default Pillow's are shown, and the pixels are the same.
    data = jpeg_with([(0xE1, b"Exif\0\0" + exif_of() + b"\0"), (0xE2, b"MPF\0II*\0\x08\0\0\0")])
    strict = decode(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decode(data), strict)


def test_without_metadata_big_tiff_keeps_its_pixels():
    data = encoded(photo(), "TIFF", big_tiff=True, tiffinfo={270: "a text", 700: b"<xmp/>"})
    bare = without_metadata(data).data
    assert bare != data
    image = Image.open(io.BytesIO(bare))
    np.testing.assert_array_equal(image, photo())
    assert not {270, 700} & set(image.tag_v2)
