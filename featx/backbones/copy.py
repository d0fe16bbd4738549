"""``flat_copy``: a flat copy of a network for training, which leaves the original unchanged.

The copy is flat: nested models are expanded into their layers, so that a network wrapped in another
model can be cut and unfrozen like any other. Its digest is checked against that of the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from featx.backbones.hub_models import is_hub_model
from featx.backbones.keras_models import fixed_seed
from featx.digests.code import UnhashableCodeError
from featx.digests.keras_graph import graph_digest
from featx.digests.tensor_history import calls_of, is_graph
from featx.exceptions import BackboneError

if TYPE_CHECKING:
    import keras


class FlatCopy(NamedTuple):
    """A copy of a model.

    `originals` are the originals of its tensors, by the ids of the copies. `starts` are the copied
    outputs of the first call of each layer of the original, by the names that ``layer=`` takes.
    """

    model: keras.Model
    originals: dict[int, keras.KerasTensor]
    starts: dict[str, keras.KerasTensor]


def flat_copy(
    model: keras.Model,
    *,
    input_shape: tuple[int, ...] | None = None,
    original: keras.Model | None = None,
    name: str,
    label: str,
) -> FlatCopy:
    """Copy a functional or Sequential model of one input and output; no weights are shared.

    `input_shape` fills in sizes that the model leaves open, `name` is the name of the copy, and
    `label` names the model in messages. If the layers are those of an `original` of KerasHub, it is
    copied as a whole, since some of its layers have no config of their own.
    """
    import keras

    if not is_graph(model):
        raise BackboneError(
            f"{label} has no graph, since it is subclassed or not built: fine-tuning needs a "
            "functional model"
        )
    given = model.inputs[0]
    inputs = keras.Input(input_shape or given.shape[1:], dtype=given.dtype, name=given.name)
    copying = _CallCopier()
    try:
        if is_hub_model(original):
            copying.add_whole(original)
        with fixed_seed():  # initializers draw from Python's own generator
            tensors = copying.run(model, [inputs])
            copy = keras.Model(inputs, tensors[0], name=name)
            copying.copy_weights()
    except Exception as exc:
        raise BackboneError(
            f"{label} cannot be copied for fine-tuning: {exc}. Custom layers need a get_config() "
            "from which they can be rebuilt."
        ) from exc
    _check_copy_is_equal(copy, model, label)
    originals = {id(copied): original for original, copied in copying.outermost}
    return FlatCopy(copy, {id(inputs): given, **originals}, copying.starts)


class _CallCopier:
    """Copies calls one by one; a layer that is called twice is copied once."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Any, Any]] = {}
        self._names: set[str] = set()
        self._nested_in: list[str] = []
        self.outermost: list[tuple[Any, Any]] = []
        self.starts: dict[str, Any] = {}

    def run(self, model: keras.Model, inputs: list[Any]) -> list[Any]:
        """Repeat the calls of a model on other tensors."""
        import keras

        known = dict(zip(map(id, model.inputs), inputs, strict=True))

        def tensor_of(value: Any) -> Any:
            return known[id(value)] if isinstance(value, keras.KerasTensor) else value

        for call in calls_of(model):
            arguments = (call.arguments.args, call.arguments.kwargs)
            positional, keywords = keras.tree.map_structure(tensor_of, arguments)
            if keywords.get("training") is False:
                del keywords["training"]  # `trainable` decides what is frozen
            outputs = keras.tree.flatten(self._call(call.operation, positional, keywords))
            known.update(zip(map(id, call.outputs), outputs, strict=True))
            self._add_start(call.operation.name, outputs[0])
            if not self._nested_in:
                self.outermost += zip(call.outputs, outputs, strict=True)
        return [known[id(output)] for output in model.outputs]

    def _add_start(self, name: str, output: Any) -> None:
        """Keep the first output of a layer, which may be that of the models it is nested in."""
        path = [*self._nested_in, name]
        for length in range(1, len(path) + 1):
            self.starts.setdefault("/".join(path[:length]), output)

    def _call(self, operation: Any, positional: Any, keywords: dict[str, Any]) -> Any:
        import keras

        given = keras.tree.flatten(positional)
        is_plain = set(keywords) <= {"mask"} and keywords.get("mask") is None
        if is_graph(operation) and is_plain and _takes_tensors_unchanged(operation, given):
            self._nested_in.append(operation.name)
            outputs = self.run(operation, given)
            self._nested_in.pop()
            return outputs
        return self._copied(operation)(*positional, **keywords)

    def add_whole(self, model: Any) -> None:
        """Copy a model by its own config, and take the layers of the copy for those in it."""
        copy = type(model).from_config(model.get_config())
        pairs = zip(model._flatten_layers(), copy._flatten_layers(), strict=True)
        for layer, copied in pairs:
            self._layers[id(layer)] = (layer, copied)
            self._names.add(layer.name)

    def _copied(self, operation: Any) -> Any:
        if id(operation) not in self._layers:
            config = operation.get_config()
            if "name" in config:
                config["name"] = self._unique(config["name"])
            self._layers[id(operation)] = (operation, type(operation).from_config(config))
        return self._layers[id(operation)][1]

    def _unique(self, name: str) -> str:
        base, number = name, 1
        while name in self._names:
            name, number = f"{base}_{number}", number + 1
        self._names.add(name)
        return name

    def copy_weights(self) -> None:
        """Give the copies the weights of the originals."""
        for original, copied in self._layers.values():
            if getattr(original, "weights", None):
                copied.set_weights(original.get_weights())
            if hasattr(copied, "finalize_state"):
                copied.finalize_state()  # else it would not use the new statistics


def _takes_tensors_unchanged(model: keras.Model, given: list[Any]) -> bool:
    """Return True if a model takes tensors without casting or reshaping them."""
    inner = [(tensor.dtype, len(tensor.shape)) for tensor in model.inputs]
    return inner == [(tensor.dtype, len(tensor.shape)) for tensor in given]


def _check_copy_is_equal(copy: keras.Model, model: keras.Model, label: str) -> None:
    try:
        is_equal = graph_digest(copy) == graph_digest(model)
    except UnhashableCodeError:
        return  # the original has no identity either
    if not is_equal:
        raise BackboneError(
            f"{label} cannot be copied for fine-tuning: the copy computes something else. A layer "
            "has state that is neither in its get_config() nor in its weights."
        )
