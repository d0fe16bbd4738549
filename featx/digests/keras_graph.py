"""``graph_digest``: a hash of what decides the numbers of a Keras model, and of nothing else.

It is a Merkle hash of the operations upstream of the outputs: the digest of a tensor covers the
operation that computes it (class, config, code that is not Keras' own, the bytes of each weight),
its call arguments and the digests of its inputs. Hence:

- Layers downstream of a layer output do not count, and two models that share their lower blocks
  have equal digests for each layer output in those blocks.
- A nested model counts as its operations do, so that nested and flattened graphs are equal.
- Names, `trainable`, initializers, regularizers, constraints and seeds are left out, and so is
  the shape of the inputs; the dtype policy of each layer stays, since it decides the numbers.
- `training=False` and `training=None` are equal, since embeddings are computed by inference.

A config lacks code and, in custom layers, all that its author forgot; the attributes of the layer
are hashed too. Nothing is remembered between calls, since users change weights and attributes in
place. Reading the weights and configs takes 30 ms for MobileNetV2, 45 ms for ResNet50, 150 ms for
NASNetMobile.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.digests.code import (
    Known,
    UnhashableCodeError,
    code_digest,
    is_keras,
    is_library,
    library_name,
    members_named,
    names_in_code,
)
from featx.digests.hashing import digest_of_json
from featx.digests.tensor_history import calls_of, has_graph, is_graph, upstream_tensors

if TYPE_CHECKING:
    import keras


def graph_digest(model: keras.Model, *, digester: Digester | None = None) -> str:
    """Digest what computes the outputs of a built model, as 32 hexadecimal digits.

    The digest is equal across processes, renames, rebuilds with the same weights and round trips
    through a ``.keras`` file. A `digester` of other parts of the same model hashes no weight twice.

    Raises
    ------
    UnhashableCodeError
        Code that is not Keras's own cannot be identified, or the model is not built.

    Examples
    --------
    >>> import keras
    >>> inputs = keras.Input((4,))
    >>> double = keras.Model(inputs, keras.layers.Rescaling(2)(inputs))
    >>> renamed = keras.Model(inputs, keras.layers.Rescaling(2, name="other")(inputs))
    >>> graph_digest(double) == graph_digest(renamed)
    True
    """
    if not model.built:
        raise UnhashableCodeError(
            f"The model {model.name!r} has no weights to identify it by: it is not built. Call it "
            "on a batch, or give it an Input, first."
        )
    return (digester or Digester()).model_digest(model)


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
    return any(
        library_name(type(each)) is None or _holds_function(_code_attributes(each))
        for each in _operations_in(layer)
    )


def runs_code_of(library: str, model: keras.Model) -> bool:
    """Return True if a model or anything in it is of a class of a library.

    Examples
    --------
    >>> import keras
    >>> runs_code_of("keras_hub", keras.Sequential([keras.layers.Dense(2)]))
    False
    """
    modules = (type(each).__module__ for each in _operations_in(model))
    return any(module.partition(".")[0] == library for module in modules)


def user_code(model: keras.Model) -> list[Any]:
    """Return the classes of layers, and functions in their attributes, that no library defines."""
    import keras

    found: list[Any] = []
    for each in _operations_in(model):
        values = keras.tree.flatten(list(_code_attributes(each).values()))
        found += [type(each), *(value for value in values if inspect.isroutine(value))]
    return [code for code in found if library_name(code) is None]


def _operations_in(layer: keras.Operation) -> list[keras.Operation]:
    operations = [layer, *getattr(layer, "_flatten_layers", lambda: ())()]
    graphs = [each for each in operations if is_graph(each)]
    return operations + [call.operation for graph in graphs for call in calls_of(graph)]


class Digester:
    """Digest operations and graphs, as they are at one moment; hash no weight twice."""

    def __init__(self) -> None:
        # Each operation is kept beside its digest, so that no other can get the same id.
        self._operations: dict[int, tuple[str, keras.Operation]] = {}
        self._classes: dict[type, str] = {}

    def model_digest(self, model: keras.Model) -> str:
        """Digest a model by its graph, or as a layer if it does more than run its graph."""
        if is_graph(model):
            return self._graph_digest(model, model.outputs)
        return self._operation_digest(model)

    def _graph_digest(self, model: keras.Model, outputs: list[keras.KerasTensor]) -> str:
        """Digest tensors of a functional or Sequential model."""
        known = {
            id(tensor): digest_of_json(["input", position, tensor.dtype])
            for position, tensor in enumerate(model.inputs)
        }
        return digest_of_json([self._tensor_digest(tensor, known) for tensor in outputs])

    def _tensor_digest(self, tensor: keras.KerasTensor, known: dict[int, str]) -> str:
        """Digest a tensor, and add the digests of all tensors upstream of it to `known`."""
        for current, node, index in upstream_tensors([tensor], known):
            known[id(current)] = self._output_digest(node, index, known)
        return known[id(tensor)]

    def _output_digest(self, node: Any, index: int, known: dict[int, str]) -> str:
        """Digest one output of a call whose inputs are known."""
        arguments, keywords = node.arguments.args, _keywords_that_count(node.arguments.kwargs)
        if is_graph(node.operation):
            inner = self._nested_output_digest(node, index, arguments[0], known)
            called = ["called", inner, self._value_digest(keywords, known)]
            return digest_of_json(called) if keywords else inner
        call = self._value_digest(_as_saved_config_value([arguments, keywords]), known)
        dtype = node.outputs[index].dtype
        return digest_of_json([self._operation_digest(node.operation), call, index, dtype])

    def _nested_output_digest(
        self, node: Any, index: int, argument: Any, known: dict[int, str]
    ) -> str:
        model = node.operation
        inputs = zip(model.inputs, _arguments_by_input(model, argument), strict=True)
        # Separate for each call, since a shared model computes other tensors from other inputs.
        inner_known = {
            id(inner): self._nested_input_digest(inner, outer, known) for inner, outer in inputs
        }
        return self._tensor_digest(model.outputs[index], inner_known)

    def _nested_input_digest(
        self, inner: keras.KerasTensor, outer: Any, known: dict[int, str]
    ) -> str:
        """Digest an input of a nested model, which casts it and adjusts its rank."""
        digest = known.get(id(outer)) or self._value_digest(outer, known)
        expected = (inner.dtype, len(inner.shape))
        got = (getattr(outer, "dtype", None), len(getattr(outer, "shape", ())))
        return digest if got == expected else digest_of_json([digest, *expected])

    def _value_digest(self, value: Any, tensors: dict[int, str]) -> str:
        return code_digest(value, known=lambda x: tensors.get(id(x)) or self._keras_digest(x))

    def _operation_digest(self, operation: keras.Operation) -> str:
        """Digest a layer, or another operation, with its weights."""
        if id(operation) not in self._operations:
            self._operations[id(operation)] = ("cycle", operation)  # if it refers to itself
            digest = code_digest(self._operation_content(operation), known=self._keras_digest)
            self._operations[id(operation)] = (digest, operation)
        return self._operations[id(operation)][0]

    def _operation_content(self, operation: keras.Operation) -> list[Any]:
        config = _inference_config(operation)
        by_keras = config is not None and is_keras(type(operation))
        attributes = (_code_attributes if by_keras else _attributes_but_weights)(operation)
        return [
            self._class_digest(type(operation)),
            {key: value for key, value in (config or {}).items() if key not in attributes},
            attributes,
            self._graph_digest(operation, operation.outputs) if has_graph(operation) else None,
            _own_weights_of_layer(operation, attributes),
            _vocabulary_of(operation),
            getattr(getattr(operation, "dtype_policy", None), "name", None),
            getattr(operation, "autocast", None),
            *_changed_since_built(operation, config),
            *self._called_objects(operation, attributes),
        ]

    def _called_objects(self, operation: keras.Operation, attributes: dict[str, Any]) -> list[str]:
        """Return a digest of what the code of a layer reads and only few layers depend on.

        These are initializers, constraints, regularizers and losses that compute embeddings, and
        the name of the layer or `trainable`. The list is empty for most layers.
        """
        found: list[Any] = []
        kind = type(operation)

        def known(value: Any) -> str | None:
            if isinstance(value, type) and value in kind.__mro__:
                return "class"  # `super()` refers to it
            if isinstance(value, _types_that_compute()):
                found.append(value)
            return self._computing_digest(value)

        # Those of a Keras layer are functions; a Lambda passes them its arguments.
        content = [attributes, getattr(operation, "arguments", None)]
        if library_name(kind) is None:
            code, names, of_self = _code_of_call(kind, known)
            found.clear()  # the walk met what counts only once, below
            own = {name: getattr(operation, name) for name in sorted(_OWN_NAMES & of_self)}
            read = _attributes_read(operation, names)
            found += [*own, *(name for name in read if name.endswith(_NOISE_ENDINGS))]
            content = [code, own, read]
        elif not attributes or not is_keras(kind):  # those of another library draw weights
            return []
        digest = code_digest(content, known=known)
        return [digest] if found else []

    def _computing_digest(self, value: Any) -> str | None:
        """Digest a Keras object that code calls, by its class and attributes."""
        if not isinstance(value, _types_that_compute()):
            return self._keras_digest(value)
        state = {key: item for key, item in sorted(vars(value).items()) if key != "name"}
        return code_digest([self._class_digest(type(value)), state], known=self._computing_digest)

    def _class_digest(self, kind: type) -> str:
        if kind not in self._classes:
            self._classes[kind] = library_name(kind) or code_digest(kind, known=self._keras_digest)
        return self._classes[kind]

    def _keras_digest(self, value: Any) -> str | None:
        """Digest a Keras object that code or data hold; return None for other objects."""
        import keras

        if isinstance(value, keras.Operation):
            return self.model_digest(value)
        if isinstance(value, keras.DTypePolicy):
            return str(value.name)
        return "left out" if isinstance(value, _types_without_effect()) else None


def _arguments_by_input(model: keras.Model, argument: Any) -> list[Any]:
    """Return the arguments of a nested model, in the order of its inputs."""
    import keras

    names = [tensor.name for tensor in model.inputs]
    if isinstance(argument, dict) and set(names) <= set(argument):
        return [argument[name] for name in names]
    return keras.tree.flatten(argument)


def _keywords_that_count(keywords: dict[str, Any]) -> dict[str, Any]:
    """Return keyword arguments, except those that mean inference without masks."""
    import keras

    return {
        key: value
        for key, value in sorted(keywords.items())
        if any(leaf is not None for leaf in keras.tree.flatten(value))
        and not (key == "training" and value is False)
    }


_KEYS_WITHOUT_EFFECT = frozenset(
    {
        *("name", "trainable", "seed", "batch_shape", "batch_input_shape", "input_shape"),
        *("build_config", "registered_name", "shared_object_id"),
        # Terms from `adapt` are in no config, so all terms are read from the layer.
        *("vocabulary", "vocabulary_size", "has_input_vocabulary", "idf_weights"),
    }
)
_NOISE_ENDINGS = ("_initializer", "_regularizer", "_constraint")
_OWN_NAMES = frozenset({"name", "path", "trainable", "supports_masking"})
_NOISE_MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints")
# Attributes that `compile`, `fit`, `evaluate`, `predict` and `export` leave in models and layers.
_FUNCTION_ATTRIBUTES = frozenset({"train_function", "test_function", "predict_function"})
_TRAINING_ATTRIBUTES = frozenset(
    {
        *("optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting"),
        *("_compile_config", "_compiled_trainable_state", "_epoch_iterator"),
        *("_eval_epoch_iterator", "_jax_state", "_jax_state_synced"),
    }
)


def _inference_config(operation: keras.Operation) -> dict[str, Any] | None:
    """Return a config without entries that do not affect inference; None if there is no config."""
    try:
        with warnings.catch_warnings():
            # Lambdas make configs that are unsafe to load; here they are only hashed.
            warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
            config = operation.get_config()
    except NotImplementedError:
        return None
    except Exception as exc:
        if library_name(type(operation)) is not None:
            return None  # a fault of its library; all attributes count, as without a config
        raise UnhashableCodeError(
            f"The layer {operation.name!r} cannot be identified: its get_config() raised "
            f"{type(exc).__name__}: {exc}. Repair get_config, or remove it."
        ) from exc
    if hasattr(operation, "dtype_policy"):
        config.pop("dtype", None)  # the policy holds it, and an operation's own `dtype` counts
    return _config_without_noise(config)


def _without_noise(value: Any) -> Any:
    """Return data of a config without noise at all levels, with lists for tuples, as in files.

    Only Keras objects have noise; other dicts are data of users, under any key.
    """
    if isinstance(value, list | tuple):
        return [_without_noise(item) for item in value]
    if not isinstance(value, dict):
        return _as_saved_config_value(value)
    # The get_config() of a layer or model in it.
    if {"name", "trainable"} <= value.keys() and value.keys() & {"dtype", "layers"}:
        return _config_without_noise(value)
    items = sorted(value.items(), key=lambda item: str(item[0]))
    if not {"class_name", "config"} <= value.keys():
        return {key: _without_noise(item) for key, item in items}
    if not _affects_inference(value):
        return None
    return {
        key: _config_without_noise(item) if key == "config" else _without_noise(item)
        for key, item in items
        if key not in _KEYS_WITHOUT_EFFECT
    }


def _config_without_noise(config: Any) -> Any:
    if not isinstance(config, dict):
        return _without_noise(config)
    items = sorted(config.items(), key=lambda item: str(item[0]))
    return {
        key: _without_noise(item)
        for key, item in items
        if key not in _KEYS_WITHOUT_EFFECT and not str(key).endswith(_NOISE_ENDINGS)
    }


def _affects_inference(serialized: dict[str, Any]) -> bool:
    """Return True if a serialized object counts; functions of users count by their code."""
    module = serialized.get("module") or ""
    if serialized["class_name"] in ("function", "__lambda__"):
        return module.startswith("keras")
    return module not in _NOISE_MODULES


def _as_saved_config_value(value: Any) -> Any:
    """Return a value with tuples as lists and NumPy scalars as Python's, as ``.keras`` files do."""
    if isinstance(value, list | tuple) and is_library(type(value).__module__):
        return [_as_saved_config_value(item) for item in value]
    if isinstance(value, dict) and is_library(type(value).__module__):
        return {key: _as_saved_config_value(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def _code_of_call(kind: type, known: Known) -> tuple[list[Any], set[str], set[str]]:
    """Return the methods that calls of a layer reach, the names in them, and those of `self`."""
    names = {"call", "__call__"}
    while True:
        code = members_named(kind, names)
        used, of_self = names_in_code(code, known=known)
        if used <= names:
            return code, names, of_self
        names |= used


def _attributes_read(operation: keras.Operation, names: set[str]) -> dict[str, Any]:
    """Return the attributes of some names that an author may have set, without weights."""
    import keras

    is_model = isinstance(operation, keras.Model)
    skipped = _bookkeeping_of_models() if is_model else _bookkeeping_of_layers()
    weights = {id(weight) for weight in getattr(operation, "weights", ())}
    return {
        name: _as_saved_config_value(value)
        for name, value in sorted(vars(operation).items())
        if name in names - skipped and id(value) not in weights and value is not None
    }


def _changed_since_built(
    operation: keras.Operation, config: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Return the attributes of a `keras.ops` operation that its config does not show."""
    import keras

    is_layer = isinstance(operation, keras.Layer)
    if is_layer or config is None or not is_keras(type(operation)):
        return []
    own = dict(_attributes_set_by_author(operation))
    built = dict(_attributes_set_by_author(type(operation)(**operation.get_config())))
    changed = {
        name: item for name, item in own.items() if not _are_equal_attributes(item, built.get(name))
    }
    return [changed] if changed else []


def _are_equal_attributes(value: Any, other: Any) -> bool:
    return value is other or repr(value) == repr(other)


def _attributes_but_weights(operation: keras.Operation) -> dict[str, Any]:
    """Return all attributes that an author may have set, by name, without weights."""
    weights = {id(weight) for weight in getattr(operation, "weights", ())}
    attributes = _attributes_set_by_author(operation)
    return {
        name: _as_saved_config_value(value)
        for name, value in attributes
        if id(value) not in weights
    }


def _code_attributes(operation: keras.Operation) -> dict[str, Any]:
    """Return the attributes that no config of Keras holds: functions and layers."""
    attributes = _attributes_set_by_author(operation)
    return {name: _as_saved_config_value(value) for name, value in attributes if _holds_code(value)}


def _attributes_set_by_author(operation: keras.Operation) -> Iterator[tuple[str, Any]]:
    import keras

    is_model = isinstance(operation, keras.Model)
    bookkeeping = _bookkeeping_of_models() if is_model else _bookkeeping_of_layers()
    for name, value in sorted(vars(operation).items()):
        # Names in `_self_` are TensorFlow's object tracking.
        is_noise = name.startswith("_self_") or name.endswith(_NOISE_ENDINGS)
        if name not in bookkeeping and not is_noise:
            yield name, value
    if is_model:
        yield "layers", operation.layers  # they are in no attribute of a Sequential


@functools.cache
def _bookkeeping_of_layers() -> frozenset[str]:
    """Return the attributes that each layer has before its class sets any."""
    import keras

    # With a name, so that Keras' counters for automatic names do not advance.
    return _FUNCTION_ATTRIBUTES.union(vars(keras.layers.Layer(name="featx_plain")))


@functools.cache
def _bookkeeping_of_models() -> frozenset[str]:
    import keras

    inputs = keras.Input((1,), name="featx_plain")
    functional = keras.Model(inputs, inputs, name="featx_plain")
    subclassed = keras.Model(name="featx_plain")
    return _TRAINING_ATTRIBUTES.union(vars(functional), vars(subclassed))


def _holds_function(value: Any) -> bool:
    """Return True if values are, or contain, a function that belongs to no library."""
    import keras

    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(_holds_function, value))
    return not isinstance(value, keras.Operation) and _holds_code(value)


def _holds_code(value: Any) -> bool:
    import keras

    if isinstance(value, list | tuple):
        return any(map(_holds_code, value))
    if isinstance(value, dict):
        return any(map(_holds_code, value.values()))
    if isinstance(value, keras.Operation):
        return True
    return callable(value) and library_name(value) is None and not is_keras(type(value))


def _own_weights_of_layer(
    operation: keras.Operation, attributes: dict[str, Any]
) -> list[np.ndarray]:
    """Return the weights of a layer, without those of the layers in its attributes."""
    import keras

    if isinstance(operation, keras.layers.Normalization) and operation.built:
        # Instead of its weights: one is a counter that differs between backends, and the others
        # are copied into these attributes only when the layer is adapted or loaded.
        return [np.asarray(operation.mean), np.asarray(operation.variance)]
    elsewhere = {id(weight) for layer in _keras_layers_in(attributes) for weight in layer.weights}
    weights = getattr(operation, "weights", ())
    return [np.asarray(weight) for weight in weights if id(weight) not in elsewhere]


def _keras_layers_in(value: Any) -> Iterator[keras.Layer]:
    import keras

    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, dict):
        yield from _keras_layers_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _keras_layers_in(item)


def _vocabulary_of(operation: keras.Operation) -> list[Any] | None:
    """Return the terms of a lookup layer and their weights; None for other layers."""
    import keras

    if not isinstance(operation, keras.layers.StringLookup | keras.layers.IntegerLookup):
        return None
    return [operation.get_vocabulary(), getattr(operation, "idf_weights", None)]


@functools.cache
def _types_that_compute() -> tuple[type, ...]:
    """Return classes of Keras whose instances count where a layer calls them."""
    import keras

    return (
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
        keras.Loss,
    )


@functools.cache
def _types_without_effect() -> tuple[type, ...]:
    """Return the classes whose instances, as attributes of a layer, change no embedding."""
    import keras

    return (
        keras.initializers.Initializer,
        keras.regularizers.Regularizer,
        keras.constraints.Constraint,
        keras.random.SeedGenerator,
        keras.InputSpec,
        keras.KerasTensor,
        keras.Loss,
        keras.Metric,
        keras.Optimizer,
    )
