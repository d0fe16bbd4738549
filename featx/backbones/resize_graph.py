"""``with_resize``: resizing as part of a Keras graph, for models that take images of any size.

The operations are those of ``inputs/resize.py``: each side is resized by a matrix of Lanczos
weights, the height first, and values are rounded and clipped after each, as ``cykooz-resizer`` does
with 8-bit images. Of 78 photos, 0.5% of the values differ by one level, 1 in 500,000 by two. (With
the width first, as in Pillow, 20% differ, by up to 30. Keras' ``Resizing`` layer rounds once:
16%, by up to 25; and its crops start at whole pixels of the image, up to half a pixel off.)

Only plain operations of Keras are used, so that the model needs no code of featx, and converters
take it. Weights follow from the size of the images when the model runs; all images of a batch have
one size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from featx.inputs.kinds import InputForm

if TYPE_CHECKING:
    import keras

_SUPPORT = 3.0  # of the Lanczos filter, in pixels of the smaller image
_NEAR_ZERO = 1e-4  # below it, sin(x) / x is 1 in float32


def with_resize(model: keras.Model, form: InputForm) -> keras.Model:
    """Return a model that resizes images (n, height, width, c), uint8, and runs another on them.

    `form` is the form of the inputs of the other model, which are images, uint8.
    """
    import keras
    from keras import ops

    inputs = keras.Input((None, None, form.shape[2]), dtype="uint8")
    x = ops.transpose(ops.cast(inputs, "float32"), (0, 3, 1, 2))
    # The size of the images, as tensors.
    rows, columns = _pixel_positions(x, axis=2), _pixel_positions(x, axis=3)
    own = [ops.max(rows) + 1.0, ops.max(columns) + 1.0]
    sides = map(_ResizedSide, own, _resized_sides(own, form), form.shape[:2])
    height_weights, width_weights = map(_resize_weights, (rows, columns), sides)
    x = _rounded_levels(ops.matmul(height_weights, x))
    x = _rounded_levels(ops.matmul(x, ops.transpose(width_weights)))
    return keras.Model(inputs, model(ops.cast(ops.transpose(x, (0, 2, 3, 1)), "uint8")))


class _ResizedSide(NamedTuple):
    """The lengths of one side in pixels: of the image, of the resized image and of the input."""

    own: Any
    resized: Any
    target: int


def _pixel_positions(x: Any, axis: int) -> Any:
    """Return 0, 1, ... along one axis of the images, as a vector."""
    from keras import ops

    others = tuple(each for each in range(4) if each != axis)
    return ops.cumsum(ops.max(ops.ones_like(x), axis=others)) - 1.0


def _resized_sides(own: list[Any], form: InputForm) -> list[Any]:
    """Return the sides of the resized image: see ``_resize_place`` in ``inputs/resize.py``."""
    from keras import ops

    target = [float(side) for side in form.shape[:2]]
    if form.resize == "stretch":
        return [ops.zeros_like(side) + given for side, given in zip(own, target, strict=True)]
    # Exact in float32 while the product of two sides is below 8 million.
    kept = [
        ops.maximum(ops.floor((own[side] * target[1 - side] + 0.5) / own[1 - side]), 1.0)
        for side in (0, 1)
    ]
    is_wider = ops.greater(own[1] * target[0], own[0] * target[1])
    if form.resize == "crop":
        return [ops.where(is_wider, target[0], kept[0]), ops.where(is_wider, kept[1], target[1])]
    return [ops.where(is_wider, kept[0], target[0]), ops.where(is_wider, target[1], kept[1])]


def _resize_weights(positions: Any, side: _ResizedSide) -> Any:
    """Return the weights, (target, own), of each pixel of a side in each resized pixel."""
    from keras import ops

    offset = ops.round((side.target - side.resized) / 2.0)
    scale = side.own / side.resized
    # An array of numpy becomes a constant of the graph; a tensor, an input of it in ONNX.
    places = ops.subtract(np.arange(side.target, dtype=np.float32), offset)
    centers = (places + 0.5) * scale
    distance = ops.expand_dims(positions + 0.5, 0) - ops.expand_dims(centers, 1)
    distance = ops.abs(distance) / ops.maximum(scale, 1.0)
    weights = ops.where(distance < _SUPPORT, _sinc(distance) * _sinc(distance / _SUPPORT), 0.0)
    weights = weights / ops.sum(weights, axis=1, keepdims=True)
    is_inside = ops.logical_and(places >= 0.0, places < side.resized)
    return ops.where(ops.expand_dims(is_inside, 1), weights, 0.0)


def _sinc(x: Any) -> Any:
    from keras import ops

    x = ops.maximum(x * math.pi, _NEAR_ZERO)
    return ops.sin(x) / x


def _rounded_levels(x: Any) -> Any:
    """Return levels rounded half up, as fixed-point numbers are, and clipped."""
    from keras import ops

    return ops.clip(ops.floor(x + 0.5), 0.0, 255.0)
