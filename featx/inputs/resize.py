"""``resized``: images in the input size of a backbone, with the antialiased Lanczos filter.

There are three ways to resize an image whose aspect ratio differs from the input's:

===========  ====================================================================================
``resize``   what happens
===========  ====================================================================================
"stretch"    both sides are resized to the input's; the aspect ratio changes
"crop"       the image is resized until it covers the input, and its center is cut out
"pad"        the image is resized until it fits into the input, centered on black (zeros)
===========  ====================================================================================

With "crop" and "pad", one side of the resized image is as long as the input's. The other follows
from the aspect ratio and is rounded down, to at least one pixel. The offset of the center is half
the difference, rounded half to even. These are the rules of torchvision's ``Resize`` (also of its
``max_size``) and ``CenterCrop``: ``int(size * long / short)`` and ``int(round((long - size) / 2))``
in ``torchvision/transforms/functional.py``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

# Names in the spaces: change one if the same pixels no longer give the same inputs.
RESIZES = {
    "stretch": "lanczos-stretch-2",
    "crop": "lanczos-crop-1",
    "pad": "lanczos-pad-1",
}
RESAMPLING = "lanczos3"
REDUCING_GAP = 2  # as in Pillow's thumbnails, so that the filter at least halves the image
# Longer sides, which no camera produces, are reduced first: the filter takes 50 bytes per pixel.
_LONGEST_SIDE = 2**16


class _ResizePlace(NamedTuple):
    """The size of a resized image, and the offset of its top left corner from that of the input.

    Both are pairs (x, y) in pixels. An offset is negative where the image extends beyond the input.
    """

    size: tuple[int, int]
    offset: tuple[int, int]


def resized(image: Image.Image, size: tuple[int, int], resize: str) -> np.ndarray:
    """Return the pixels of a resized image, (height, width) or (height, width, c).

    Examples
    --------
    >>> white = Image.new("L", (4, 2), 255)
    >>> resized(white, (4, 4), "pad")[:, 0].tolist(), resized(white, (4, 4), "crop").min().item()
    ([0, 255, 255, 0], 255)
    """
    height, width = size
    place = _resize_place(image.size, (width, height), resize)
    if resize == "pad":
        canvas = Image.new(image.mode, (width, height))
        canvas.paste(_resized_by_filter(image, place.size), place.offset)
        return np.asarray(canvas)
    box = [
        (-offset / whole, side / whole)
        for offset, side, whole in zip(place.offset, (width, height), place.size, strict=True)
    ]
    return np.asarray(_resized_by_filter(image, (width, height), box if resize == "crop" else None))


def decoded_size(size: tuple[int, int], shape: tuple[int, ...], resize: str) -> tuple[int, int]:
    """Return the smallest size, (width, height), at which an image may be decoded.

    It is twice what is needed, whichever side is longer, since EXIF may rotate the image. `size` is
    the image's own size, and `shape` the shape of the input, (h, w, c).
    """
    side = REDUCING_GAP * max(shape[:2])
    if resize != "pad":
        return side, side
    width, height = size
    return -(-side * width // max(size)), -(-side * height // max(size))


def _resize_place(own: tuple[int, int], target: tuple[int, int], resize: str) -> _ResizePlace:
    if resize == "stretch":
        return _ResizePlace(target, (0, 0))
    is_wider = own[0] * target[1] > own[1] * target[0]
    # The deciding side is exactly as long as the input's.
    decides = int(is_wider) if resize == "crop" else int(not is_wider)
    sides = [max(1, side * target[decides] // own[decides]) for side in own]
    sides[decides] = target[decides]
    x, y = (round((given - side) / 2) for given, side in zip(target, sides, strict=True))
    return _ResizePlace((sides[0], sides[1]), (x, y))


def _resized_by_filter(
    image: Image.Image, size: tuple[int, int], box: list[tuple[float, float]] | None = None
) -> Image.Image:
    """Resize an image, or a box of it, given as start and length in fractions of each side."""
    if max(image.size) > _LONGEST_SIDE:
        image = image.reduce((-(-image.width // _LONGEST_SIDE), -(-image.height // _LONGEST_SIDE)))
    # Pillow's filter with SIMD instructions; integers are the same with all instruction sets.
    options = ResizeOptions(ResizeAlg.convolution(FilterType.lanczos3))
    options.use_alpha = False
    if box is not None:
        (left, width), (top, height) = box
        options.crop_box = CropBox(
            left * image.width, top * image.height, width * image.width, height * image.height
        )
    filtered = Image.new(image.mode, size)
    Resizer().resize_pil(image, filtered, options)
    return filtered
