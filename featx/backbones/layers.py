"""LayerSpec and ``find_layer_output``: layers of a model by name, and the pooling of their outputs.

A layer may be called in other models too, or twice in one model, so its output is looked up in the
graph of the model. Layers of a nested model are named ``"outer/inner"``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from featx._validation import did_you_mean
from featx.digests.tensor_history import calls_of, is_graph
from featx.exceptions import ParameterError

if TYPE_CHECKING:
    import keras


_TOKEN_POOLINGS = ("cls", "patches", "cls+patches", "cls+avg")
POOLINGS = ("avg", "max", "avgmax", "gem", *_TOKEN_POOLINGS, "flatten", None)
_GEM_POWER, _GEM_FLOOR = 3.0, 1e-6


class LayerSpec(NamedTuple):
    """A layer (None for the output of the model) and a pooling, which select an embedding."""

    layer: str | None
    pooling: str | None


def counts_prefix_tokens(pooling: str | None) -> bool:
    """Return True if a pooling depends on the number of tokens before the patches."""
    return pooling == "gem" or is_token_pooling(pooling)


def is_token_pooling(pooling: str | None) -> bool:
    """Return True if a pooling applies to tokens only."""
    return pooling in _TOKEN_POOLINGS


def check_token_pooling(
    pooling: str | None, n_prefix_tokens: int | None, *, n_tokens: int | None, label: str
) -> None:
    """Raise ParameterError if a pooling names tokens that a backbone does not have.

    `n_tokens` is the number of all tokens; None if it depends on the input.

    Examples
    --------
    >>> check_token_pooling("cls", 0, n_tokens=49, label="swin")
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: pooling='cls': swin has no class token: expected 'patches' \
or 'avg'
    """
    if counts_prefix_tokens(pooling) and n_prefix_tokens is None:
        raise ParameterError.of(
            "pooling",
            pooling,
            f"the number of tokens before the patches of {label} is not known. Pass "
            "n_prefix_tokens: 1 for a class token alone, 0 if there are only patches",
        )
    if pooling and "cls" in pooling and not n_prefix_tokens:
        expected = "expected 'patches' or 'avg'"
        raise ParameterError.of("pooling", pooling, f"{label} has no class token: {expected}")
    if counts_prefix_tokens(pooling) and (n_prefix_tokens or 0) >= (n_tokens or math.inf):
        raise ParameterError.of(
            "n_prefix_tokens",
            n_prefix_tokens,
            f"{label} has {n_tokens} tokens in all: expected fewer, so that some are patches.",
        )


def pooled_activations(
    x: keras.KerasTensor, pooling: str | None, channel_axis: int = -1, n_prefix_tokens: int = 0
) -> keras.KerasTensor:
    """Pool activations, (n, ..., c), to vectors, as operations of a Keras graph.

    A mean or maximum keeps `channel_axis`. Vectors are returned unchanged, and so is everything
    with ``pooling=None``. ``"gem"`` is the generalized mean with exponent 3 (Radenovic et al.,
    2019, arXiv:1711.02512); of tokens, it takes only the patches.
    """
    from keras import ops

    if pooling is None or len(x.shape) == 2:
        return x
    if pooling == "flatten":
        return ops.reshape(x, (-1, math.prod(x.shape[1:])))
    inner = tuple(set(range(1, len(x.shape))) - {channel_axis % len(x.shape)})
    vectors = {
        "cls": lambda: x[:, 0],
        "patches": lambda: ops.mean(x[:, n_prefix_tokens:], axis=1),
        "avg": lambda: ops.mean(x, axis=inner),
        "max": lambda: ops.max(x, axis=inner),
        "gem": lambda: _generalized_mean(x[:, n_prefix_tokens:], inner),
    }
    parts = [vectors[part]() for part in _parts_of_pooling(pooling)]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def _parts_of_pooling(pooling: str) -> list[str]:
    return ["avg", "max"] if pooling == "avgmax" else pooling.split("+")


def _generalized_mean(x: keras.KerasTensor, axes: tuple[int, ...]) -> keras.KerasTensor:
    from keras import ops

    powers = ops.power(ops.maximum(x, _GEM_FLOOR), _GEM_POWER)
    return ops.power(ops.mean(powers, axis=axes), 1 / _GEM_POWER)


def pooled_tokens(
    x: keras.KerasTensor, pooling: str | None, mask: keras.KerasTensor
) -> keras.KerasTensor:
    """Pool token vectors, (n, length, c), without padding, where `mask`, (n, length), is False.

    Raise ParameterError for a pooling that does not apply to texts.
    """
    from keras import ops

    if pooling in (None, "flatten") or len(x.shape) == 2:
        return x
    weights = ops.expand_dims(ops.cast(mask, x.dtype), -1)
    lengths = ops.maximum(ops.sum(weights, axis=1), 1.0)
    vectors = {
        "cls": lambda: x[:, 0],
        "avg": lambda: ops.sum(x * weights, axis=1) / lengths,
        "max": lambda: ops.max(ops.where(weights > 0, x, -math.inf), axis=1),
    }
    names = _parts_of_pooling(pooling)
    if not vectors.keys() >= set(names):
        options = "'auto', 'cls', 'avg', 'max', 'avgmax', 'cls+avg', 'flatten' or None"
        raise ParameterError.of("pooling", pooling, f"expected {options} for texts.")
    parts = [vectors[name]() for name in names]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)


def pooled_shape(
    shape: tuple[int, ...], pooling: str | None, channel_axis: int = -1
) -> tuple[int, ...]:
    """Return the shape of one embedding, given the shape of one sample's activations.

    Axis 0 is that of the samples for `channel_axis`, as in :func:`pooled_activations`.

    Examples
    --------
    >>> pooled_shape((7, 7, 1280), "avg"), pooled_shape((7, 7, 10), "flatten")
    ((1280,), (490,))
    """
    if pooling is None or len(shape) == 1:
        return tuple(shape)
    if pooling == "flatten":
        return (math.prod(shape),)
    return ((1, *shape)[channel_axis] * len(_parts_of_pooling(pooling)),)


def find_layer_output(
    model: keras.Model,
    name: str,
    *,
    label: str,
    others: Mapping[str, keras.KerasTensor] = MappingProxyType({}),
) -> keras.KerasTensor:
    """Return the output of a layer of a functional or Sequential model, connected to its inputs.

    The name may be ``"outer/inner"``, or a key of `others`, tensors of the same graph. `label`
    names the model in messages.
    """
    if name in others:
        return others[name]
    calls = [node for node in calls_of(model) if node.operation.name == name]
    if len(calls) == 1 and len(calls[0].outputs) == 1:
        return calls[0].outputs[0]
    if calls:
        raise ParameterError.of(
            "layer",
            name,
            f"{label} calls this layer {len(calls)} times, or it has several outputs, so its name "
            "does not select one output",
        )
    outer, slash, inner = name.partition("/")
    nested = [node for node in calls_of(model) if node.operation.name == outer]
    is_inside = slash and len(nested) == 1 and is_graph(nested[0].operation)
    if is_inside and inner in _layer_names_in(nested[0].operation):
        return _nested_layer_output(nested[0], inner, label=f"{label}/{outer}")
    names = [*others, *_layer_names_in(model)]
    inside = [known for known in names if known.endswith(f"/{name}")]
    hint = did_you_mean(inside[0] if inside else name, names)
    raise ParameterError.of(
        "layer",
        name,
        f"{label} has no layer of this name.{hint} It has {len(names)} layers, the last being "
        f"{', '.join(map(repr, names[-5:]))}.",
    )


def _nested_layer_output(call: Any, name: str, *, label: str) -> keras.KerasTensor:
    """Return the output of a layer inside a nested model, for the inputs of this call."""
    import keras

    model = call.operation
    cut = keras.Model(model.inputs, find_layer_output(model, name, label=label))
    return cut(*call.arguments.args, **call.arguments.kwargs)


def _layer_names_in(model: keras.Model) -> Iterator[str]:
    for call in calls_of(model):
        if is_graph(call.operation):
            yield from (
                f"{call.operation.name}/{inner}" for inner in _layer_names_in(call.operation)
            )
        yield call.operation.name
