"""Keras as an engine: one compiled function from a batch of inputs to a batch of embeddings.

It is compiled for batches of any size, so that nothing is traced twice.

Each batch is a thread's, which also fetches the rows: else a GPU waits for the copies
(benchmarks/NOTES.md). For TensorFlow on a CPU it may be cut into parts, for a thread each.

Batches whole or in parts: whichever a machine computes faster, found out by doing both.

TensorFlow leaves cores of a CPU idle between two layers, and what one layer hands to the next may
be larger than their caches. Parts that run side by side keep the cores busy and fit the caches;
whole batches side by side keep them busy too, with larger matrices. Which is faster depends on the
network and the CPU (benchmarks/NOTES.md), and shows only while batches follow one another.
"""

from __future__ import annotations

import copy
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
from featx.engines.compile import arithmetic, compiled_inference
from featx.engines.devices import has_accelerator

if TYPE_CHECKING:
    import keras


# Of the inputs of a part: 4 images of 224x224 pixels, 21 of 96x96.
_NUMBERS_PER_PART = 600_000
_TRIALS = 3  # of each way; the first also sets things up

_Rows = list["Future[np.ndarray]"]


@dataclass
class _Round:
    """Batches of one size, all whole or all in parts, that are under way at once."""

    in_parts: bool
    size: int
    began_s: float
    batches: list[_Rows] = field(default_factory=list)


class BatchSplitter:
    """Hands batches to threads, in parts or whole.

    While it is not known which is faster, the two ways take turns, a round of batches each. All
    batches of a round are under way at once, and no others.

    Parameters
    ----------
    n_in_round : int
        How many batches are under way at once when many are to be done.

    Examples
    --------
    >>> from concurrent.futures import ThreadPoolExecutor
    >>> cutting = BatchSplitter(n_in_round=2)
    >>> with ThreadPoolExecutor() as threads:
    ...     rows = cutting.start(
    ...         np.ones((2, 640, 480)), lambda part: threads.submit(np.mean, part, (1, 2))
    ...     )
    ...     cutting.finish(rows)
    array([1., 1.])
    """

    def __init__(self, *, n_in_round: int) -> None:
        self._n_in_round = n_in_round
        self._is_decided = False
        self._in_parts = True
        self._seconds: defaultdict[tuple[bool, int], list[float]] = defaultdict(list)
        self._round: _Round | None = None
        self._lock = threading.Lock()

    def start(
        self, inputs: np.ndarray, submit: Callable[[np.ndarray], Future[np.ndarray]]
    ) -> _Rows:
        """Hand a batch to threads; wait for the batches of a round when it is complete.

        Parameters
        ----------
        inputs : ndarray of shape (n, ...)
        submit : callable
            From (m, ...) to the future rows of these.

        Returns
        -------
        list of futures
            For :meth:`finish`.
        """
        n_parts = max(1, min(len(inputs), -(-inputs.size // _NUMBERS_PER_PART)))
        is_tried = n_parts > 1 and not self._is_decided
        own = _Round(self._in_parts, len(inputs), time.perf_counter())
        parts = np.array_split(inputs, n_parts) if own.in_parts else [inputs]
        rows = [submit(part) for part in parts]
        if is_tried:
            self._join(rows, own)
        return rows

    def finish(self, rows: _Rows) -> np.ndarray:
        """Wait for a batch.

        Returns
        -------
        ndarray of shape (n, ...)
        """
        with self._lock:
            if self._round and rows in self._round.batches:
                self._round = None  # was not complete: nothing follows this batch
        done = [part.result() for part in rows]
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _join(self, rows: _Rows, own: _Round) -> None:
        """Add a batch to the round; it begins one of its own if it is of another kind."""
        with self._lock:
            at = self._round
            if at is None or (at.in_parts, at.size) != (own.in_parts, own.size):
                at = self._round = own
            at.batches.append(rows)
            if len(at.batches) < self._n_in_round:
                return
            self._round = None
        parts = [part for rows in at.batches for part in rows]
        wait(parts)
        if not any(part.exception() for part in parts):
            self._note(at, seconds=time.perf_counter() - at.began_s)

    def _note(self, tried: _Round, *, seconds: float) -> None:
        """Note how long a round took; choose when enough is known of batches of one size."""
        with self._lock:
            if self._is_decided:
                return
            self._seconds[tried.in_parts, tried.size].append(seconds)
            whole, cut = self._seconds[False, tried.size], self._seconds[True, tried.size]
            self._is_decided = min(len(whole), len(cut)) >= _TRIALS
            if self._is_decided:
                self._in_parts = min(cut) < min(whole)
            else:
                self._in_parts = len(cut) <= len(whole)


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
        self._cutting: BatchSplitter | None = None
        if has_accelerator():
            self.n_in_flight = _BATCHES_ON_ACCELERATORS
        elif keras.backend.backend() == "tensorflow":
            self._cutting = BatchSplitter(n_in_round=self.n_in_flight)

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
