"""Samples that are identified while the network works on those before them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featx.exceptions import SampleFault
from featx.identity.key_table import KEY_DTYPE, NO_KEY
from featx.samples.base import Identified


class DistinctRows:
    """The rows of samples whose content no sample before them has, in order.

    They are sliced from front to back; what is sliced is identified first.

    Parameters
    ----------
    blocks : iterator of Identified
        In the order of the samples: see :meth:`Samples.start_identifying`.
    n_samples : int
    ends_at_fault : bool
        Whether there are no more rows once a fault is known.

    Attributes
    ----------
    keys : ndarray of shape (n_samples,), dtype S16
        All zero where there is a fault, and where no slice has been yet.
    faults : list of SampleFault
        Those that are known.

    Examples
    --------
    >>> from featx.samples.base import Identified
    >>> a, b = b"a" * 16, b"b" * 16
    >>> blocks = [
    ...     Identified(slice(0, 3), np.array([a, a, b]), []),
    ...     Identified(slice(3, 5), np.array([a, b]), []),
    ... ]
    >>> rows = DistinctRows(iter(blocks), n_samples=5, ends_at_fault=True)
    >>> rows[0:2], rows[2:5]
    (array([0]), array([2]))
    >>> rows.keys.tolist() == [a, a, b, a, b]
    True
    """

    def __init__(
        self, blocks: Iterator[Identified], *, n_samples: int, ends_at_fault: bool
    ) -> None:
        self._blocks = blocks
        self._ends_at_fault = ends_at_fault
        self._n_known = 0
        self._seen: set[bytes] = set()
        self.keys = np.zeros(n_samples, KEY_DTYPE)
        self.faults: list[SampleFault] = []

    def __len__(self) -> int:
        """Return how many there are at most."""
        return len(self.keys)

    def __getitem__(self, places: slice) -> np.ndarray:
        """Return which of these samples are the first of their content, int64, increasing."""
        start, end, _ = places.indices(len(self))
        self._identify_until(end)
        if self.faults and self._ends_at_fault:
            return np.empty(0, np.int64)
        is_first = []
        for key in self.keys[start:end].tolist():
            is_first.append(bool(key) and key not in self._seen)
            self._seen.add(key)
        return start + np.flatnonzero(is_first)

    @property
    def are_known(self) -> bool:
        """Whether all samples are identified."""
        return self._n_known == len(self)

    def identify_all(self) -> None:
        """Identify those that were not sliced."""
        self._identify_until(len(self))

    def _identify_until(self, end: int) -> None:
        while self._n_known < end:
            block = next(self._blocks)
            self.keys[block.rows] = block.keys
            self.keys[[fault.position for fault in block.faults]] = NO_KEY
            self.faults += block.faults
            self._n_known = block.rows.stop
