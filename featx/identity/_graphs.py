"""The graph of a Keras model, as its tensors remember it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.identity._introspection import library_name

if TYPE_CHECKING:
    import keras


def producer(tensor: keras.KerasTensor) -> tuple[Any, int]:
    """Find the call that made a tensor, and which of its outputs the tensor is.

    Keras shows a graph publicly only as a config, which cannot be had with custom layers that
    have none and is slow; the history of the tensors is what `keras.Model` itself reads.
    """
    operation, node_index, tensor_index = tensor._keras_history
    return operation._inbound_nodes[node_index], tensor_index


def has_graph(operation: keras.Operation) -> bool:
    import keras

    return isinstance(operation, keras.Model) and getattr(operation, "inputs", None) is not None


def is_graph(operation: keras.Operation) -> bool:
    """Whether a layer is a model that does no more than run its graph."""
    methods = (type(operation).call, type(operation).__call__)
    return (
        has_graph(operation) and all(map(library_name, methods)) and "call" not in vars(operation)
    )
