"""Samples on their way to the network: loaded in threads, handed out in batches of any size."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import joblib
import numpy as np

from featx.exceptions import SampleFault
from featx.forward.rows import Rows
from featx.samples.base import Samples
from featx.threads import run_ahead

GROUP_SIZE = 64  # of samples that a thread decodes or resizes at once, at most

Loaded = tuple[np.ndarray, np.ndarray, list[SampleFault]]


def load(
    samples: Samples,
    rows: Rows,
    shape: tuple[int, ...],
    *,
    batch_size: Callable[[], int],
    n_jobs: int | None,
) -> Generator[Loaded]:
    """Load samples in groups, in threads that run ahead: see :meth:`Samples.batch`.

    Parameters
    ----------
    samples : Samples
    rows : Rows
    shape : tuple of int
        Of one input of the network.
    batch_size : callable
        How many samples the network takes at the moment. Groups are as large where they need only
        be sliced, so that nothing is copied; where there is work to do they are smaller.
    n_jobs : int or None
        Threads; None is one per core.

    Yields
    ------
    rows : ndarray of shape (k,), int64
    inputs : ndarray of shape (k, *shape), uint8 or float32
    faults : list of SampleFault
    """
    is_sliced = samples.is_ready(shape) and rows.are_consecutive
    largest = rows.n_untaken if is_sliced else GROUP_SIZE

    def groups() -> Iterator[np.ndarray]:
        while rows.n_untaken:
            group = rows.take(min(batch_size(), largest))
            if len(group):
                yield group

    def read(group: np.ndarray) -> Loaded:
        return samples.batch(group, shape)

    if is_sliced:  # which takes less time than handing it to a thread
        yield from map(read, groups())
        return
    n_threads = joblib.cpu_count() if n_jobs is None else joblib.effective_n_jobs(n_jobs)
    yield from run_ahead(read, groups(), n_threads=n_threads)


class LoadedFeed:
    """Hands loaded samples out in batches of the size that is asked for.

    Parameters
    ----------
    groups : iterator
        What :func:`load` gives.
    n_expected : callable
        How many come in all, faulty ones included, as far as can be told at the moment.

    Attributes
    ----------
    faults : list of SampleFault
        What could not be loaded so far.
    """

    def __init__(self, groups: Iterator[Loaded], *, n_expected: Callable[[], int]) -> None:
        self._groups = groups
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._n_expected = n_expected
        self._n_taken = 0
        self.faults: list[SampleFault] = []

    @property
    def n_left(self) -> int:
        """How many samples are expected to come."""
        return self._n_expected() - self._n_taken - len(self.faults)

    def take(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and inputs, of one dtype, of up to so many samples; none at the end."""
        while self._n_waiting() < n_samples and self._is_of_one_dtype():
            group = next(self._groups, None)
            if group is None:
                break
            rows, inputs, faults = group
            self.faults += faults
            if len(rows):
                self._waiting.append((rows, inputs))
        return self._cut(n_samples)

    def _cut(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Take samples of the first dtype off those that wait."""
        taken: list[tuple[np.ndarray, np.ndarray]] = []
        n_lacking = n_samples
        while self._waiting and n_lacking:
            rows, inputs = self._waiting[0]
            if taken and inputs.dtype != taken[0][1].dtype:
                break
            taken.append((rows[:n_lacking], inputs[:n_lacking]))
            self._waiting[0] = (rows[n_lacking:], inputs[n_lacking:])
            if not len(self._waiting[0][0]):
                self._waiting.pop(0)
            n_lacking -= len(taken[-1][0])
        self._n_taken += n_samples - n_lacking
        if len(taken) == 1:
            return taken[0]
        if not taken:
            return np.empty(0, np.int64), np.empty(0, np.uint8)
        rows, inputs = zip(*taken, strict=True)
        return np.concatenate(rows), np.concatenate(inputs)

    def _n_waiting(self) -> int:
        return sum(len(rows) for rows, _ in self._waiting)

    def _is_of_one_dtype(self) -> bool:
        return len({inputs.dtype for _, inputs in self._waiting}) <= 1
