"""Metadata of image files: ``orientation_of``, ``without_metadata``; decoding that is strict.

An image with broken metadata must still be readable. So the orientation is read here and not by
Pillow, which reads all metadata or none, and a file that Pillow refuses is read again without its
metadata.

Other libraries set ``ImageFile.LOAD_TRUNCATED_IMAGES`` when they are imported. Damaged files would
then become half gray images, cached under the key of the file. The setting belongs to the
application and is not changed; :func:`make_strict` makes decoding strict in spite of it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from PIL import Image, ImageFile

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_BIG_TIFF_ORDERS = {b"II+\0": "<", b"MM\0+": ">"}
# Tags that locate and describe pixels: TIFF 6.0, with those of JPEG and tiles.
_TIFF_TAGS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292, 293, 317, 320)
)
_TIFF_TAGS |= {322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532}
_WEBP_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_WEBP_METADATA_FLAGS = 0x20 | 0x08 | 0x04  # ICC profile, EXIF, XMP


class BareFile(NamedTuple):
    """An image file without metadata, and the EXIF data that were left out."""

    data: bytes
    exif: bytes


def orientation_of(info: Mapping[Any, Any]) -> int:
    r"""Return the orientation in metadata, from 1 (upright) to 8, as EXIF numbers them.

    `info` holds raw metadata from Pillow. Broken metadata are no error, and mean 1.

    Examples
    --------
    >>> entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    >>> orientation_of({"exif": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry})
    6
    """
    exif = info.get("exif")
    if exif is None and isinstance(info.get("Raw profile type exif"), str):
        exif = _bytes_of_hex_profile(info["Raw profile type exif"])
    found = exif_orientation(exif) if isinstance(exif, bytes) else None
    if found is None:
        found = _xmp_orientation(info.get("XML:com.adobe.xmp") or info.get("xmp"))
    return found or 1


def exif_orientation(exif: bytes) -> int | None:
    """Return the orientation in EXIF data; None if they hold none."""
    exif = exif.removeprefix(_EXIF).removeprefix(_EXIF)
    order = _TIFF_ORDERS.get(exif[:4])
    if order is None:
        return None
    try:
        start = struct.unpack_from(f"{order}I", exif, 4)[0]
        n_entries = struct.unpack_from(f"{order}H", exif, start)[0]
        for number in range(n_entries):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, start + 2 + 12 * number)
            if tag == _ORIENTATION and count == 1 and kind in (1, 3, 4):
                code = {1: "B", 3: "H", 4: "I"}[kind]
                return int(struct.unpack_from(f"{order}{code}", exif, start + 10 + 12 * number)[0])
    except struct.error:  # cut short
        return None
    return None


def without_metadata(data: bytes) -> BareFile:
    """Return a JPEG, PNG, WebP or TIFF file without metadata, and other files as they are.

    Damage elsewhere in the file remains.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _bare_jpeg(data)
    if data.startswith(_PNG):
        return _bare_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _bare_webp(data)
    if data[:4] in _TIFF_ORDERS | _BIG_TIFF_ORDERS:
        return _bare_tiff(data)
    return BareFile(data, b"")


def _bytes_of_hex_profile(profile: str) -> bytes | None:
    try:
        return bytes.fromhex("".join(profile.split("\n")[3:]))
    except ValueError:
        return None


def _xmp_orientation(xmp: Any) -> int | None:
    text = xmp.decode("latin-1") if isinstance(xmp, bytes) else xmp
    found = isinstance(text, str) and re.search(r'tiff:Orientation(?:="|>)([0-9])', text)
    return int(found[1]) if found else None


def _bare_jpeg(data: bytes) -> BareFile:
    """Drop comments and APP1 to APP15, except a valid APP14, which names the color space."""
    kept, exif, at = [data[:2]], b"", 2
    while data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA or length < 2:  # the pixels follow
            break
        segment = data[at : at + 2 + length]
        is_metadata = 0xE1 <= marker <= 0xEF or marker == 0xFE
        if not is_metadata or (marker == 0xEE and length >= 14):
            kept.append(segment)
        elif segment[4:10] == _EXIF:
            exif = exif or segment[4:]
        at += len(segment)
    return BareFile(b"".join([*kept, data[at:]]), exif)


def _bare_png(data: bytes) -> BareFile:
    """Drop ancillary chunks, except valid transparency."""
    kept, exif, at = [_PNG], b"", len(_PNG)
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        chunk = data[at : at + 12 + length]
        at += 12 + length
        is_critical = kind.isalpha() and kind[:1].isupper()
        if is_critical or (kind == b"tRNS" and _is_valid_transparency(chunk, data[25:26])):
            kept.append(chunk)
        elif kind == b"eXIf":
            exif = exif or chunk[8:-4]
    return BareFile(b"".join(kept), exif)


def _is_valid_transparency(chunk: bytes, color_type: bytes) -> bool:
    n_bytes = len(chunk) - 12
    is_long_enough = n_bytes >= {b"\0": 2, b"\2": 6, b"\3": 1}.get(color_type, 1)
    return is_long_enough and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _bare_webp(data: bytes) -> BareFile:
    kept, exif, at = [], b"", 12
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        chunk = data[at : at + 8 + length + length % 2]
        at += 8 + length + length % 2
        if kind == b"VP8X" and len(chunk) > 8:
            chunk = chunk[:8] + bytes([chunk[8] & ~_WEBP_METADATA_FLAGS]) + chunk[9:]
        if kind in _WEBP_PIXELS:
            kept.append(chunk)
        elif kind == b"EXIF":
            exif = chunk[8:]
    body = b"WEBP" + b"".join(kept)
    return BareFile(b"RIFF" + len(body).to_bytes(4, "little") + body, exif)


def _bare_tiff(data: bytes) -> BareFile:
    """Drop tags of the first page that do not describe pixels, and all further pages."""
    is_big = data[:4] in _BIG_TIFF_ORDERS
    order = (_BIG_TIFF_ORDERS if is_big else _TIFF_ORDERS)[data[:4]]
    pointer, counter, at, entry_bytes = ("Q", "Q", 8, 20) if is_big else ("I", "H", 4, 12)
    try:
        start = struct.unpack_from(order + pointer, data, at)[0]
        n_entries = struct.unpack_from(order + counter, data, start)[0]
    except (struct.error, OverflowError):
        return BareFile(data, b"")
    first = start + struct.calcsize(counter)
    last = min(first + n_entries * entry_bytes, len(data) - entry_bytes + 1)
    entries = [data[here : here + entry_bytes] for here in range(first, last, entry_bytes)]
    kept = [each for each in entries if struct.unpack_from(f"{order}H", each)[0] in _TIFF_TAGS]
    # The kept entries move up inside the directory, so that all offsets stay valid.
    directory = struct.pack(order + counter, len(kept)) + b"".join(kept)
    directory += bytes(struct.calcsize(pointer))
    room = len(data) - start
    return BareFile(data[:start] + directory[:room] + data[start + len(directory) :], b"")


_DECODER = "featx-strict"


class _StrictDecoder:
    """A decoder of Pillow that raises OSError if the data end too early or are damaged.

    The arguments after `mode` are the name, the arguments and the configuration of that decoder.
    """

    def __init__(self, mode: str, name: str, args: Any, *config: Any) -> None:
        self._decoder = Image._getdecoder(mode, name, args, config)
        self._is_complete = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, data: bytes) -> tuple[int, int]:
        """Decode the next bytes."""
        n_bytes, error = self._decoder.decode(data)
        if error < 0:
            raise OSError(f"decoder error {error}")
        self._is_complete = n_bytes < 0 or self._decoder.pulls_fd
        return n_bytes, error

    def cleanup(self) -> None:
        """Free the decoder, and check that it has decoded the complete image."""
        self._decoder.cleanup()
        if not self._is_complete:
            raise OSError("image file is truncated")


Image.register_decoder(_DECODER, _StrictDecoder)  # type: ignore[arg-type]


def make_strict(image: ImageFile.ImageFile) -> None:
    """Make loading an opened file raise an error if its data are truncated or damaged."""
    if image.format in ("JPEG", "MPO"):  # their `load_read` would add a missing end of the file
        image.load_read = image.fp.read  # type: ignore[attr-defined, union-attr]
    image.tile = [
        tile
        if tile.codec_name == "libtiff"  # strict by itself
        else tile._replace(codec_name=_DECODER, args=(tile.codec_name, tile.args))
        for tile in image.tile
    ]
