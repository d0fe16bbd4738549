"""Batches whole or in parts: whichever a machine computes faster, found out by doing both.

TensorFlow leaves cores of a CPU idle between two layers, and what one layer hands to the next may
be larger than their caches. Parts that run side by side keep the cores busy and fit the caches;
whole batches side by side keep them busy too, with larger matrices. Which is faster depends on the
network and the CPU (benchmarks/NOTES.md), and shows only while batches follow one another.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import numpy as np

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


class Cutting:
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
    >>> cutting = Cutting(n_in_round=2)
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
