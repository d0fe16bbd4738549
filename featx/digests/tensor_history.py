"""The graph of a Keras model, read from the history of its tensors (``calls_of``)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from featx.digests.code import library_name

if TYPE_CHECKING:
    import keras


def producing_call(tensor: keras.KerasTensor) -> tuple[Any, int]:
    """Return the call that made a tensor, and the index of the tensor in its outputs.

    Publicly, Keras gives a graph only as a config, which is slow and fails for custom layers
    without a config; `keras.Model` itself reads the history of the tensors.
    """
    operation, node_index, tensor_index = tensor._keras_history
    return operation._inbound_nodes[node_index], tensor_index


def upstream_tensors(
    tensors: Iterable[keras.KerasTensor], known: Container[int]
) -> Iterator[tuple[keras.KerasTensor, Any, int]]:
    """Yield the tensors upstream of some tensors, inputs first, without recursion.

    `known` holds the ids of the tensors at which the walk ends; the caller adds the id of each
    tensor before it requests the next. Each item is a tensor, the call that made it, whose inputs
    are all known, and the index of the tensor in the outputs of the call.
    """
    pending = list(tensors)
    while pending:
        tensor = pending[-1]
        if id(tensor) in known:
            pending.pop()
            continue
        call, index = producing_call(tensor)
        missing = [before for before in call.input_tensors if id(before) not in known]
        pending += missing
        if not missing:
            yield tensor, call, index


def calls_of(model: keras.Model) -> list[Any]:
    """Return the calls between the inputs and the outputs of a model, in order."""
    known = {id(tensor) for tensor in model.inputs}
    calls: list[Any] = []
    for _, call, _ in upstream_tensors(model.outputs, known):
        calls.append(call)
        known.update(map(id, call.outputs))
    return calls


def has_graph(operation: keras.Operation) -> bool:
    """Return True for a model that has a graph, even if it does more than run it."""
    import keras

    return isinstance(operation, keras.Model) and getattr(operation, "inputs", None) is not None


def is_graph(operation: keras.Operation) -> bool:
    """Return True for a model that does no more than run its graph."""
    methods = (type(operation).call, type(operation).__call__)
    return (
        has_graph(operation) and all(map(library_name, methods)) and "call" not in vars(operation)
    )


def graph_outputs(model: keras.Model) -> list[keras.KerasTensor]:
    """Return the outputs of a model and of the models in it, as far as they have a graph."""
    layers = [model, *getattr(model, "_flatten_layers", lambda: ())()]
    return [tensor for layer in layers if has_graph(layer) for tensor in layer.outputs]
