"""KerasEngine: one compiled function of Keras from batches of any size to embeddings.

A thread runs each batch and copies its rows back; otherwise a GPU would wait for the copies
(benchmarks/NOTES.md).

TensorFlow on a CPU leaves cores idle between two layers, and the output of a layer may not fit into
their caches. Parts of a batch that run in parallel keep the cores busy and fit the caches; entire
batches in parallel keep them busy too, with larger matrices. Which is faster depends on the network
and the CPU (benchmarks/NOTES.md), and is measured during the pass.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from featx.engines.base import Engine
from featx.engines.compile import arithmetic_precision, compiled_inference
from featx.engines.devices import has_accelerator

if TYPE_CHECKING:
    import keras


_Rows = list["Future[np.ndarray]"]

# One is computed, one copied back, two are copied to the GPU, since copying is the slower part.
_BATCHES_ON_ACCELERATORS = 4
_NUMBERS_PER_PART = 600_000  # of the inputs: 4 images of 224x224 pixels, 21 of 96x96
_TRIALS = 3  # of entire batches, and of batches in parts; the first includes the set-up


class KerasEngine(Engine):
    """Runs a Keras model in inference mode.

    With ``precision="float32"``, TensorFloat-32 is off on a GPU while the engine runs.
    """

    name = "keras"
    precisions = ("float32", "tf32", "bfloat16", "float16")

    def _load(self, model: keras.Model) -> None:
        import keras

        self._function = compiled_inference(model)
        self.model = model  # keeps alive the variables that the function refers to
        self._splitter: BatchSplitter | None = None
        if has_accelerator():
            self.n_in_flight = _BATCHES_ON_ACCELERATORS
        elif keras.backend.backend() == "tensorflow":
            self._splitter = BatchSplitter(n_in_trial=self.n_in_flight)

    def start(self, inputs: np.ndarray) -> Any:
        """Hand the batch, entire or in parts, to threads."""
        splitter = self._splitter
        return splitter.start(inputs, self._submit) if splitter else self._submit(inputs)

    def finish(self, pending: Any) -> np.ndarray:
        """Wait for the threads."""
        rows: np.ndarray = self._splitter.finish(pending) if self._splitter else pending.result()
        return rows

    def _submit(self, inputs: np.ndarray) -> Future[np.ndarray]:
        return _engine_threads().submit(self._rows_of, inputs)

    def _rows_of(self, inputs: np.ndarray) -> np.ndarray:
        """Copy inputs to the device, compute, and copy the embeddings back."""
        import keras

        with arithmetic_precision(self._precision):
            outputs = self._function(inputs)
        return np.asarray(keras.ops.convert_to_numpy(outputs), np.float32)


@functools.cache
def _engine_threads() -> ThreadPoolExecutor:
    """Return the threads of all engines: one more than cores, so that none waits between parts."""
    return ThreadPoolExecutor(joblib.cpu_count() + 1, thread_name_prefix="featx-network")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_child=_engine_threads.cache_clear
    )  # a child has none of its threads


@dataclass
class _SplittingTrial:
    """Pending batches of one size, either all entire or all in parts."""

    in_parts: bool
    size: int
    began_s: float
    batches: list[_Rows] = field(default_factory=list)


class BatchSplitter:
    """Hands batches to threads, in parts or entire, whichever is faster.

    Until that is known, trials with entire batches and with batches in parts take turns. Only the
    batches of one trial are pending at once: `n_in_trial`, as many as a pass keeps pending.
    """

    def __init__(self, *, n_in_trial: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._n_in_trial = n_in_trial
        self._is_decided = False
        self._in_parts = True
        self._seconds: defaultdict[tuple[bool, int], list[float]] = defaultdict(list)
        self._trial: _SplittingTrial | None = None
        self._lock = threading.Lock()

    def start(
        self, inputs: np.ndarray, submit: Callable[[np.ndarray], Future[np.ndarray]]
    ) -> _Rows:
        """Hand a batch to threads; once a trial is complete, wait for its batches.

        `submit` starts work on inputs, (m, ...), and returns a future of their rows. The list of
        futures goes to :meth:`finish`.
        """
        n_parts = max(1, min(len(inputs), -(-inputs.size // _NUMBERS_PER_PART)))
        is_tried = n_parts > 1 and not self._is_decided
        own = _SplittingTrial(self._in_parts, len(inputs), self._clock())
        parts = np.array_split(inputs, n_parts) if own.in_parts else [inputs]
        rows = [submit(part) for part in parts]
        if is_tried:
            self._add_to_trial(rows, own)
        return rows

    def finish(self, rows: _Rows) -> np.ndarray:
        """Wait for a batch, and return its rows."""
        with self._lock:
            if self._trial and rows in self._trial.batches:
                self._trial = None  # not complete: no batch follows this one
        done = [part.result() for part in rows]
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _add_to_trial(self, rows: _Rows, own: _SplittingTrial) -> None:
        """Add a batch to the present trial, or start a new trial if it differs from its batches."""
        with self._lock:
            trial = self._trial
            if trial is None or (trial.in_parts, trial.size) != (own.in_parts, own.size):
                trial = self._trial = own
            trial.batches.append(rows)
            if len(trial.batches) < self._n_in_trial:
                return
            self._trial = None
        parts = [part for rows in trial.batches for part in rows]
        wait(parts)
        if not any(part.exception() for part in parts):
            self._note(trial, seconds=self._clock() - trial.began_s)

    def _note(self, tried: _SplittingTrial, *, seconds: float) -> None:
        """Note the seconds of a trial; decide after enough trials of batches of one size."""
        with self._lock:
            if self._is_decided:
                return
            self._seconds[tried.in_parts, tried.size].append(seconds)
            entire, parts = self._seconds[False, tried.size], self._seconds[True, tried.size]
            self._is_decided = min(len(entire), len(parts)) >= _TRIALS
            if self._is_decided:
                self._in_parts = min(parts) < min(entire)
            else:
                self._in_parts = len(parts) <= len(entire)
