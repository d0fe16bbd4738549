"""Keras as an engine: one compiled function from a batch of inputs to a batch of embeddings.

It is compiled for batches of any size, so that nothing is traced twice.

Each batch is a thread's, which also fetches the rows: else a GPU waits for the copies
(benchmarks/NOTES.md). For TensorFlow on a CPU it may be cut into parts, for a thread each.
"""

from __future__ import annotations

import copy
import functools
import os
import time
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
        self._function = compiled_inference(model)
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

        with arithmetic(self._precision):
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
