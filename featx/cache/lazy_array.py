"""Stored rows as an array that is read when it is asked for: for more than fits in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.cache.store import SpaceStore
from featx.exceptions import MissingRowsError

_BLOCK_BYTES = 64 * 2**20


class LazyRows(ABC):
    """Rows of float32 numbers that are read when they are sliced.

    Attributes
    ----------
    shape : tuple of int
        Number of rows, and of features.
    """

    ndim = 2
    dtype = np.dtype(np.float32)
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return self.size * self.dtype.itemsize

    @abstractmethod
    def __getitem__(self, index: Any) -> np.ndarray:
        """Read rows, or columns of them."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the rows of a view lie on disk: copy=False cannot be had")
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order as (number of the first, rows), 64 MiB at most at once."""
        n_rows = max(1, _BLOCK_BYTES // (self.dtype.itemsize * self.shape[1]))
        for start in range(0, len(self), n_rows):
            yield start, self[start : start + n_rows]

    def map(self, transformer: Any) -> LazyRows:
        """Return a view whose rows a fitted transformer has changed, whenever they are read.

        Parameters
        ----------
        transformer : object
            Has a ``transform``, such as a scaler of scikit-learn that went through the
            :meth:`blocks` with ``partial_fit``, or a :class:`MomentPCA`.

        Returns
        -------
        LazyRows of shape (n_rows, n_features_out), float32

        Examples
        --------
        >>> import tempfile, numpy as np
        >>> from featx import EmbeddingCache, FeatureExtractor
        >>> from sklearn.preprocessing import StandardScaler
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
        >>> cache = EmbeddingCache(tempfile.mkdtemp())
        >>> embeddings = FeatureExtractor("tiny", cache=cache).fit_transform(images)
        >>> view, scaler = cache.open(X=images), StandardScaler()
        >>> for _, rows in view.blocks():
        ...     scaler = scaler.partial_fit(rows)
        >>> bool(np.allclose(view.map(scaler)[:5], scaler.transform(embeddings[:5]), atol=1e-5))
        True
        """
        return _MappedView(self, transformer)


class _MappedView(LazyRows):
    """Rows of another view, changed."""

    def __init__(self, view: LazyRows, transformer: Any) -> None:
        self._view, self._transformer = view, transformer
        self.shape = (len(view), self._changed(view[:1]).shape[1])

    def __repr__(self) -> str:
        return f"{self._view!r}.map({self._transformer!r})"

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        read = self._view[rows]
        if read.ndim == 1:
            return self._changed(read[np.newaxis])[0, columns]
        return self._changed(read)[:, columns]

    def _changed(self, rows: np.ndarray) -> np.ndarray:
        changed = np.asarray(self._transformer.transform(rows), self.dtype)
        return changed if changed.flags.writeable else changed.copy()


class LazyEmbeddings(LazyRows):
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

    def __init__(self, store: SpaceStore, keys: np.ndarray) -> None:
        self._store = store
        self.keys = keys
        self.shape = (len(keys), store.space.n_features)

    def __repr__(self) -> str:
        return f"LazyEmbeddings(shape={self.shape}, space={self._store.space.label!r})"

    @property
    def stored_dtype(self) -> np.dtype:
        """Dtype of the stored rows: float32 if float16 cannot hold some of them."""
        return self._store.stored_dtype(self.keys)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        keys = self.keys[rows]
        if keys.ndim:
            return self._rows(keys)[:, columns]
        return self._rows(self.keys[[rows]])[0, columns]

    def _rows(self, keys: np.ndarray) -> np.ndarray:
        rows, found = self._store.find(keys)
        if not found.all():
            raise MissingRowsError(
                f"{int((~found).sum())} of {len(keys)} rows of the space "
                f"{self._store.space.label or self._store.space.digest} are no longer stored: "
                "transform the samples again"
            )
        return rows
