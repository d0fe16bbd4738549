"""Samples that are identified while the network works on those before them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featx.identity.key_table import KEY_DTYPE


class DistinctRows:
    """The rows of samples whose content no sample before them has, in order.

    They are sliced from front to back; what is sliced is identified first.

    Parameters
    ----------
    blocks : iterator of (slice, ndarray of dtype S16)
        Rows and their keys, one block after another: see :meth:`Samples.identified_ahead`.
    n_samples : int

    Attributes
    ----------
    keys : ndarray of shape (n_samples,), dtype S16
        All zero where no slice has been yet.

    Examples
    --------
    >>> a, b = b"a" * 16, b"b" * 16
    >>> blocks = [(slice(0, 3), np.array([a, a, b])), (slice(3, 5), np.array([a, b]))]
    >>> rows = DistinctRows(iter(blocks), n_samples=5)
    >>> rows[0:2], rows[2:5]
    (array([0]), array([2]))
    >>> rows.keys.tolist() == [a, a, b, a, b]
    True
    """

    def __init__(self, blocks: Iterator[tuple[slice, np.ndarray]], *, n_samples: int) -> None:
        self._blocks = blocks
        self._n_known = 0
        self._seen: set[bytes] = set()
        self.keys = np.zeros(n_samples, KEY_DTYPE)

    def __len__(self) -> int:
        """Return how many there are at most."""
        return len(self.keys)

    def __getitem__(self, places: slice) -> np.ndarray:
        """Return which of these samples are the first of their content, int64, increasing."""
        start, end, _ = places.indices(len(self))
        while self._n_known < end:
            block, keys = next(self._blocks)
            self.keys[block] = keys
            self._n_known = block.stop
        is_first = []
        for key in self.keys[start:end].tolist():
            is_first.append(key not in self._seen)
            self._seen.add(key)
        return start + np.flatnonzero(is_first)
