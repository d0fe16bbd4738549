"""Stored rows as an array that is read when it is asked for: for more than fits in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.exceptions import MissingRowsError
from featx.storage.store import SpaceStore

_BLOCK_BYTES = 64 * 2**20


class EmbeddingView:
    """Embeddings on disk that are sliced like an array.

    Made by :meth:`EmbeddingCache.open`. Each row that is handed out was checked.

    Parameters
    ----------
    store : SpaceStore
    keys : ndarray of shape (n_rows,), dtype S16

    Attributes
    ----------
    keys : ndarray of shape (n_rows,), dtype S16
        Digests of the samples, in the order of the rows.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from featx import EmbeddingCache, FeatureExtractor
    >>> images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    >>> cache = EmbeddingCache(tempfile.mkdtemp())
    >>> embeddings = FeatureExtractor("tiny", cache=cache).fit_transform(images)
    >>> view = cache.open(X=images)
    >>> view.shape, view[1:3].shape, bool((view[-1] == embeddings[-1]).all())
    ((5, 400), (2, 400), True)
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, store: SpaceStore, keys: np.ndarray) -> None:
        self._store = store
        self.keys = keys

    def __repr__(self) -> str:
        return f"EmbeddingView(shape={self.shape}, space={self._store.space.label!r})"

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows, and of features."""
        return len(self.keys), self._store.space.n_features

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        keys = self.keys[rows]
        if keys.ndim:
            return self._rows(keys)[:, columns]
        return self._rows(self.keys[[rows]])[0, columns]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the rows of a view lie on disk: copy=False cannot be had")
        rows = self._rows(self.keys)
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order as (number of the first, rows), 64 MiB at most at once."""
        n_rows = max(1, _BLOCK_BYTES // (self.dtype.itemsize * self.shape[1]))
        for start in range(0, len(self), n_rows):
            yield start, self[start : start + n_rows]

    def _rows(self, keys: np.ndarray) -> np.ndarray:
        rows, found = self._store.find(keys)
        if not found.all():
            raise MissingRowsError(
                f"{int((~found).sum())} of {len(keys)} rows of the space "
                f"{self._store.space.label or self._store.space.digest} are no longer stored: "
                "transform the samples again"
            )
        return rows
