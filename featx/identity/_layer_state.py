"""What of one Keras operation decides its numbers: config, attributes and weights.

A config leaves out code and, in custom layers, whatever its author forgot; attributes fill the
gap. What has no part in inference (names, initialisers, regularisers, seeds, training state) is
left out of both.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.identity._introspection import is_keras, is_library, library_name
from featx.identity.code_digests import UnhashableCodeError

if TYPE_CHECKING:
    import keras

_LEFT_OUT = frozenset(
    {
        *("name", "trainable", "seed", "batch_shape", "batch_input_shape", "input_shape"),
        *("build_config", "registered_name", "shared_object_id"),
        # Terms learnt by `adapt` are in no config, so that all are read from the layer.
        *("vocabulary", "vocabulary_size", "has_input_vocabulary", "idf_weights"),
    }
)
_NOISE_ENDINGS = ("_initializer", "_regularizer", "_constraint")
_NOISE_MODULES = ("keras.initializers", "keras.regularizers", "keras.constraints")
# What `compile`, `fit`, `evaluate`, `predict` and `export` leave in a model or in its layers.
_FUNCTIONS = frozenset({"train_function", "test_function", "predict_function"})
_TRAINING = frozenset(
    {
        *("optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting"),
        *("_compile_config", "_compiled_trainable_state", "_epoch_iterator"),
        *("_eval_epoch_iterator", "_jax_state", "_jax_state_synced"),
    }
)


def config_of(operation: keras.Operation) -> dict[str, Any] | None:
    """Get a config without what has no part in inference; None if the class has none.

    Raises
    ------
    UnhashableCodeError
        If `get_config` fails.
    """
    try:
        with warnings.catch_warnings():
            # Lambdas make configs that are unsafe to load; here they are only hashed.
            warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
            config = operation.get_config()
    except NotImplementedError:
        return None
    except Exception as exc:
        raise UnhashableCodeError(
            f"The layer {operation.name!r} cannot be identified: its get_config() raised "
            f"{type(exc).__name__}: {exc}. Mend get_config, or remove it."
        ) from exc
    if hasattr(operation, "dtype_policy"):
        config.pop("dtype", None)  # the policy tells it, and an operation's own `dtype` counts
    return _cleaned(config)


def _cleaned(value: Any) -> Any:
    """Leave out noise at all levels; lists for tuples, as files do not tell them apart."""
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return as_saved(value)
    if "class_name" in value and not _is_told_by_config(value):
        return None
    items = sorted(value.items(), key=lambda item: str(item[0]))
    return {
        key: _cleaned(item)
        for key, item in items
        if key not in _LEFT_OUT and not _is_noise(str(key))
    }


def _is_told_by_config(serialized: dict[str, Any]) -> bool:
    """Whether a serialised object counts; user's functions do so by their code instead."""
    module = serialized.get("module") or ""
    if serialized["class_name"] in ("function", "__lambda__"):
        return module.startswith("keras")
    return module not in _NOISE_MODULES


def _is_noise(key: str) -> bool:
    return key.endswith(_NOISE_ENDINGS)


def as_saved(value: Any) -> Any:
    """Return a value with tuples as lists and NumPy scalars as Python's, as ``.keras`` files do."""
    if isinstance(value, list | tuple) and is_library(type(value).__module__):
        return [as_saved(item) for item in value]
    if isinstance(value, dict) and is_library(type(value).__module__):
        return {key: as_saved(item) for key, item in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def attributes_of(operation: keras.Operation) -> dict[str, Any]:
    """Get all attributes that an author may have set, by name; weights are not among them."""
    weights = {id(weight) for weight in getattr(operation, "weights", ())}
    return {
        name: as_saved(value) for name, value in _members(operation) if id(value) not in weights
    }


def code_attributes_of(operation: keras.Operation) -> dict[str, Any]:
    """Get the attributes of a layer of Keras that a config cannot tell: functions and layers."""
    return {name: as_saved(value) for name, value in _members(operation) if _holds_code(value)}


def _members(operation: keras.Operation) -> Iterator[tuple[str, Any]]:
    import keras

    is_model = isinstance(operation, keras.Model)
    bookkeeping = _bookkeeping_of_models() if is_model else _bookkeeping_of_layers()
    for name, value in sorted(vars(operation).items()):
        # Names in `_self_` are TensorFlow's object tracking.
        if name not in bookkeeping and not name.startswith("_self_") and not _is_noise(name):
            yield name, value
    if is_model:
        yield "layers", operation.layers  # a Sequential has them in no attribute of its own


@functools.cache
def _bookkeeping_of_layers() -> frozenset[str]:
    """Names that each layer has before its class sets any."""
    import keras

    # With a name of its own it does not advance Keras's counters for automatic names.
    return _FUNCTIONS.union(vars(keras.layers.Layer(name="featx_plain")))


@functools.cache
def _bookkeeping_of_models() -> frozenset[str]:
    import keras

    inputs = keras.Input((1,), name="featx_plain")
    functional = keras.Model(inputs, inputs, name="featx_plain")
    subclassed = keras.Model(name="featx_plain")
    return _TRAINING.union(vars(functional), vars(subclassed))


def holds_function(value: Any) -> bool:
    """Return True if values are, or contain, a function that belongs to no library."""
    import keras

    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return any(map(holds_function, value))
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


def weights_of(operation: keras.Operation, attributes: dict[str, Any]) -> list[np.ndarray]:
    """Get the numbers a layer computes with, less those of the layers in its attributes."""
    import keras

    if isinstance(operation, keras.layers.Normalization) and operation.built:
        # Not its weights: one is a counter that backends keep differently, and the others go
        # into these only when adapted or loaded.
        return [np.asarray(operation.mean), np.asarray(operation.variance)]
    elsewhere = {id(weight) for layer in _layers_in(attributes) for weight in layer.weights}
    weights = getattr(operation, "weights", ())
    return [np.asarray(weight) for weight in weights if id(weight) not in elsewhere]


def _layers_in(value: Any) -> Iterator[keras.Layer]:
    import keras

    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, dict):
        yield from _layers_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _layers_in(item)


def vocabulary_of(operation: keras.Operation) -> list[Any] | None:
    """Get the terms of a lookup layer and their weights; None for any other."""
    import keras

    if not isinstance(operation, keras.layers.StringLookup | keras.layers.IntegerLookup):
        return None
    return [operation.get_vocabulary(), getattr(operation, "idf_weights", None)]


@functools.cache
def kinds_without_part_in_inference() -> tuple[type, ...]:
    """Classes whose instances may lie in a layer's attributes and change no embedding."""
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
