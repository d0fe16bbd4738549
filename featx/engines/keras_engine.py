"""Keras as an engine: one compiled function from a batch of inputs to a batch of embeddings.

It is compiled for batches of any size but only called with one, so that nothing is traced twice.
Keras' own calls are used where it has one; what compiles a function is the backend's.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.engines.base import Engine
from featx.engines.devices import has_accelerator

if TYPE_CHECKING:
    import keras


class KerasEngine(Engine):
    """Runs a Keras model in inference mode.

    In "float32" TensorFloat-32 is off on a GPU while the engine runs.
    """

    name = "keras"
    precisions = ("float32", "tf32", "bfloat16", "float16")

    def _load(self, model: keras.Model) -> None:
        self._function = _compiled(model)

    def resized(self, batch_size: int) -> KerasEngine:
        """Return an engine with the same function."""
        engine = copy.copy(self)
        engine.batch_size = batch_size
        return engine

    def start(self, inputs: np.ndarray) -> Any:
        """Call the function; JAX and GPUs return before they are done."""
        with _arithmetic(self._precision):
            return self._function(inputs)

    def finish(self, pending: Any) -> np.ndarray:
        """Copy the embeddings from the device."""
        import keras

        return np.asarray(keras.ops.convert_to_numpy(pending), np.float32)


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
        given = model.inputs[0]
        concrete = function.get_concrete_function(tf.TensorSpec(given.shape, given.dtype))
        return lambda inputs: concrete(tf.constant(inputs))
    if backend == "jax":
        import jax

        function = jax.jit(
            lambda own, others, inputs: model.stateless_call(own, others, inputs, training=False)[0]
        )
        own = [variable.value for variable in model.trainable_variables]
        others = [variable.value for variable in model.non_trainable_variables]
        return lambda inputs: function(own, others, inputs)
    import torch

    def call(inputs: np.ndarray) -> Any:
        with torch.no_grad():
            return model(keras.ops.convert_to_tensor(inputs), training=False)

    return call


# TensorFlow's switch is one of the whole process.
_switch = threading.Lock()


@contextlib.contextmanager
def _arithmetic(precision: str) -> Iterator[None]:
    """Allow or forbid TensorFloat-32, which keeps 10 bits of each factor; undo it afterwards."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow" and has_accelerator():
        from tensorflow import config

        with _switch:
            allowed = config.experimental.tensor_float_32_execution_enabled()
            config.experimental.enable_tensor_float_32_execution(precision != "float32")
            try:
                yield
            finally:
                config.experimental.enable_tensor_float_32_execution(allowed)
    elif backend == "jax":
        import jax

        with jax.default_matmul_precision("highest" if precision == "float32" else "tensorfloat32"):
            yield
    else:
        yield
