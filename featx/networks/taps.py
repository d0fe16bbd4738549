"""Layers of a model found by name, in the graph of this very model.

A layer may have been called in other models as well, or twice in this one, and may be a model with
layers of its own: those are named ``"outer/inner"``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from featx._validation import did_you_mean
from featx.exceptions import ParameterError
from featx.identity._graphs import calls_of, is_graph

if TYPE_CHECKING:
    import keras


def find_tap(model: keras.Model, name: str, *, label: str) -> keras.KerasTensor:
    """Find the output of a layer.

    Parameters
    ----------
    model : keras.Model
        Functional or Sequential.
    name : str
        Of a layer, or ``"outer/inner"`` of one inside a model that is a layer.
    label : str
        What the model is called in messages.

    Returns
    -------
    KerasTensor
        Connected to the inputs of the model.

    Raises
    ------
    ParameterError
        There is no such layer, or its output is not one.
    """
    calls = [node for node in calls_of(model) if node.operation.name == name]
    if len(calls) == 1 and len(calls[0].outputs) == 1:
        return calls[0].outputs[0]
    if calls:
        raise ParameterError(
            f"layer={name!r}: {label} calls this layer {len(calls)} times, or it has several "
            "outputs: which one is meant cannot be told by a name"
        )
    outer, slash, inner = name.partition("/")
    nested = [node for node in calls_of(model) if node.operation.name == outer]
    is_inside = slash and len(nested) == 1 and is_graph(nested[0].operation)
    if is_inside and inner in _names_in(nested[0].operation):
        return _inside(nested[0], inner, label=f"{label}/{outer}")
    names = list(_names_in(model))
    inside = [known for known in names if known.endswith(f"/{name}")]
    hint = did_you_mean(inside[0] if inside else name, names)
    raise ParameterError(
        f"layer={name!r}: {label} has no layer of this name.{hint} It has "
        f"{len(names)} layers, the last being {', '.join(map(repr, names[-5:]))}."
    )


def _inside(call: Any, name: str, *, label: str) -> keras.KerasTensor:
    """Find a layer inside a model that is called as a layer, for what it is called on."""
    import keras

    model = call.operation
    cut = keras.Model(model.inputs, find_tap(model, name, label=label))
    return cut(*call.arguments.args, **call.arguments.kwargs)


def _names_in(model: keras.Model) -> Iterator[str]:
    for call in calls_of(model):
        if is_graph(call.operation):
            yield from (f"{call.operation.name}/{inner}" for inner in _names_in(call.operation))
        yield call.operation.name
