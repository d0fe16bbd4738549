"""The rows that a pass has to load, taken from front to back."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import joblib
import numpy as np

from featx._threads import run_ahead
from featx.exceptions import SampleFault
from featx.inputs.samples import Identified, Identities, Samples


class Rows(Protocol):
    """What is to be loaded.

    Attributes
    ----------
    are_consecutive : bool
        Whether each follows the one before, but for samples whose content came before.
    """

    are_consecutive: bool

    @property
    def n_untaken(self) -> int:
        """How many may still be taken, at most."""

    @property
    def n_expected(self) -> int:
        """How many there are in all, as far as can be told."""

    def take(self, n_rows: int) -> np.ndarray:
        """Return the next rows, int64, increasing: at most so many, and perhaps none."""


class KnownRows:
    """Rows that are known from the start.

    Parameters
    ----------
    rows : ndarray of shape (m,), int64, increasing

    Examples
    --------
    >>> rows = KnownRows(np.array([2, 3, 5]))
    >>> rows.take(2), rows.take(2), rows.n_untaken, rows.n_expected
    (array([2, 3]), array([5]), 0, 3)
    """

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._n_taken = 0
        self.are_consecutive = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)

    @property
    def n_untaken(self) -> int:
        """How many may still be taken."""
        return len(self._rows) - self._n_taken

    @property
    def n_expected(self) -> int:
        """How many there are in all."""
        return len(self._rows)

    def take(self, n_rows: int) -> np.ndarray:
        """Return the next rows, int64, increasing: at most so many."""
        start = self._n_taken
        self._n_taken = min(start + n_rows, len(self._rows))
        return self._rows[start : self._n_taken]


class DistinctRows:
    """The rows of samples whose content no sample before them has.

    Samples are identified while the network works on those before them; what is taken is
    identified first.

    Parameters
    ----------
    blocks : iterator of Identified
        In the order of the samples: see :meth:`Samples.start_identifying`.
    n_samples : int
    ends_at_fault : bool
        Whether there are no more rows once a fault is known.

    Attributes
    ----------
    identities : Identities
        What is known of all samples so far.

    Examples
    --------
    >>> a, b = b"a" * 16, b"b" * 16
    >>> blocks = [
    ...     Identified(slice(0, 3), np.array([a, a, b]), []),
    ...     Identified(slice(3, 5), np.array([a, b]), []),
    ... ]
    >>> rows = DistinctRows(iter(blocks), n_samples=5, ends_at_fault=True)
    >>> rows.take(2), rows.n_expected
    (array([0]), 2)
    >>> rows.take(3), rows.n_untaken
    (array([2]), 0)
    """

    are_consecutive = True

    def __init__(
        self, blocks: Iterator[Identified], *, n_samples: int, ends_at_fault: bool
    ) -> None:
        self._blocks = blocks
        self._n_samples = n_samples
        self._ends_at_fault = ends_at_fault
        self._n_seen = 0
        self._seen = {b""}  # keys; that one is of what cannot be read
        self.identities = Identities(n_samples)

    @property
    def n_untaken(self) -> int:
        """How many may still be taken, at most."""
        return 0 if self._is_ended() else self._n_samples - self._n_seen

    @property
    def n_expected(self) -> int:
        """How many there are in all, if of those to come as many are distinct as of those seen."""
        if not self._n_seen:
            return self._n_samples
        n_distinct = len(self._seen) - 1
        return n_distinct + self.n_untaken * n_distinct // self._n_seen

    def take(self, n_rows: int) -> np.ndarray:
        """Return which of the next samples are the first of their content, int64, increasing."""
        start, end = self._n_seen, min(self._n_seen + n_rows, self._n_samples)
        self._identify_until(end)
        if self._is_ended():
            return np.empty(0, np.int64)
        is_first = []
        for key in self.identities.keys[start:end].tolist():
            is_first.append(key not in self._seen)
            self._seen.add(key)
        self._n_seen = end
        return start + np.flatnonzero(is_first)

    @property
    def are_known(self) -> bool:
        """Whether all samples are identified."""
        return self.identities.n_known == self._n_samples

    def identify_all(self) -> None:
        """Identify those that were not taken."""
        self._identify_until(self._n_samples)

    def identify_for(self, seconds: float) -> None:
        """Identify those that were not taken, as many as the time allows."""
        end_s = time.monotonic() + seconds
        while not self.are_known and time.monotonic() < end_s:
            self._identify_until(self.identities.n_known + 1)

    def _identify_until(self, end: int) -> None:
        while self.identities.n_known < end:
            self.identities.add(next(self._blocks))

    def _is_ended(self) -> bool:
        return self._ends_at_fault and bool(self.identities.faults)


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
