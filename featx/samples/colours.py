"""Images of any mode of Pillow as gray, RGB or RGBA, with 8 bits a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from featx.exceptions import UnreadableImageError
from featx.samples.levels import as_levels, dark_uint16

_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_WIDE_COLOURS = (";16B", ";16L", ";16N")  # in Pillow's raw modes of 16 bits a channel
_MAX_SAMPLE_VALUE = 281  # of TIFF
_SIGNED = 2  # as TIFF's sample format
_RAW, _APART = 1, 2  # as TIFF's compression, and its planar configuration


def in_own_channels(image: Image.Image) -> Image.Image:
    """Return a loaded image in mode L, RGB or RGBA; it may be the image itself.

    Parameters
    ----------
    image : PIL.Image.Image
        Of any mode.

    Raises
    ------
    UnreadableImageError
        The range of its pixels is not known.

    Examples
    --------
    >>> in_own_channels(Image.new("I;16", (1, 1), 65535)).getpixel((0, 0))
    255
    """
    if image.mode in _WIDE_MODES or _is_signed(image):
        return _gray(image)
    if image.mode == "P" and (palette := _palette_of_8_bits(image)):
        image = image.copy()
        image.putpalette(palette, "RGB;L")
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "RGBA":
        return image
    if image.has_transparency_data:
        try:
            return image.convert("RGBA")
        except (TypeError, ValueError):  # something other than a colour is named as transparent
            image = image.copy()
            del image.info["transparency"]
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _gray(image: Image.Image) -> Image.Image:
    """Return the gray levels of an image of integers other than unsigned ones of 8 bits."""
    values = np.asarray(image)
    if values.dtype == np.uint8:
        values = values.view(np.int8)
    elif _tag(image, TiffImagePlugin.BITSPERSAMPLE) == 32 and not _is_signed(image):
        values = values.view(np.uint32)
    levels = as_levels(values, white=_stated_white(image, values))
    if image.mode != "I" and _tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        levels = 255 - levels  # 0 is white, which Pillow obeys in 8 bits only
    gray = Image.fromarray(levels)
    if not isinstance(image.info.get("transparency"), int):
        return gray
    opacity = Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype("u1"))
    return Image.merge("LA", (gray, opacity)).convert("RGBA")


def _palette_of_8_bits(image: Image.Image) -> bytes | None:
    """Return the palette of a TIFF file that was written with 8 bits a colour instead of 16."""
    try:
        colours = image.tag_v2.get(TiffImagePlugin.COLORMAP)  # type: ignore[attr-defined]
        return bytes(colours) if any(colours) else None
    except Exception:  # no TIFF file, a damaged tag, or 16 bits
        return None


def _is_signed(image: Image.Image) -> bool:
    return _tag(image, TiffImagePlugin.SAMPLEFORMAT) == _SIGNED


def _stated_white(image: Image.Image, values: np.ndarray) -> int | None:
    """Return the white level of a TIFF file, if it states one of a whole number of bits."""
    if _tag(image, TiffImagePlugin.BITSPERSAMPLE) == 12:
        return 4095
    highest = _tag(image, _MAX_SAMPLE_VALUE)
    is_stated = highest in [2**n - 1 for n in range(8, 17)]
    return highest if is_stated and values.max() <= highest else None


def _tag(image: Any, tag: int) -> int | None:
    """Return a tag of a TIFF file; None if it is missing or not one number for all channels."""
    try:
        value = image.tag_v2.get(tag)
    except Exception:  # no TIFF file, or a damaged tag
        return None
    numbers = set(value) if isinstance(value, tuple) else {value}
    number = numbers.pop() if len(numbers) == 1 else None
    return number if isinstance(number, int) else None


def has_wide_colours(image: Image.Image) -> bool:
    """Return True if channels are known to have 16 bits, of which Pillow keeps the upper 8."""
    if image.mode not in ("RGB", "RGBA", "CMYK"):
        return False
    if _tag(image, TiffImagePlugin.BITSPERSAMPLE) == 16:
        return True
    tiles = getattr(image, "tile", None) or ()
    return any(kind in str(tile.args) for tile in tiles for kind in _WIDE_COLOURS)


def check_wide_colours(image: Image.Image) -> None:
    """Check the range of a colour image that Pillow has reduced from 16 bits a channel to 8."""
    bands = image.getextrema()
    highest = int(np.max(bands if image.mode == "CMYK" else bands[:3]))
    if 0 < highest < 16:
        raise dark_uint16(256 * highest + 255)
    white = _tag(image, _MAX_SAMPLE_VALUE) or 0
    if white in [2**n - 1 for n in range(8, 16)] and 256 * highest < white:
        raise UnreadableImageError(
            f"has 16 bits a colour, and its file states that white is {white}, of which Pillow "
            f"loses the lower 8 bits: pass X / {white} * 255 as an array"
        )


def tile_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of the tiles of a TIFF file, zeros without tiles."""
    return _tag(image, TiffImagePlugin.TILEWIDTH) or 0, _tag(image, TiffImagePlugin.TILELENGTH) or 0


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
            "from 0 to 255, such as np.asarray(PIL.Image.open(path)) * 255 if they are 0 to 1"
        )
    is_wide = _tag(image, TiffImagePlugin.BITSPERSAMPLE) == 16
    if (
        _tag(image, TiffImagePlugin.PLANAR_CONFIGURATION) == _APART
        and _tag(image, TiffImagePlugin.COMPRESSION) in (None, _RAW)
        and (image.mode == "LAB" or (is_wide and image.mode not in _WIDE_MODES))
    ):  # Pillow 13 takes each byte for a pixel, and signed colours for unsigned ones
        raise UnreadableImageError(
            "keeps its channels apart, uncompressed, which Pillow reads wrongly: convert it, or "
            "pass its pixels as an array"
        )
