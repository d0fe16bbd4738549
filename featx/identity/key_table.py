"""Many 16-byte digests, looked up many at a time.

Digests travel as numpy arrays of dtype ``S16``; sorting and binary search are numpy's own, on their
first halves as integers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from featx.identity._hashing import DIGEST_BYTES

KEY_DTYPE = np.dtype(f"S{DIGEST_BYTES}")
# The key of what has none, such as a sample that cannot be read; nothing is stored under it.
NO_KEY = bytes(DIGEST_BYTES)


def keys_from(digests: Iterable[bytes], *, count: int) -> np.ndarray:
    """Pack digests into an array of keys, shape (count,), dtype ``S16``."""
    return np.fromiter(digests, KEY_DTYPE, count=count)


def keys_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """View a uint8 matrix of shape (n, 16) as n keys."""
    return np.ascontiguousarray(matrix, np.uint8).reshape(-1).view(KEY_DTYPE)


def matrix_from_keys(keys: np.ndarray) -> np.ndarray:
    """View n keys as a uint8 matrix of shape (n, 16)."""
    return np.ascontiguousarray(keys, KEY_DTYPE).view(np.uint8).reshape(-1, DIGEST_BYTES)


def distinct(keys: np.ndarray) -> np.ndarray:
    """Return each key once, in the order of their first places."""
    return keys[np.sort(np.unique(keys, return_index=True)[1])]


class KeyTable:
    """An immutable map from keys to the position at which each was given.

    Keys are ordered by their first eight bytes, as integers: digests, which are random, hardly
    ever share those, and where two do, the rest decides.

    Parameters
    ----------
    keys : ndarray of shape (n,), dtype S16
        May hold a key more than once; any of its positions is then a right answer, and the same
        one each time.

    Examples
    --------
    >>> table = KeyTable(np.array([b"b" * 16, b"a" * 16], KEY_DTYPE))
    >>> table.find(np.array([b"a" * 16, b"c" * 16], KEY_DTYPE))
    array([ 1, -1])
    """

    def __init__(self, keys: np.ndarray) -> None:
        heads, tails = _halves(keys)
        # By both halves: keys that are alike then stand side by side.
        self._order = np.argsort(heads)
        if (np.diff(heads[self._order]) == 0).any():
            self._order = np.lexsort((tails, heads))
        self._heads, self._tails = heads[self._order], tails[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the position of each key, -1 where it is missing; shape (n,), int64."""
        found = np.full(len(keys), -1, np.int64)
        heads, tails = _halves(keys)
        # In order, so that the search walks through the table instead of jumping about in it.
        open_keys = np.argsort(heads)
        places = np.searchsorted(self._heads, heads[open_keys])
        while len(open_keys):
            in_reach = places < len(self)
            open_keys, places = open_keys[in_reach], places[in_reach]
            same_head = self._heads[places] == heads[open_keys]
            open_keys, places = open_keys[same_head], places[same_head]
            same = self._tails[places] == tails[open_keys]
            found[open_keys[same]] = self._order[places[same]]
            open_keys, places = open_keys[~same], places[~same] + 1
        return found

    def repeated(self) -> np.ndarray:
        """Tell of each position, (n,) bool, whether its key was given more than once."""
        twice = np.zeros(len(self), bool)
        alike = (self._heads[1:] == self._heads[:-1]) & (self._tails[1:] == self._tails[:-1])
        twice[self._order[1:][alike]] = True
        twice[self._order[:-1][alike]] = True
        return twice


def _halves(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last eight bytes of each key, as uint64."""
    words = matrix_from_keys(keys).view(np.uint64)
    return np.ascontiguousarray(words[:, 0]), np.ascontiguousarray(words[:, 1])
