"""Pixel values of any dtype, turned into levels from 0 (black) to 255 (white).

There is one rule for files, PIL images and arrays:

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

import functools
from collections.abc import Iterable

import numpy as np

from featx.exceptions import InputError, UnreadableImageError

_UINT16_WHITE = 65535
_DARK = 4096  # uint16 below it may be 12 bits or fewer, of which 8 bits would keep 16 levels
UNIT_PEAK = 2.0  # cubic and Lanczos filters overshoot 0..1, but never as far
_BLOCK = 2**20  # values that are scaled at once
_WAY_OUT = (
    "Scale all images alike before you pass them: np.clip((X - low) / (high - low), 0, 1) * 255"
)


def as_levels(values: np.ndarray, *, white: int | None = None) -> np.ndarray:
    """Return pixel values as levels from 0 to 255.

    Parameters
    ----------
    values : ndarray
        Pixels of one image.
    white : int, default=None
        White level that a file states for its unsigned integers; None is that of their dtype.

    Returns
    -------
    ndarray of the same shape, uint8 or float32
        `values` itself where nothing changes.

    Raises
    ------
    UnreadableImageError
        See :func:`check_range`.

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
        return _scaled(values, white or _UINT16_WHITE)
    return values.astype(np.uint8, copy=False)


def check_range(values: np.ndarray, *, white: int | None = None) -> None:
    """Check that the values of black and white pixels are known.

    A uint16 image that never reaches 4096, a sixteenth of its range, may be dark, or hold 8, 10 or
    12 bits and come out nearly black: it is an error, unless it is all black, or all its values
    are multiples of 257, as those of an 8-bit image that was widened.

    Parameters
    ----------
    values : ndarray
        Pixels of one image.
    white : int, default=None
        White level that a file states.

    Raises
    ------
    UnreadableImageError
        The values are not numbers, are NaN or infinite, lie outside 0..255 (floating-point numbers
        that round to these are accepted), or have an unknown range.
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
        colours = values[..., :3] if values.ndim == 3 else values  # the fourth may be opacity
        high = colours.max()
        if white is None and 0 < high < _DARK and (colours % 257).any():
            raise dark_uint16(int(high))
        if white is not None and high > white:
            raise UnreadableImageError(f"has values up to {high}, but its file states {white}")
    elif low < -0.5 or high > 255.5:
        raise UnreadableImageError(
            f"has {values.dtype} values from {low:.6g} to {high:.6g}: expected 0 to 255. {_WAY_OUT}"
        )


def dark_uint16(highest: int) -> UnreadableImageError:
    """Return the error for 16-bit pixels that may have a smaller range."""
    return UnreadableImageError(
        f"has 16-bit values up to {highest} only: whether white is 65535, 4095 or 255 is not "
        "known. Pass X / 257 if it is 65535, X / 4095 * 255 if it is 4095 (12 bits), and "
        "X.astype(np.uint8) if it is 255, as arrays"
    )


def float_range(images: Iterable[np.ndarray]) -> tuple[float, float] | None:
    """Return the range of floating-point pixels, reading no more of them than needed.

    Parameters
    ----------
    images : iterable of ndarray
        Images, or blocks of them; those of other dtypes are left out.

    Returns
    -------
    tuple of float or None
        ``(0.0, 255.0)``; None if there are no such pixels, or all are black.

    Raises
    ------
    InputError
        None exceeds 2: they seem to be scaled to 0..1.

    Examples
    --------
    >>> float_range([np.array([[0.0, 40.0]])])
    (0.0, 255.0)
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
    """Check that the largest floating-point pixel shows that the range is 0..255.

    Raises
    ------
    InputError
        It does not exceed 2: the pixels seem to be scaled to 0..1, with some overshoot.
    """
    if 0 < largest <= UNIT_PEAK:
        raise InputError(
            f"X has floating-point pixels that never exceed {largest:.3g}: expected values from 0 "
            "to 255. Pass X * 255 if they were scaled to 0..1, and (X + 1) * 127.5 if to -1..1. If "
            "they are dark images of 0..255, fit on brighter ones first, or pass "
            "X.round().astype(np.uint8)."
        )


def _is_uint16(values: np.ndarray) -> bool:
    return values.dtype.kind == "u" and values.dtype.itemsize == 2


def _scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Return levels of unsigned integers, computed block by block to save memory."""
    table = _levels_of(white)
    flat = values.reshape(-1)
    levels = np.empty(flat.shape, np.uint8)
    for start in range(0, len(flat), _BLOCK):
        levels[start : start + _BLOCK] = table[flat[start : start + _BLOCK]]
    return levels.reshape(values.shape)


@functools.lru_cache(maxsize=4)
def _levels_of(white: int) -> np.ndarray:
    return np.rint(np.arange(white + 1) * 255 / white).astype(np.uint8)
