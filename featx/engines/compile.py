"""``compiled_inference``, ``compiled_training``: compilation by Keras' backend; TensorFloat-32.

TensorFlow, JAX and torch differ in both; no other module imports TensorFlow. Several threads may
call a compiled function at once. It runs under the settings of Keras that were in force when it
was compiled.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.digests.keras_settings import KerasSettings, current_settings
from featx.engines.devices import has_accelerator
from featx.exceptions import EngineError

if TYPE_CHECKING:
    import keras


def check_is_eager() -> None:
    """Raise EngineError inside a graph of TensorFlow, where weights have no values."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is not None and not tensorflow.executing_eagerly():
        raise EngineError(
            "featx was called inside a tf.function or tf.Graph, where TensorFlow computes nothing: "
            "call it outside"
        )


def compiled_inference(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """Compile a model of one input and one output for inference.

    Returns a function from a batch of any size, (n, ...), to a tensor of outputs. The model has to
    live as long as the function.
    """
    import keras

    if keras.backend.backend() != "jax":
        given = keras.InputSpec(shape=model.inputs[0].shape, dtype=model.inputs[0].dtype)
        return _compiled_function(lambda inputs: model(inputs, training=False), given)
    import jax

    function = jax.jit(
        lambda own, others, inputs: model.stateless_call(own, others, inputs, training=False)[0]
    )
    own = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]
    settings = current_settings()
    return _compiled_by_one_thread(lambda inputs: function(own, others, inputs), settings)


def traced(model: keras.Model) -> Any:
    """Return a model of one input as a concrete function of TensorFlow, for conversion.

    Keras' own exporters trace a model twice, and save functions that nobody needs: OpenVINO has a
    graph after 0.7 s of CPU time, and 1.6 s with ``model.export`` (MobileNetV2 0.35, 2026-11).
    """
    import keras
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        raise EngineError(f"Keras runs on {keras.backend.backend()}, not on TensorFlow")
    function = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    given = model.inputs[0]
    return function.get_concrete_function(tf.TensorSpec(given.shape, given.dtype))


def compiled_training(
    layers: keras.Model, states: Sequence[Any]
) -> Callable[[np.ndarray, Sequence[np.ndarray]], Any]:
    """Compile layers in training mode, without the updates of their own variables.

    `layers` is a model of one input and one output, which has to live as long as the function;
    `states` are the variables of its random generators. The function takes one input in a batch,
    float32, and the generators' states, and returns a tensor of the shape of the batch.
    """
    import keras

    places = {id(state): place for place, state in enumerate(states)}

    def call(inputs: Any, given: Sequence[Any]) -> Any:
        own = [variable.value for variable in layers.trainable_variables]
        others = [
            given[places[id(variable)]] if id(variable) in places else variable.value
            for variable in layers.non_trainable_variables
        ]
        return layers.stateless_call(own, others, inputs, training=True)[0]

    if keras.backend.backend() == "jax":
        import jax

        return _compiled_by_one_thread(jax.jit(call), current_settings())
    image = keras.InputSpec(shape=(1, *layers.input_shape[1:]), dtype="float32")
    specs = [keras.InputSpec(shape=state.shape, dtype=state.dtype) for state in states]
    return _compiled_function(call, image, specs)


def _compiled_function(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    """Compile a function of tensors for TensorFlow; torch runs it as it is."""
    import keras

    if keras.backend.backend() == "torch":
        return _run_by_torch(function, current_settings())
    import tensorflow as tf

    given = keras.tree.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), specs)
    # XLA makes a network ten times slower on a CPU (1088 -> 110 images/s, 2026-11).
    traced = tf.function(function, autograph=False, jit_compile=False)
    concrete = traced.get_concrete_function(*given)

    def make() -> Callable[..., Any]:
        own = tf.function(lambda *inputs: concrete(*inputs), autograph=False)
        called = own.get_concrete_function(*given)
        return lambda *inputs: called(*keras.tree.map_structure(tf.constant, inputs))

    return _ForOneThreadEach(make)


def _run_by_torch(function: Callable[..., Any], settings: KerasSettings) -> Callable[..., Any]:
    import keras
    import torch

    def run(*inputs: Any) -> Any:
        with torch.no_grad(), settings.applied(in_helper=True):
            return function(*keras.tree.map_structure(keras.ops.convert_to_tensor, inputs))

    return run


class _ForOneThreadEach:
    """Copies of one function, each called by one thread at a time.

    A convolution of TensorFlow's oneDNN that adds a tensor to its result stores that tensor in the
    operation while it computes. Two threads in one function may add each other's tensor, or crash
    the process (TensorFlow 2.21). `make` returns a function with its own operations.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]]) -> None:
        self._make = make
        self._idle: list[Callable[..., Any]] = []

    def __call__(self, *inputs: Any) -> Any:
        try:
            function = self._idle.pop()
        except IndexError:
            function = self._make()
        try:
            return function(*inputs)
        finally:
            self._idle.append(function)


def _compiled_by_one_thread(
    function: Callable[..., Any], settings: KerasSettings
) -> Callable[..., Any]:
    """Make one thread at a time call with a new shape; else JAX compiles in every thread."""
    known: set[tuple[int, ...]] = set()
    compiling = threading.Lock()

    def call(inputs: np.ndarray, *others: Any) -> Any:
        if inputs.shape in known:
            return function(inputs, *others)
        with settings.applied(in_helper=True), compiling:
            outputs = function(inputs, *others)
        known.add(inputs.shape)
        return outputs

    return call


# The switches of TensorFlow and torch apply to the process.
_switches = threading.Lock()


@contextlib.contextmanager
def arithmetic_precision(precision: str) -> Iterator[None]:
    """Switch TensorFloat-32, which keeps 10 bits of each factor, off for ``"float32"`` only."""
    import keras

    is_exact = precision == "float32"
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest" if is_exact else "tensorfloat32"):
            yield
    elif has_accelerator():
        switched = _switched_in_tensorflow if backend == "tensorflow" else _switched_in_torch
        with _switches, switched(not is_exact):
            yield
    else:
        yield


@contextlib.contextmanager
def _switched_in_tensorflow(is_allowed: bool) -> Iterator[None]:
    from tensorflow import config

    before = config.experimental.tensor_float_32_execution_enabled()
    config.experimental.enable_tensor_float_32_execution(is_allowed)
    try:
        yield
    finally:
        config.experimental.enable_tensor_float_32_execution(before)


@contextlib.contextmanager
def _switched_in_torch(is_allowed: bool) -> Iterator[None]:
    import torch

    backends: Any = torch.backends  # sets attributes of which type checkers know nothing
    values: tuple[object, object]
    if hasattr(backends, "fp32_precision"):  # torch 2.9 on
        operations = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        name, values = "fp32_precision", ("ieee", "tf32")
    else:
        operations = [backends.cuda.matmul, backends.cudnn]
        name, values = "allow_tf32", (False, True)
    before = [getattr(operation, name) for operation in operations]
    for operation in operations:
        setattr(operation, name, values[is_allowed])
    try:
        yield
    finally:
        for operation, value in zip(operations, before, strict=True):
            setattr(operation, name, value)
