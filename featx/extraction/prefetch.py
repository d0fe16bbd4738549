"""``load`` and LoadedFeed: rows are read in threads, in order, and handed out in batches.

``RowsToLoad`` are still to be loaded: they are known from the start, or found while samples are
identified. :func:`load` prefetches them in threads; :class:`LoadedFeed` cuts the loaded groups into
batches of the size that an engine needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np

from featx._threads import n_threads_for, run_ahead
from featx.exceptions import SampleFault
from featx.inputs.kinds import InputForm
from featx.inputs.samples import IdentifiedBlock, Identities, Samples

GROUP_SIZE = 64  # largest number of samples that a thread decodes or resizes at once

Loaded = tuple[np.ndarray, np.ndarray, list[SampleFault]]  # rows, inputs and faults


class RowsToLoad(Protocol):
    """Rows that are to be loaded."""

    are_consecutive: bool  # each row follows the one before, except for duplicates

    @property
    def n_untaken(self) -> int:
        """Number of rows that may still be taken, at most."""

    @property
    def n_expected(self) -> int:
        """Number of rows in all, as far as it is known."""

    def take(self, n_rows: int) -> np.ndarray:
        """Return the next rows, int64, increasing; fewer than `n_rows` or none are possible."""


class KnownRows:
    """Rows that are known from the start, int64, increasing."""

    def __init__(self, rows: np.ndarray) -> None:
        self._rows = rows
        self._n_taken = 0
        self.are_consecutive = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)

    @property
    def n_untaken(self) -> int:
        """Number of rows that may still be taken."""
        return len(self._rows) - self._n_taken

    @property
    def n_expected(self) -> int:
        """Number of rows in all."""
        return len(self._rows)

    def take(self, n_rows: int) -> np.ndarray:
        """Return the next rows, int64, increasing; fewer than `n_rows` at the end."""
        start = self._n_taken
        self._n_taken = min(start + n_rows, len(self._rows))
        return self._rows[start : self._n_taken]


def first_of_content(keys: np.ndarray, seen: set[bytes]) -> np.ndarray:
    """Return the positions of keys that are not in `seen`, int64, and add all keys to it.

    Examples
    --------
    >>> seen = {b"a"}
    >>> first_of_content(np.array([b"a", b"b", b"b"]), seen), len(seen)
    (array([1]), 2)
    """
    is_first = []
    for key in keys.tolist():
        is_first.append(key not in seen)
        seen.add(key)
    return np.flatnonzero(is_first)


class DistinctRows:
    """Rows of samples whose content no earlier sample has.

    Samples are identified while the network works on earlier ones: :meth:`take` identifies the rows
    that it returns. `blocks` come in the order of the samples, from
    :meth:`Samples.start_identifying`. `identities` holds the keys and faults so far; with
    `ends_at_fault` the rows end once there is one.
    """

    are_consecutive = True

    def __init__(
        self, blocks: Iterator[IdentifiedBlock], *, n_samples: int, ends_at_fault: bool
    ) -> None:
        self._blocks = blocks
        self._n_samples = n_samples
        self._ends_at_fault = ends_at_fault
        self._n_seen = 0
        self._seen = {b""}  # keys so far; unreadable samples have this one
        self.identities = Identities(n_samples)

    @property
    def n_untaken(self) -> int:
        """Number of rows that may still be taken, at most."""
        return 0 if self._is_ended() else self._n_samples - self._n_seen

    @property
    def n_expected(self) -> int:
        """Number of rows in all, if the rest has the same fraction of distinct samples."""
        if not self._n_seen:
            return self._n_samples
        n_distinct = len(self._seen) - 1
        return n_distinct + self.n_untaken * n_distinct // self._n_seen

    def take(self, n_rows: int) -> np.ndarray:
        """Return those of the next samples that are the first of their content, int64."""
        start, end = self._n_seen, min(self._n_seen + n_rows, self._n_samples)
        self._identify_until(end)
        if self._is_ended():
            return np.empty(0, np.int64)
        self._n_seen = end
        return start + first_of_content(self.identities.keys[start:end], self._seen)

    @property
    def are_known(self) -> bool:
        """True once all samples are identified."""
        return self.identities.n_known == self._n_samples

    def identify_all(self) -> None:
        """Identify the rest of the samples."""
        self._identify_until(self._n_samples)

    def identify_for(self, seconds: float) -> None:
        """Identify the rest of the samples, or as many as the time allows."""
        end_s = time.monotonic() + seconds
        while not self.are_known and time.monotonic() < end_s:
            self._identify_until(self.identities.n_known + 1)

    def _identify_until(self, end: int) -> None:
        while self.identities.n_known < end:
            self.identities.add(next(self._blocks))

    def _is_ended(self) -> bool:
        return self._ends_at_fault and bool(self.identities.faults)


def load(
    samples: Samples,
    rows: RowsToLoad,
    form: InputForm,
    *,
    batch_size: Callable[[], int],
    n_jobs: int | None,
) -> Generator[Loaded]:
    """Load samples in groups, prefetched in threads: see :meth:`Samples.batch`.

    `form` is that of one input of the network, and `batch_size` returns the network's present
    batch size. Groups that are only sliced have this size, so that nothing is copied; groups that
    are decoded are smaller. `n_jobs` threads decode; None is one per core.

    Yield rows, int64, inputs (k, *form.shape), uint8 or float32, and the faults of other rows.
    """
    is_sliced = samples.is_ready(form.shape) and rows.are_consecutive
    largest = rows.n_untaken if is_sliced else GROUP_SIZE

    def groups() -> Iterator[np.ndarray]:
        while rows.n_untaken:
            group = rows.take(min(batch_size(), largest))
            if len(group):
                yield group

    def read(group: np.ndarray) -> Loaded:
        return samples.batch(group, form)

    if is_sliced:  # which takes less time than handing it to a thread
        yield from map(read, groups())
        return
    n_threads = n_threads_for(n_jobs)
    yield from run_ahead(read, groups(), n_threads=n_threads)


class LoadedFeed:
    """Loaded samples, in batches of any size.

    `groups` are those of :func:`load`, `n_expected` returns the number of samples in all, faulty
    ones included, as far as it is known. `faults` are those of samples that could not be loaded.
    """

    def __init__(self, groups: Iterator[Loaded], *, n_expected: Callable[[], int]) -> None:
        self._groups = groups
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._n_expected = n_expected
        self._n_taken = 0
        self.faults: list[SampleFault] = []

    @property
    def n_left(self) -> int:
        """Number of samples that are expected to come."""
        return self._n_expected() - self._n_taken - len(self.faults)

    def take(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and inputs, of one dtype, of up to `n_samples` samples; none at the end."""
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
        """Return waiting samples of the first dtype, and remove them from the queue."""
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
