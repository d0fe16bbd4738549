"""What turns activations, of shape (n, ..., c) or (n, c, ...), into vectors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

POOLINGS = ("avg", "max", "avgmax", "flatten", None)


def pooled(x: keras.KerasTensor, pooling: str | None, channel_axis: int = -1) -> keras.KerasTensor:
    """Pool activations, as operations of a Keras graph.

    Parameters
    ----------
    x : KerasTensor of shape (n, ..., c)
        Vectors stay as they are.
    pooling : {"avg", "max", "avgmax", "flatten", None}
    channel_axis : int, default=-1
        Axis that a mean or maximum keeps.

    Returns
    -------
    KerasTensor of shape (n, n_features), or that of `x` with None
    """
    from keras import ops

    if pooling is None or len(x.shape) == 2:
        return x
    if pooling == "flatten":
        return ops.reshape(x, (-1, math.prod(x.shape[1:])))
    inner = tuple(set(range(1, len(x.shape))) - {channel_axis % len(x.shape)})
    if pooling == "max":
        return ops.max(x, axis=inner)
    if pooling == "avg":
        return ops.mean(x, axis=inner)
    return ops.concatenate([ops.mean(x, axis=inner), ops.max(x, axis=inner)], axis=-1)


def pooled_shape(
    shape: tuple[int, ...], pooling: str | None, channel_axis: int = -1
) -> tuple[int, ...]:
    """Return the shape of one embedding, from that of one sample's activations.

    `channel_axis` counts the samples as axis 0, as in :func:`pooled`.

    Examples
    --------
    >>> pooled_shape((7, 7, 1280), "avg"), pooled_shape((7, 7, 10), "flatten")
    ((1280,), (490,))
    """
    if pooling is None or len(shape) == 1:
        return tuple(shape)
    if pooling == "flatten":
        return (math.prod(shape),)
    n_channels = (1, *shape)[channel_axis]
    return (n_channels * (2 if pooling == "avgmax" else 1),)
