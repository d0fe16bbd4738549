"""Keras as an engine: one compiled function from a batch of inputs to a batch of embeddings.

It is compiled for batches of any size, so that nothing is traced twice. Keras' own calls are used
where it has one; what compiles a function is the backend's.

Each batch is a thread's, which also fetches the rows: else a GPU waits for the copies
(benchmarks/README.md). For TensorFlow on a CPU it may be cut into parts, for a thread each.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from featx.engines.base import Engine
from featx.engines.cutting import Cutting
from featx.engines.devices import has_accelerator

if TYPE_CHECKING:
    import keras

# One is computed, one comes back, two are sent: a thread copies more slowly than a GPU computes.
_BATCHES_ON_ACCELERATORS = 4


class KerasEngine(Engine):
    """Runs a Keras model in inference mode.

    In "float32" TensorFloat-32 is off on a GPU while the engine runs.
    """

    name = "keras"
    precisions = ("float32", "tf32", "bfloat16", "float16")

    def _load(self, model: keras.Model) -> None:
        self._function = _compiled(model)
        self._model = model  # whose variables functions refer to, but do not keep
        self._cutting = Cutting() if _idles_between_layers() else None
        if has_accelerator():
            self.n_in_flight = _BATCHES_ON_ACCELERATORS

    def resized(self, batch_size: int) -> KerasEngine:
        """Return an engine with the same function."""
        engine = copy.copy(self)
        engine.batch_size = batch_size
        return engine

    def start(self, inputs: np.ndarray) -> Any:
        """Hand the batch, whole or in parts, to threads; wait while it is timed."""
        parts = self._cutting.parts_of(inputs) if self._cutting else [inputs]
        start_s = time.perf_counter()
        futures = [_threads().submit(self._rows_of, part) for part in parts]
        if (
            self._cutting
            and self._cutting.is_on_trial(inputs)
            and not any(future.exception() for future in futures)
        ):
            self._cutting.note(parts, seconds=time.perf_counter() - start_s)
        return futures

    def finish(self, pending: Any) -> np.ndarray:
        """Wait for the threads."""
        futures: list[Future[np.ndarray]] = pending
        rows = [future.result() for future in futures]
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _rows_of(self, inputs: np.ndarray) -> np.ndarray:
        """Copy inputs to the device, compute, and copy the embeddings back."""
        import keras

        with _arithmetic(self._precision):
            outputs = self._function(inputs)
        return np.asarray(keras.ops.convert_to_numpy(outputs), np.float32)


def _idles_between_layers() -> bool:
    """Tell whether TensorFlow runs the graph on a CPU, whose cores wait between two layers."""
    import keras

    return keras.backend.backend() == "tensorflow" and not has_accelerator()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads of all engines: one more than cores, for the changes between parts."""
    return ThreadPoolExecutor(joblib.cpu_count() + 1, thread_name_prefix="featx-network")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its threads


def _compiled(model: keras.Model) -> Callable[[np.ndarray], Any]:
    """Compile a model in the way of Keras' backend."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # XLA makes a network ten times slower on a CPU (facts of 2026-11: 1088 -> 110 images/s).
        function = tf.function(
            lambda inputs: model(inputs, training=False), autograph=False, jit_compile=False
        )
        given = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
        traced = function.get_concrete_function(given)

        def make() -> Callable[[np.ndarray], Any]:
            own = tf.function(lambda inputs: traced(inputs), autograph=False)
            concrete = own.get_concrete_function(given)
            return lambda inputs: concrete(tf.constant(inputs))

        return _ForOneThreadEach(make)
    if backend == "jax":
        import jax

        function = jax.jit(
            lambda own, others, inputs: model.stateless_call(own, others, inputs, training=False)[0]
        )
        own = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        return _compiled_by_one_thread(lambda inputs: function(own, others, inputs))
    import torch

    def call(inputs: np.ndarray) -> Any:
        with torch.no_grad():
            return model(keras.ops.convert_to_tensor(inputs), training=False)

    return call


def compiled_by_states(
    layers: keras.Model, generators: Sequence[Any]
) -> Callable[[np.ndarray, list[np.ndarray]], Any]:
    """Compile layers, as they are in training, to a function of an image and generators' states."""
    import keras

    places = {id(generator): place for place, generator in enumerate(generators)}

    def call(image: Any, states: Sequence[Any]) -> Any:
        own = [variable.value for variable in layers.trainable_variables]
        others = [
            states[places[id(variable)]] if id(variable) in places else variable.value
            for variable in layers.non_trainable_variables
        ]
        return layers.stateless_call(own, others, image, training=True)[0]

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(call, autograph=False).get_concrete_function(
            tf.TensorSpec((1, *layers.input_shape[1:]), tf.float32),
            [tf.TensorSpec(generator.shape, generator.dtype) for generator in generators],
        )
        return lambda image, states: traced(tf.constant(image), [*map(tf.constant, states)])
    if backend == "jax":
        import jax

        return _compiled_by_one_thread(jax.jit(call))
    import torch

    convert = keras.ops.convert_to_tensor
    return torch.no_grad()(lambda image, states: call(convert(image), [*map(convert, states)]))


class _ForOneThreadEach:
    """Functions that compute the same, of which each is called by one thread at a time.

    A convolution of TensorFlow's oneDNN that adds another tensor to its result keeps that tensor in
    itself while it computes: two threads in one function may add each other's, or end the process
    (TensorFlow 2.21). Operations of functions that call the same one are copies, one for each.

    Parameters
    ----------
    make : callable
        Makes such a function.
    """

    def __init__(self, make: Callable[[], Callable[[np.ndarray], Any]]) -> None:
        self._make = make
        self._idle: list[Callable[[np.ndarray], Any]] = []

    def __call__(self, inputs: np.ndarray) -> Any:
        try:
            function = self._idle.pop()
        except IndexError:
            function = self._make()
        try:
            return function(inputs)
        finally:
            self._idle.append(function)


def _compiled_by_one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let one thread make the first call with some shape; JAX compiles in all that call at once."""
    known: set[tuple[int, ...]] = set()
    compiling = threading.Lock()

    def call(inputs: np.ndarray, *others: Any) -> Any:
        with contextlib.nullcontext() if inputs.shape in known else compiling:
            outputs = function(inputs, *others)
        known.add(inputs.shape)
        return outputs

    return call


# TensorFlow's and torch's switches are ones of the whole process.
_switches = threading.Lock()


@contextlib.contextmanager
def _arithmetic(precision: str) -> Iterator[None]:
    """Allow or forbid TensorFloat-32, which keeps 10 bits of each factor; undo it afterwards."""
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
    from torch import backends

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
        for operation, its_own in zip(operations, before, strict=True):
            setattr(operation, name, its_own)
