"""Image files made by hand, of kinds that Pillow does not write."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin

from featx.inputs.images import _loaded_image_file, _read_image
from featx.inputs.pixels import on_white


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data):
    """Return the pixels of an encoded image in its own size, (h, w, 3) uint8."""
    return np.asarray(on_white(_read_image(data, _loaded_image_file)))


def photo():
    """Return a smooth picture, so that lossy formats keep it nearly."""
    y, x = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([x * 4, y * 5, 255 - x * 2], axis=-1).astype(np.uint8))


def ramp(low, high, dtype):
    """Return a gray image of 24 by 32 pixels that goes from one value to another."""
    return np.linspace(low, high, 24 * 32).reshape(24, 32).astype(dtype)


def tiff(values, *, white_is_zero=False, sample_format=1, bits=None, width=None, more=()):
    """Return an uncompressed gray TIFF file with the bytes of an array.

    Parameters
    ----------
    sample_format : {1, 2, 3}
        Unsigned, signed or floating-point.
    more : sequence of (tag, value)
        Further tags.
    """
    order = "<" if values.dtype.byteorder != ">" else ">"
    height = len(values)
    shorts = {258: bits or 8 * values.itemsize, 259: 1, 262: int(not white_is_zero), 277: 1}
    longs = {256: width or values.shape[1], 257: height, 273: 8, 278: height, 279: values.nbytes}
    entries = {tag: struct.pack(f"{order}HHIHH", tag, 3, 1, v, 0) for tag, v in shorts.items()}
    entries |= {tag: struct.pack(f"{order}HHII", tag, 4, 1, v) for tag, v in longs.items()}
    for tag, value in (*more, (339, sample_format)):
        entries[tag] = struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    directory = b"".join(entries[tag] for tag in sorted(entries))
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + values.nbytes)
    count = struct.pack(f"{order}H", len(entries))
    return start + values.tobytes() + count + directory + bytes(4)


def color_tiff(values, *, photometric=2, are_apart=False, is_deflated=False, more=()):
    """Return a TIFF file of the channels of an array.

    Parameters
    ----------
    photometric : {1, 2, 3, 5, 8}
        Gray, RGB, a palette, CMYK, CIE L*a*b*.
    are_apart : bool
        Whether one channel follows another, and not one pixel another.
    more : sequence of (tag, value)
        Further tags.
    """
    height, width, n_channels = values.shape
    parts = np.moveaxis(values, -1, 0) if are_apart else values[np.newaxis]
    parts = [zlib.compress(part.tobytes()) if is_deflated else part.tobytes() for part in parts]
    sizes = list(map(len, parts))
    tags = {256: width, 257: height, 258: (8 * values.itemsize,) * n_channels}
    tags[259] = 8 if is_deflated else 1
    tags |= {262: photometric, 277: n_channels, 278: height, 279: tuple(sizes)}
    tags |= {273: tuple(sum(sizes[:part]) for part in range(len(parts))), **dict(more)}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in {**tags, 284: 1 + are_apart}.items():
        directory[tag] = value
    start = b"II*\0" + struct.pack("<I", 8)
    return start + directory.tobytes(8) + b"".join(parts)


def png_chunk(kind, data, *, is_sound=True):
    checksum = zlib.crc32(kind + data) ^ (not is_sound)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(values, *, color_type=0, before=b"", after=b""):
    """Return a PNG file with the pixels of an array, and chunks before and after them."""
    depth = 8 * values.itemsize
    header = struct.pack(">IIBBBBB", values.shape[1], len(values), depth, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    chunks = png_chunk(b"IHDR", header), before, png_chunk(b"IDAT", zlib.compress(rows)), after
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + png_chunk(b"IEND", b"")


def jpeg_with(segments):
    """Return the photo as a JPEG file with further (marker, content) segments."""
    data = encoded(photo(), "JPEG")
    inserted = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
        for marker, content in segments
    )
    return data[:2] + inserted + data[2:]


def exif_of(*entries):
    """Return EXIF data with an orientation of 6 (turned to the left) and further raw entries."""
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    count = struct.pack("<H", 1 + len(entries))
    return b"II*\0" + struct.pack("<I", 8) + count + orientation + b"".join(entries) + bytes(4)
