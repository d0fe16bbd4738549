"""Many 16-byte digests, looked up many at a time.

Digests travel as numpy arrays of dtype ``S16``. Comparing such strings pads with zero bytes, which
orders digests of one fixed width correctly, so sorting and binary search are numpy's own: 100,000
look-ups among 1,000,000 keys take tens of milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from featx._hashing import DIGEST_BYTES

KEY_DTYPE = np.dtype(f"S{DIGEST_BYTES}")


def keys_from(digests: Iterable[bytes], *, count: int) -> np.ndarray:
    """Pack digests into an array of keys, shape (count,), dtype ``S16``."""
    return np.fromiter(digests, KEY_DTYPE, count=count)


def keys_from_matrix(matrix: np.ndarray) -> np.ndarray:
    """View a uint8 matrix of shape (n, 16) as n keys."""
    return np.ascontiguousarray(matrix, np.uint8).reshape(-1).view(KEY_DTYPE)


def matrix_from_keys(keys: np.ndarray) -> np.ndarray:
    """View n keys as a uint8 matrix of shape (n, 16)."""
    return np.ascontiguousarray(keys, KEY_DTYPE).view(np.uint8).reshape(-1, DIGEST_BYTES)


class KeyTable:
    """An immutable map from keys to the position at which each was given.

    Parameters
    ----------
    keys : ndarray of shape (n,), dtype S16
        May hold a key more than once; any of its positions is then a right answer.

    Examples
    --------
    >>> table = KeyTable(np.array([b"b" * 16, b"a" * 16], KEY_DTYPE))
    >>> table.find(np.array([b"a" * 16, b"c" * 16], KEY_DTYPE))
    array([ 1, -1])
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def __len__(self) -> int:
        return len(self._sorted)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the position of each key, -1 where it is missing; shape (n,), int64."""
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        places = np.searchsorted(self._sorted, keys)
        places[places == len(self)] = 0
        return np.where(self._sorted[places] == keys, self._order[places], -1)
