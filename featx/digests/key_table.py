"""KeyTable: 16-byte digests, of which many are looked up at once.

Keys are numpy arrays of dtype ``S16``; numpy sorts and searches their first halves as integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from featx.digests.hashing import DIGEST_BYTES

KEY_DTYPE = np.dtype(f"S{DIGEST_BYTES}")
NO_KEY = bytes(DIGEST_BYTES)  # key of a sample that cannot be read; no row is stored under it
_LONGEST_SCAN = 16  # largest ratio of table rows to keys for which a table is scanned


def keys_from(digests: Iterable[bytes], *, count: int) -> np.ndarray:
    """Pack digests into an array of keys, shape (count,), dtype ``S16``."""
    return np.fromiter(digests, KEY_DTYPE, count=count)


def keys_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """Return a uint8 matrix of shape (n, 16) as n keys."""
    return np.ascontiguousarray(matrix, np.uint8).reshape(-1).view(KEY_DTYPE)


def bytes_from_keys(keys: np.ndarray) -> list[bytes]:
    """Return n keys as bytes objects of 16 bytes; numpy would drop trailing zero bytes."""
    return keys.view(f"V{DIGEST_BYTES}").tolist()


def matrix_from_keys(keys: np.ndarray) -> np.ndarray:
    """Return n keys as a uint8 matrix of shape (n, 16)."""
    return np.ascontiguousarray(keys, KEY_DTYPE).view(np.uint8).reshape(-1, DIGEST_BYTES)


def first_positions_of_keys(keys: np.ndarray) -> np.ndarray:
    """Return the first position of each key, increasing, int64."""
    heads, tails = _keys_as_word_pairs(keys).T
    order = np.lexsort((tails, heads))  # stable: of equal keys the first comes first
    is_first = np.ones(len(order), bool)
    is_first[1:] = (np.diff(heads[order]) != 0) | (np.diff(tails[order]) != 0)
    return np.sort(order[is_first])


def distinct_keys(keys: np.ndarray) -> np.ndarray:
    """Return each key once, in the order of their first positions."""
    return keys[first_positions_of_keys(keys)]


class KeyTable:
    """An immutable map from keys, (n,) S16, to their positions in an array.

    Keys are sorted by their first eight bytes, as integers, which two random digests hardly ever
    share; if they do, the other eight decide. Most keys are looked up in the order of the array; in
    this case nothing is sorted. For a key that occurs more than once, `find` returns any of its
    positions.

    Examples
    --------
    >>> table = KeyTable(np.array([b"b" * 16, b"a" * 16], KEY_DTYPE))
    >>> table.find(np.array([b"a" * 16, b"c" * 16], KEY_DTYPE))
    array([ 1, -1])
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._words = _keys_as_word_pairs(keys)

    def __len__(self) -> int:
        return len(self._words)

    @cached_property
    def _order(self) -> np.ndarray:
        heads, tails = self._words.T
        order = np.argsort(heads)
        in_order = heads[order]
        if (in_order[1:] == in_order[:-1]).any():
            # By both halves, so that equal keys are neighbors.
            order = np.lexsort((tails, heads))
        return order

    @cached_property
    def _heads(self) -> np.ndarray:
        return self._words[self._order, 0]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the position of each key, -1 where it is missing; shape (n,), int64."""
        words = _keys_as_word_pairs(keys)
        start = self._start_of(words)
        if start >= 0:
            return np.arange(start, start + len(words))
        found = np.full(len(words), -1, np.int64)
        heads, tails = np.ascontiguousarray(words.T)
        # Sorted, so that the search accesses the table in order, which the processor caches.
        open_keys = np.argsort(heads)
        places = np.searchsorted(self._heads, heads[open_keys])
        while len(open_keys):
            in_reach = places < len(self)
            open_keys, places = open_keys[in_reach], places[in_reach]
            same_head = self._heads[places] == heads[open_keys]
            open_keys, places = open_keys[same_head], places[same_head]
            same = self._words[self._order[places], 1] == tails[open_keys]
            found[open_keys[same]] = self._order[places[same]]
            open_keys, places = open_keys[~same], places[~same] + 1
        return found

    def repeated(self) -> np.ndarray:
        """Return True for each position whose key occurs more than once, (n,) bool."""
        twice = np.zeros(len(self), bool)
        tails = self._words[self._order, 1]
        alike = (self._heads[1:] == self._heads[:-1]) & (tails[1:] == tails[:-1])
        twice[self._order[1:][alike]] = True
        twice[self._order[:-1][alike]] = True
        return twice

    def _start_of(self, words: np.ndarray) -> int:
        """Return the position from which the table has these keys in a row; -1 if there is none."""
        # Scanning a large table for the first of few keys takes longer than a search for all.
        if not len(words) or len(self) > _LONGEST_SCAN * len(words):
            return -1
        starts = np.flatnonzero(self._words[:, 0] == words[0, 0])
        if len(starts) and np.array_equal(self._words[starts[0] :][: len(words)], words):
            return int(starts[0])
        return -1


def _keys_as_word_pairs(keys: np.ndarray) -> np.ndarray:
    """Return n keys as pairs of eight bytes, shape (n, 2), uint64, without a copy."""
    return np.asarray(keys, KEY_DTYPE)[:, np.newaxis].view(np.uint64)
