"""Keras as an engine: one compiled function from a batch of inputs to a batch of embeddings.

It is compiled for batches of any size, so that nothing is traced twice.

Each batch is a thread's, which also fetches the rows: else a GPU waits for the copies
(benchmarks/NOTES.md). For TensorFlow on a CPU it may be cut into parts, for a thread each.
"""

from __future__ import annotations

import copy
import functools
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from featx.engines.backend import arithmetic, compiled_inference
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
        import keras

        self._function = compiled_inference(model)
        self._model = model  # whose variables functions refer to, but do not keep
        self._cutting: Cutting | None = None
        if has_accelerator():
            self.n_in_flight = _BATCHES_ON_ACCELERATORS
        elif keras.backend.backend() == "tensorflow":
            self._cutting = Cutting(n_in_round=self.n_in_flight)

    def resized(self, batch_size: int) -> KerasEngine:
        """Return an engine with the same function."""
        engine = copy.copy(self)
        engine.batch_size = batch_size
        return engine

    def start(self, inputs: np.ndarray) -> Any:
        """Hand the batch, whole or in parts, to threads."""
        return self._cutting.start(inputs, self._submit) if self._cutting else self._submit(inputs)

    def finish(self, pending: Any) -> np.ndarray:
        """Wait for the threads."""
        rows: np.ndarray = self._cutting.finish(pending) if self._cutting else pending.result()
        return rows

    def _submit(self, inputs: np.ndarray) -> Future[np.ndarray]:
        return _threads().submit(self._rows_of, inputs)

    def _rows_of(self, inputs: np.ndarray) -> np.ndarray:
        """Copy inputs to the device, compute, and copy the embeddings back."""
        import keras

        with arithmetic(self._precision):
            outputs = self._function(inputs)
        return np.asarray(keras.ops.convert_to_numpy(outputs), np.float32)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads of all engines: one more than cores, for the changes between parts."""
    return ThreadPoolExecutor(joblib.cpu_count() + 1, thread_name_prefix="featx-network")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of its threads
