"""Digest of a Keras graph: what decides the numbers that a model computes, and nothing else.

A Merkle hash, operation by operation, over what lies upstream of the outputs: the digest of a
tensor is made from the operation that computes it (class, config, code that is not Keras's own,
the bytes of each weight), its call arguments and the digests of its inputs. Hence:

- What lies downstream of a tap does not count, and two models that share their lower blocks have
  equal digests for each tap in those blocks.
- A nested model counts as its operations do, so that nested and flattened graphs are equal.
- Names, `trainable`, initialisers, regularisers, constraints and seeds are left out, and so is
  the shape of the inputs; the dtype policy of each layer stays, since it decides the numbers.
- `training=False` and `training=None` are one: embeddings are inference.

Nothing is remembered between calls, as users change weights and attributes in place. Reading the
weights and configs anew takes 30 ms for MobileNetV2, 45 ms for ResNet50, 150 ms for NASNetMobile.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from featx.exceptions import ParameterError
from featx.identity._graphs import calls_of, has_graph, is_graph, upstream
from featx.identity._hashing import digest_of_json
from featx.identity._introspection import is_keras, library_name
from featx.identity._layer_state import (
    as_saved,
    attributes_of,
    code_attributes_of,
    config_of,
    holds_function,
    kinds_without_part_in_inference,
    vocabulary_of,
    weights_of,
)
from featx.identity.code_digests import UnhashableCodeError, code_digest

if TYPE_CHECKING:
    import keras


def graph_digest(
    model: keras.Model,
    outputs: list[keras.KerasTensor] | None = None,
    *,
    digester: Digester | None = None,
) -> str:
    """Digest what computes the outputs of a model, or tensors within it.

    Parameters
    ----------
    model : keras.Model
        Functional, Sequential or subclassed; built.
    outputs : list of KerasTensor, default=None
        Tensors of the model's graph; None means the outputs of the model. A subclassed model
        has no graph to tap.
    digester : Digester, default=None
        One that has just digested other parts of the same model, and hashes no weight twice.

    Returns
    -------
    str
        32 hexadecimal digits; equal across processes, renames, rebuilds with the same weights
        and round trips through a ``.keras`` file.

    Raises
    ------
    UnhashableCodeError
        If code that is not Keras's own cannot be identified, or the model is not built.
    ParameterError
        If the outputs are not computed from the inputs of the model.

    Examples
    --------
    >>> import keras
    >>> inputs = keras.Input((4,))
    >>> hidden = keras.layers.Dense(3)(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    >>> graph_digest(model, [hidden]) == graph_digest(keras.Model(inputs, hidden))
    True
    """
    if not model.built:
        raise UnhashableCodeError(
            f"The model {model.name!r} has no weights to identify it by: it is not built. Call it "
            "on a batch, or give it an Input, first."
        )
    digester = digester or Digester()
    if outputs is None:
        return digester.model(model)
    if not has_graph(model):
        raise ParameterError(
            f"outputs were given for {model.name!r}, a subclassed model, whose layers are not "
            "connected in a graph that could be tapped. Pass None, or a functional model."
        )
    return digester.graph(model, outputs)


def object_digest(obj: Any) -> str:
    """Digest a function, plain data, a Keras layer or a model, whichever it is.

    Parameters
    ----------
    obj : object

    Returns
    -------
    str
        32 hexadecimal digits.

    Raises
    ------
    UnhashableCodeError
        If part of it has no identity across processes.

    Examples
    --------
    >>> import keras
    >>> object_digest(keras.layers.Rescaling(2)) == object_digest(keras.layers.Rescaling(3))
    False
    """
    return code_digest(obj, known=Digester().known)


def runs_user_code(layer: keras.Operation) -> bool:
    """Return True if a layer or model, or anything in it, runs code that belongs to no library.

    Examples
    --------
    >>> import keras
    >>> runs_user_code(keras.layers.Dense(2))
    False
    >>> runs_user_code(keras.layers.Lambda(lambda x: x + 1))
    True
    """
    operations = [layer, *getattr(layer, "_flatten_layers", lambda: ())()]
    graphs = [each for each in operations if is_graph(each)]
    operations += [call.operation for graph in graphs for call in calls_of(graph)]
    return any(
        library_name(type(each)) is None or holds_function(code_attributes_of(each))
        for each in operations
    )


class Digester:
    """Digests of operations and graphs, as they are at one moment; it hashes no weight twice."""

    def __init__(self) -> None:
        # Each is kept beside its digest so that no other can get the same id.
        self._operations: dict[int, tuple[str, keras.Operation]] = {}
        self._classes: dict[type, str] = {}

    def model(self, model: keras.Model) -> str:
        """Digest a model by its graph, or as a layer if it does anything beside."""
        if is_graph(model):
            return self.graph(model, model.outputs)
        return self.operation(model)

    def graph(self, model: keras.Model, outputs: list[keras.KerasTensor]) -> str:
        """Digest tensors of a functional or Sequential model."""
        known = {
            id(tensor): digest_of_json(["input", position, tensor.dtype])
            for position, tensor in enumerate(model.inputs)
        }
        return digest_of_json([self._tensor(tensor, known) for tensor in outputs])

    def _tensor(self, tensor: keras.KerasTensor, known: dict[int, str]) -> str:
        """Digest a tensor and, in `known`, all upstream of it."""
        for current, node, index in upstream([tensor], known):
            known[id(current)] = self._output(node, index, known)
        return known[id(tensor)]

    def _output(self, node: Any, index: int, known: dict[int, str]) -> str:
        """Digest one output of one call, the inputs being known."""
        if not node.input_tensors:
            raise ParameterError(
                f"outputs depend on {node.operation.name!r}, which is no input of the model. Take "
                "them from the graph of this very model: model.get_layer(name).output."
            )
        arguments, keywords = node.arguments.args, _without_defaults(node.arguments.kwargs)
        if is_graph(node.operation):
            inner = self._nested_output(node, index, arguments[0], known)
            called = ["called", inner, self._value(keywords, known)]
            return digest_of_json(called) if keywords else inner
        call = self._value(as_saved([arguments, keywords]), known)
        dtype = node.outputs[index].dtype
        return digest_of_json([self.operation(node.operation), call, index, dtype])

    def _nested_output(self, node: Any, index: int, argument: Any, known: dict[int, str]) -> str:
        model = node.operation
        inputs = zip(model.inputs, _flat_inputs(model, argument), strict=True)
        # Of its own for each call: a shared model computes other tensors from other inputs.
        inner_known = {id(inner): self._entry(inner, outer, known) for inner, outer in inputs}
        return self._tensor(model.outputs[index], inner_known)

    def _entry(self, inner: keras.KerasTensor, outer: Any, known: dict[int, str]) -> str:
        """Digest what a nested model gets: it casts its inputs and adjusts their rank."""
        digest = known.get(id(outer)) or self._value(outer, known)
        expected = (inner.dtype, len(inner.shape))
        got = (getattr(outer, "dtype", None), len(getattr(outer, "shape", ())))
        return digest if got == expected else digest_of_json([digest, *expected])

    def _value(self, value: Any, tensors: dict[int, str]) -> str:
        return code_digest(value, known=lambda x: tensors.get(id(x)) or self.known(x))

    def operation(self, operation: keras.Operation) -> str:
        """Digest a layer, or another operation, with its weights."""
        if id(operation) not in self._operations:
            self._operations[id(operation)] = ("cycle", operation)  # if it refers to itself
            digest = code_digest(self._record(operation), known=self.known)
            self._operations[id(operation)] = (digest, operation)
        return self._operations[id(operation)][0]

    def _record(self, operation: keras.Operation) -> list[Any]:
        config = config_of(operation)
        by_keras = config is not None and is_keras(type(operation))
        attributes = (code_attributes_of if by_keras else attributes_of)(operation)
        return [
            self._class(type(operation)),
            {key: value for key, value in (config or {}).items() if key not in attributes},
            attributes,
            self.graph(operation, operation.outputs) if has_graph(operation) else None,
            weights_of(operation, attributes),
            vocabulary_of(operation),
            getattr(getattr(operation, "dtype_policy", None), "name", None),
            getattr(operation, "autocast", None),
        ]

    def _class(self, kind: type) -> str:
        if kind not in self._classes:
            self._classes[kind] = library_name(kind) or code_digest(kind, known=self.known)
        return self._classes[kind]

    def known(self, value: Any) -> str | None:
        """Digest Keras objects, wherever the walk over code and data meets them."""
        if "keras" not in sys.modules:
            return None
        import keras

        if isinstance(value, keras.Operation):
            return self.model(value)
        if isinstance(value, keras.DTypePolicy):
            return str(value.name)
        return "left out" if isinstance(value, kinds_without_part_in_inference()) else None


def _flat_inputs(model: keras.Model, argument: Any) -> list[Any]:
    """List what a nested model is called on, in the order of its inputs."""
    import keras

    names = [tensor.name for tensor in model.inputs]
    if isinstance(argument, dict) and set(names) <= set(argument):
        return [argument[name] for name in names]
    return keras.tree.flatten(argument)


def _without_defaults(keywords: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says no more than inference without masks."""
    import keras

    return {
        key: value
        for key, value in sorted(keywords.items())
        if any(leaf is not None for leaf in keras.tree.flatten(value))
        and not (key == "training" and value is False)
    }
