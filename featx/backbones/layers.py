"""Layers of a model by name, and the pooling of their outputs.

A layer may be called in other models too, or twice in one model, so its output is looked up in the
graph of the model. Layers of a nested model are named ``"outer/inner"``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from featx._validation import did_you_mean
from featx.digests.tensor_history import calls_of, is_graph
from featx.exceptions import ParameterError

if TYPE_CHECKING:
    import keras


POOLINGS = ("avg", "max", "avgmax", "flatten", None)


class LayerSpec(NamedTuple):
    """A layer, None for the output of the model, and a pooling, which select an embedding."""

    layer: str | None
    pooling: str | None


def pooled(x: keras.KerasTensor, pooling: str | None, channel_axis: int = -1) -> keras.KerasTensor:
    """Pool activations, (n, ..., c), to vectors, as operations of a Keras graph.

    A mean or maximum keeps `channel_axis`. Vectors are not changed; with ``pooling=None``, nothing
    is.
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
    """Return the shape of one embedding, given the shape of one sample's activations.

    Axis 0 is that of the samples for `channel_axis`, as in :func:`pooled`.

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


def find_layer_output(model: keras.Model, name: str, *, label: str) -> keras.KerasTensor:
    """Return the output of a layer of a functional or Sequential model, connected to its inputs.

    The name may be ``"outer/inner"``; messages call the model `label`.
    """
    calls = [node for node in calls_of(model) if node.operation.name == name]
    if len(calls) == 1 and len(calls[0].outputs) == 1:
        return calls[0].outputs[0]
    if calls:
        raise ParameterError.of(
            "layer",
            name,
            f"{label} calls this layer {len(calls)} times, or it has several outputs, so a name "
            "does not select one of them",
        )
    outer, slash, inner = name.partition("/")
    nested = [node for node in calls_of(model) if node.operation.name == outer]
    is_inside = slash and len(nested) == 1 and is_graph(nested[0].operation)
    if is_inside and inner in _names_in(nested[0].operation):
        return _inside(nested[0], inner, label=f"{label}/{outer}")
    names = list(_names_in(model))
    inside = [known for known in names if known.endswith(f"/{name}")]
    hint = did_you_mean(inside[0] if inside else name, names)
    raise ParameterError.of(
        "layer",
        name,
        f"{label} has no layer of this name.{hint} It has {len(names)} layers, the last being "
        f"{', '.join(map(repr, names[-5:]))}.",
    )


def _inside(call: Any, name: str, *, label: str) -> keras.KerasTensor:
    """Return the output of a layer inside a nested model, for the inputs of this call."""
    import keras

    model = call.operation
    cut = keras.Model(model.inputs, find_layer_output(model, name, label=label))
    return cut(*call.arguments.args, **call.arguments.kwargs)


def _names_in(model: keras.Model) -> Iterator[str]:
    for call in calls_of(model):
        if is_graph(call.operation):
            yield from (f"{call.operation.name}/{inner}" for inner in _names_in(call.operation))
        yield call.operation.name
