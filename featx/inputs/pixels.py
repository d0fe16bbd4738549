"""``as_levels``: pixel values of any dtype as levels from 0 (black) to 255 (white).

The same rules hold for files, PIL images and arrays:

======================  ==========================================================================
values                  levels
======================  ==========================================================================
uint8                   as they are
bool                    0 and 255
uint16                  scaled from 0..65535, or from 0..white where a file states its white level;
                        an error if they may be 12 bits or fewer: see :func:`check_range`
other integers          0..255 as they are; an error beyond, as their full range is not known
floating-point numbers  0..255 as they are; an error beyond, or if they seem scaled to 0..1
======================  ==========================================================================
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from featx.exceptions import InputError, UnreadableImageError

_UINT16_WHITE = 65535
_DARK = 4096  # uint16 below it may be of 12 bits or fewer, and would become 16 levels
UNIT_PEAK = 2.0  # cubic and Lanczos filters overshoot 0..1, but never that far
_BLOCK = 2**20  # values that are scaled at once
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_OTHER_BYTE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
_UNUSED_OPACITY = ("BMP", "DIB")  # formats whose writers leave it 0, which viewers show opaque
_MAX_SAMPLE_VALUE = 281  # of TIFF
_DESCRIPTION = 270  # of TIFF
_NEW_SUBFILE_TYPE, _REDUCED, _MASK = 254, 1, 4  # of TIFF, and two of its bits
_SUBFILE_TYPE, _OLD_REDUCED = 255, 2
_SIGNED = 2  # as TIFF's sample format
_RAW, _APART = 1, 2  # as TIFF's compression, and its planar configuration
_CURE = "Scale all images alike before you pass them: np.clip((X - low) / (high - low), 0, 1) * 255"


def as_levels(values: np.ndarray, *, white: int | None = None) -> np.ndarray:
    """Return the pixels of an image as levels from 0 to 255, uint8 or float32.

    `white` is the white level that a file states for its unsigned integers; None is that of their
    dtype. `values` are checked by :func:`check_range`, and returned themselves if nothing changes.

    Examples
    --------
    >>> as_levels(np.array([0, 257, 65535], np.uint16)).tolist()
    [0, 1, 255]
    >>> as_levels(np.array([0, 2048, 4095], np.uint16), white=4095).tolist()
    [0, 128, 255]
    """
    if values.dtype == bool:
        return values.astype(np.uint8) * 255
    check_range(values, white=white)
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if _is_uint16(values):
        return _scaled_to_levels(values, white or _UINT16_WHITE)
    return values.astype(np.uint8, copy=False)


def check_range(values: np.ndarray, *, white: int | None = None) -> None:
    """Check that the values of black and white pixels are known.

    A uint16 image that never reaches 4096, a sixteenth of its range, may be dark, or have 8, 10 or
    12 bits, and would then become nearly black. It is refused, unless it is all black, or all its
    values are multiples of 257, as in an 8-bit image that was converted to 16 bits.

    UnreadableImageError is raised too if values are not numbers, are NaN or infinite, or are
    outside 0..255 (floating-point numbers are rounded for this check).
    """
    if not values.size:
        raise UnreadableImageError(f"has shape {values.shape}: expected (h, w) or (h, w, c)")
    if values.dtype.kind not in "buif":
        raise UnreadableImageError(f"has dtype {values.dtype}: expected numbers from 0 to 255")
    if values.dtype in (bool, np.uint8):
        return
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UnreadableImageError("has NaN or infinite pixels")
    if _is_uint16(values):
        colors = values[..., :3] if values.shape[2:] == (4,) else values  # without opacity
        high = colors.max()
        if white is None and 0 < high < _DARK and (colors % 257).any():
            raise dark_uint16(int(high))
        if white is not None and high > white:
            raise UnreadableImageError(f"has values up to {high}, but its file states {white}")
    elif low < -0.5 or high > 255.5:
        raise UnreadableImageError(
            f"has {values.dtype} values from {low:.6g} to {high:.6g}: expected 0 to 255. {_CURE}"
        )


def dark_uint16(highest: int) -> UnreadableImageError:
    """Return the error for 16-bit pixels that may have a smaller range."""
    return UnreadableImageError(
        f"has 16-bit values up to {highest} only: whether white is 65535, 4095 or 255 is not "
        "known. Pass X / 257 if it is 65535, X / 4095 * 255 if it is 4095 (12 bits), and "
        "X.astype(np.uint8) if it is 255, as arrays; of TIFF files, state it to a reader, as in "
        "FeatureExtractor(read=featx.readers.TiffReader(scale=(0, 4095)))"
    )


def float_range(images: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Return ``(0.0, 255.0)`` for floating-point pixels, None for others or if all are black.

    Images, or blocks of them, are read only until the range is known. InputError is raised if no
    pixel exceeds 2: the pixels seem to be scaled to 0..1.
    """
    largest = 0.0
    for image in images:
        if image.dtype.kind == "f" and image.size:
            largest = max(largest, float(np.fmax.reduce(image, axis=None, initial=0)))
            if largest > UNIT_PEAK:
                return (0.0, 255.0)
    check_scale(largest)
    return None


def check_scale(largest: float) -> None:
    """Raise :class:`InputError` if the largest pixel suggests a range of 0..1, with overshoot."""
    if 0 < largest <= UNIT_PEAK:
        raise InputError(
            f"X has floating-point pixels that never exceed {largest:.3g}: expected values from 0 "
            "to 255. Pass X * 255 if they were scaled to 0..1, and (X + 1) * 127.5 if to -1..1. If "
            "they are dark images of 0..255, fit on brighter ones first, or pass "
            "X.round().astype(np.uint8)."
        )


def _is_uint16(values: np.ndarray) -> bool:
    return values.dtype.kind == "u" and values.dtype.itemsize == 2


def _scaled_to_levels(values: np.ndarray, white: int) -> np.ndarray:
    """Return levels of unsigned integers, computed block by block to save memory."""
    table = _level_table(white)
    flat = values.reshape(-1)
    levels = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK):
        levels[start : start + _BLOCK] = table[flat[start : start + _BLOCK]]
    return levels.reshape(values.shape)


@functools.lru_cache(maxsize=4)
def _level_table(white: int) -> np.ndarray:
    return np.rint(np.arange(white + 1) * 255 / white).astype(np.uint8)


class StoredChannels:
    """The channels of an image as its file stores them, which Pillow drops when it loads them.

    Attributes
    ----------
    are_wide : bool
        True if colors are known to have 16 bits a channel, of which Pillow keeps the upper 8.
    """

    def __init__(self, image: Image.Image) -> None:
        tiles = getattr(image, "tile", None) or ()
        found = re.search(r"\w+;\w+", str(tiles[0].args)) if tiles else None
        self._raw_mode = found[0] if found else ""  # of Pillow, such as "L;4"
        self._is_png = bool(tiles) and image.format == "PNG"
        is_wide = self._raw_mode[-4:-1] == ";16"
        self.are_wide = image.mode in ("RGB", "RGBA", "CMYK") and (
            is_wide or _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE) == 16
        )
        self._frame = image.tell() if self.are_wide else 0
        self._data = file_bytes(image) if self.are_wide and is_wide else b""

    def lower_bytes(self, image: Image.Image) -> Image.Image | None:
        """Return the lower 8 bits of each channel as an image; None if they cannot be read."""
        is_apart = _tiff_tag(image, TiffImagePlugin.PLANAR_CONFIGURATION) == _APART
        is_animation = image.format != "TIFF" and self._frame
        if not self._data or image.format not in ("PNG", "TIFF") or is_apart or is_animation:
            return None
        # Pillow takes the other byte of each channel for the upper one.
        raw_mode = self._raw_mode[:-1] + _OTHER_BYTE[self._raw_mode[-1]]
        raw_mode = "RGBA" if raw_mode == "LA;16L" else raw_mode.replace("RGBa", "RGBA")
        lower = Image.open(io.BytesIO(self._data), formats=[image.format])
        lower.seek(self._frame)
        lower.tile = [_with_raw_mode(tile, raw_mode) for tile in lower.tile]
        lower.load()
        return lower.getchannel("G").convert("RGB") if raw_mode == "RGBA" else lower

    def transparent_color(self, image: Image.Image) -> Any:
        """Return the transparent color of an image in levels of its mode, None if it has none."""
        color = image.info.get("transparency")
        if not self._is_png or self.are_wide:
            return color
        if isinstance(color, tuple):
            return tuple(value & 255 for value in color)
        if self._raw_mode in ("L;2", "L;4"):
            highest = 2 ** int(self._raw_mode[-1]) - 1
            return (color & highest) * 255 // highest
        return color


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    is_name = isinstance(tile.args, str)
    return tile._replace(args=raw_mode if is_name else (raw_mode, *tile.args[1:]))


def file_bytes(image: Any) -> bytes:
    """Return the bytes of the file of an image, none if it is closed."""
    with contextlib.suppress(Exception):
        position = image.fp.tell()
        image.fp.seek(0)
        data: bytes = image.fp.read()
        image.fp.seek(position)
        return data
    return b""


def in_own_channels(image: Image.Image, stored: StoredChannels) -> Image.Image:
    """Return a loaded image of any mode in mode L, RGB or RGBA; it may be the image itself.

    UnreadableImageError is raised if the range of its pixels is not known.
    """
    if image.mode in _WIDE_MODES or _has_signed_pixels(image):
        return _gray_levels(image)
    if image.mode == "P" and (palette := _palette_of_8_bits(image)):
        image = image.copy()
        image.putpalette(palette, "RGB;L")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "RGBA":
        is_unused = image.format in _UNUSED_OPACITY and image.getchannel("A").getextrema() == (0, 0)
        return _opaque_image(image) if is_unused else image
    if image.has_transparency_data:
        try:
            return _with_opacity(image, stored)
        except (TypeError, ValueError):  # the transparent color in the metadata is not a color
            image = image.copy()
            del image.info["transparency"]
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _opaque_image(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(255)
    return image


def _with_opacity(image: Image.Image, stored: StoredChannels) -> Image.Image:
    """Return an image with transparency in RGBA."""
    color = stored.transparent_color(image)
    lower = stored.lower_bytes(image) if isinstance(color, tuple) and stored.are_wide else None
    if lower is not None:
        values = np.asarray(image) * np.uint16(256) + np.asarray(lower)
        opacity = np.where((values == color).all(axis=-1), 0, 255).astype(np.uint8)
        image = image.copy()
        image.putalpha(Image.fromarray(opacity))
        return image
    if color != image.info.get("transparency"):
        image = image.copy()
        image.info["transparency"] = color
    return image.convert("RGBA")


def _gray_levels(image: Image.Image) -> Image.Image:
    """Return the gray levels of an image of integers other than unsigned ones of 8 bits."""
    values = np.asarray(image)
    if values.dtype == np.uint8:
        values = values.view(np.int8)
    elif _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE) == 32 and not _has_signed_pixels(image):
        values = values.view(np.uint32)
    levels = as_levels(values, white=_stated_white(image, values))
    if image.mode != "I" and _tiff_tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        levels = 255 - levels  # 0 is white, which Pillow heeds in images of 8 bits only
    gray = Image.fromarray(levels)
    if not isinstance(image.info.get("transparency"), int):
        return gray
    opacity = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype("u1"))
    return Image.merge("LA", (gray, opacity)).convert("RGBA")


def _palette_of_8_bits(image: Image.Image) -> bytes | None:
    """Return the palette of a TIFF file that was written with 8 bits a color instead of 16."""
    try:
        colors = image.tag_v2.get(TiffImagePlugin.COLORMAP)  # type: ignore[attr-defined]
        return bytes(colors) if any(colors) else None
    except Exception:  # no TIFF file, a damaged tag, or 16 bits
        return None


def _has_signed_pixels(image: Image.Image) -> bool:
    return _tiff_tag(image, TiffImagePlugin.SAMPLEFORMAT) == _SIGNED


def _stated_white(image: Image.Image, values: np.ndarray) -> int | None:
    """Return the white level of a TIFF file, if it states one of a whole number of bits."""
    if _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE) == 12:
        return 4095
    highest = _tiff_tag(image, _MAX_SAMPLE_VALUE)
    is_stated = highest in [2**n - 1 for n in range(8, 17)]
    return highest if is_stated and values.max() <= highest else None


def _tiff_tag(image: Any, tag: int) -> int | None:
    """Return a tag of a TIFF file; None if it is missing or not one number for all channels."""
    try:
        value = image.tag_v2.get(tag)
    except Exception:  # no TIFF file, or a damaged tag
        return None
    numbers = set(value) if isinstance(value, tuple) else {value}
    number = numbers.pop() if len(numbers) == 1 else None
    return number if isinstance(number, int) else None


def check_wide_colors(image: Image.Image, stored: StoredChannels) -> None:
    """Check the range of a loaded image that has, or may have, 16 bits a channel in its file."""
    if not stored.are_wide:
        return
    bands = image.getextrema()
    highest = int(np.max(bands if image.mode == "CMYK" else bands[:3]))
    if highest == 0:
        lower = stored.lower_bytes(image)
        bands = ((0, 255),) if lower is None else lower.getextrema()
        if lowest_8_bits := int(np.max(bands if image.mode == "CMYK" else bands[:3])):
            raise dark_uint16(lowest_8_bits)
    if 0 < highest < 16:
        raise dark_uint16(256 * highest + 255)
    white = _tiff_tag(image, _MAX_SAMPLE_VALUE) or 0
    if white in [2**n - 1 for n in range(8, 16)] and 256 * highest < white:
        raise UnreadableImageError(
            f"has 16 bits per channel and, by its file, white at {white}, but Pillow drops the "
            f"lower 8 bits: pass X / {white} * 255 as an array"
        )


def n_images_of_imagej(image: Image.Image, n_bytes: int) -> int:
    """Return the number of images in a TIFF file of ImageJ, of which it may name only the first.

    It is 1 for files of other programs, and for those that are too small for so many images.
    """
    try:
        description = str(image.tag_v2.get(_DESCRIPTION))  # type: ignore[attr-defined]
    except Exception:  # a damaged tag
        return 1
    found = re.search(r"^ImageJ=.*^images=(\d{1,9})$", description, re.MULTILINE | re.DOTALL)
    n_images = int(found[1]) if found else 1
    return n_images if n_images * image.width * image.height <= n_bytes else 1


def is_counted_page(image: Image.Image) -> bool:
    """Return True for a page of a TIFF file that is no thumbnail, overview or mask of another."""
    is_aside = (_tiff_tag(image, _NEW_SUBFILE_TYPE) or 0) & (_REDUCED | _MASK)
    return not is_aside and _tiff_tag(image, _SUBFILE_TYPE) != _OLD_REDUCED


def tile_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of the tiles of a TIFF file, zeros without tiles."""
    return _tiff_tag(image, TiffImagePlugin.TILEWIDTH) or 0, _tiff_tag(
        image, TiffImagePlugin.TILELENGTH
    ) or 0


def on_white(image: Image.Image) -> Image.Image:
    """Return an image of mode L, RGB or RGBA in RGB, on a white background."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def check_mode(image: Image.Image) -> None:
    """Check that the mode of an image determines the scale of its pixels."""
    if image.mode == "F":
        raise UnreadableImageError(
            "has floating-point pixels, whose scale is not known: pass it as an array with values "
            "from 0 to 255, such as np.asarray(PIL.Image.open(path)) * 255 if they are 0 to 1; of "
            "TIFF files, state it to a reader: "
            "FeatureExtractor(read=featx.readers.TiffReader(scale=(0, 1)))"
        )
    is_wide = _tiff_tag(image, TiffImagePlugin.BITSPERSAMPLE) == 16
    if (
        _tiff_tag(image, TiffImagePlugin.PLANAR_CONFIGURATION) == _APART
        and _tiff_tag(image, TiffImagePlugin.COMPRESSION) in (None, _RAW)
        and (image.mode == "LAB" or (is_wide and image.mode not in _WIDE_MODES))
    ):  # Pillow 13 takes each byte for a pixel, and signed colors for unsigned ones
        raise UnreadableImageError(
            "stores its channels separately and uncompressed, which Pillow reads wrongly: convert "
            "it, or pass its pixels as an array"
        )
