"""LazyEmbeddings: stored rows as an array, read when it is sliced; it need not fit in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.cache.store import SpaceStore
from featx.exceptions import MissingRowsError

_BLOCK_BYTES = 64 * 2**20


class LazyRows(ABC):
    """Rows of float32 numbers that are read when they are sliced."""

    ndim = 2
    dtype = np.dtype(np.float32)
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Size of all rows in memory, in bytes."""
        return self.size * self.dtype.itemsize

    @abstractmethod
    def __getitem__(self, index: Any) -> np.ndarray:
        """Read rows, or columns of them."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the rows of a lazy array are on disk: copy=False is not possible")
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype, copy=False)

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all rows in order, as (index of the first, rows), at most 64 MiB at once."""
        n_rows = max(1, _BLOCK_BYTES // (self.dtype.itemsize * self.shape[1]))
        for start in range(0, len(self), n_rows):
            yield start, self[start : start + n_rows]

    def map(self, transformer: Any) -> LazyRows:
        """Return a lazy array whose rows a fitted transformer transforms when they are read.

        Parameters
        ----------
        transformer : object
            Fitted object with a ``transform``, such as a scaler of scikit-learn fitted on the
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
        >>> lazy, scaler = cache.open(X=images), StandardScaler()
        >>> for _, rows in lazy.blocks():
        ...     scaler = scaler.partial_fit(rows)
        >>> bool(np.allclose(lazy.map(scaler)[:5], scaler.transform(embeddings[:5]), atol=1e-5))
        True
        """
        return _RowsOfLazyArray(self, transformer)


class _RowsOfLazyArray(LazyRows):
    """Rows of another lazy array, transformed when they are read."""

    def __init__(self, rows: LazyRows, transformer: Any) -> None:
        self._rows, self._transformer = rows, transformer
        self.shape = (len(rows), self._changed(rows[:1]).shape[1])

    def __repr__(self) -> str:
        return f"{self._rows!r}.map({self._transformer!r})"

    def __getitem__(self, index: Any) -> np.ndarray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        read = self._rows[rows]
        if read.ndim == 1:
            return self._changed(read[np.newaxis])[0, columns]
        return self._changed(read)[:, columns]

    def _changed(self, rows: np.ndarray) -> np.ndarray:
        changed = np.asarray(self._transformer.transform(rows), self.dtype)
        return changed if changed.flags.writeable else changed.copy()


class LazyEmbeddings(LazyRows):
    """Embeddings on disk that are sliced like an array.

    :meth:`EmbeddingCache.open` returns such an array. Each row is checked when it is read.

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
    >>> lazy = cache.open(X=images)
    >>> lazy.shape, lazy[1:3].shape, bool((lazy[-1] == embeddings[-1]).all())
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
            return self._read(keys)[:, columns]
        return self._read(self.keys[[rows]])[0, columns]

    def _read(self, keys: np.ndarray) -> np.ndarray:
        rows, found = self._store.find(keys)
        if not found.all():
            raise MissingRowsError(
                f"{int((~found).sum())} of {len(keys)} rows of the space "
                f"{self._store.space.label or self._store.space.digest} are no longer stored: "
                "transform the samples again"
            )
        return rows
