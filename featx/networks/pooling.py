"""What turns activations of shape (n, ..., c) into vectors; vectors stay as they are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

POOLINGS = ("avg", "max", "avgmax", "flatten", None)


def pooled(x: keras.KerasTensor, pooling: str | None) -> keras.KerasTensor:
    """Pool activations, as operations of a Keras graph.

    Parameters
    ----------
    x : KerasTensor of shape (n, ..., c)
    pooling : {"avg", "max", "avgmax", "flatten", None}

    Returns
    -------
    KerasTensor of shape (n, n_features), or that of `x` with None
    """
    from keras import ops

    if pooling is None or len(x.shape) == 2:
        return x
    if pooling == "flatten":
        return ops.reshape(x, (-1, math.prod(x.shape[1:])))
    inner = tuple(range(1, len(x.shape) - 1))
    if pooling == "max":
        return ops.max(x, axis=inner)
    if pooling == "avg":
        return ops.mean(x, axis=inner)
    return ops.concatenate([ops.mean(x, axis=inner), ops.max(x, axis=inner)], axis=-1)


def pooled_shape(shape: tuple[int, ...], pooling: str | None) -> tuple[int, ...]:
    """Return the shape of one embedding, from that of one sample's activations.

    Examples
    --------
    >>> pooled_shape((7, 7, 1280), "avg"), pooled_shape((7, 7, 10), "flatten")
    ((1280,), (490,))
    """
    if pooling is None or len(shape) == 1:
        return tuple(shape)
    if pooling == "flatten":
        return (math.prod(shape),)
    return (shape[-1] * (2 if pooling == "avgmax" else 1),)
