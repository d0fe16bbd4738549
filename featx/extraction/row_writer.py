"""RowWriter: a thread that writes rows to the cache during a pass."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from featx._warning import warn_caller
from featx.backbones.resolve import EmbeddingSource
from featx.cache.maintenance import MAX_SHARDS, compact, merge_tiny
from featx.cache.store import SpaceStore, rounded_rows
from featx.digests.keras_graph import Digester
from featx.exceptions import BackboneError, CacheDtypeWarning, CacheWriteWarning

_STORE_EVERY_S = 5.0
_STORE_EVERY_BYTES = 32 * 2**20


class UnchangedCheck:
    """Check that the model of a pass still computes the embeddings of all layers that are stored.

    It hashes each weight once for all layers, and only after rows were computed.
    """

    def __init__(self, sources: Sequence[EmbeddingSource]) -> None:
        self._sources = sources
        self._is_due = False

    def note_rows(self) -> None:
        """Note that rows were computed since the last check."""
        self._is_due = True

    def run(self) -> None:
        """Raise BackboneError if the model was changed."""
        if not self._is_due:
            return
        digester = Digester()
        for source in self._sources:
            source.check_unchanged(digester)
        self._is_due = False


class RowWriter:
    """Store rows every few seconds, and the rest on closing, also after an error.

    A thread writes the rows, so that the network does not wait for the disk. It writes one shard at
    a time, so that at most two are in memory. With None for the store, nothing is stored.

    `check` runs before rows are stored and at the end: where it raises, the rows since its last run
    are dropped.
    """

    def __init__(self, store: SpaceStore | None, check: UnchangedCheck) -> None:
        self.store = store
        self.check = check
        self.bytes_written = 0
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._size_bytes = 0
        self._last_s = time.monotonic()
        self._has_failed = False
        self._n_rows = 0
        self._beyond = _BeyondFloat16()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="featx-row-writer")
        self._pending: Future[int] | None = None

    def __enter__(self) -> RowWriter:
        return self

    def add(self, keys: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Queue rows for storage, and return them as they will be read back.

        They are rounded to the dtype of the store where it can hold them, and must not be changed.
        """
        if self.store is None or not len(keys):
            return rows
        exact, (rows, fits) = rows, rounded_rows(rows, self.store.space.dtype)
        self._n_rows += len(rows)
        if not fits.all():
            self._beyond.add(exact[~fits])
        self._keys.append(keys)
        self._rows.append(rows)
        self._size_bytes += rows.nbytes
        waited_s = time.monotonic() - self._last_s
        if waited_s >= _STORE_EVERY_S or self._size_bytes >= _STORE_EVERY_BYTES:
            self._flush()
        return rows

    def _flush(self) -> None:
        self._await()
        if self.store is None or not self._size_bytes:
            return
        keys, rows = np.concatenate(self._keys), np.concatenate(self._rows)
        self._keys, self._rows, self._size_bytes = [], [], 0
        self.check.run()
        self._pending = self._thread.submit(self._store, self.store, keys, rows)
        self._last_s = time.monotonic()

    @staticmethod
    def _store(store: SpaceStore, keys: np.ndarray, rows: np.ndarray) -> int:
        store.append_together(keys, rows)
        return rows.nbytes

    def _await(self) -> None:
        """Wait until the pending shard is written."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            self.bytes_written += pending.result()
        except OSError as exc:
            # Later shards are tried as well, since the disk may have room again; so one warning.
            if not self._has_failed:
                _warn_not_stored(exc)
            self._has_failed = True

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        with self._thread:
            if self.store is None and error is None:
                self.check.run()
            # The first error is raised, and the rows of a changed model are dropped after it, too.
            dropped = (BackboneError,) if error else ()
            with contextlib.suppress(*dropped):
                self._flush()
            self._await()
        if self.store and self._beyond.n_rows:
            label = self.store.space.label or self.store.space.digest
            warn_caller(CacheDtypeWarning(self._beyond.message(label, n_rows=self._n_rows)))
        if self.store is None or error is not None or not self.bytes_written:
            return
        try:
            merge_tiny(self.store)
            if len(self.store.shards()) > MAX_SHARDS:
                compact(self.store)
        except OSError as exc:
            _warn_not_stored(exc)


class _BeyondFloat16:
    """Range of the rows of a pass that float16 cannot hold."""

    def __init__(self) -> None:
        self.n_rows = 0
        self._largest, self._smallest = 0.0, np.inf

    def add(self, rows: np.ndarray) -> None:
        """Count rows, and update the largest and smallest magnitude."""
        sizes = np.abs(rows[np.isfinite(rows) & (rows != 0)])
        self.n_rows += len(rows)
        self._largest = max(self._largest, float(sizes.max(initial=0.0)))
        self._smallest = min(self._smallest, float(sizes.min(initial=np.inf)))

    def message(self, label: str, *, n_rows: int) -> str:
        """Return a warning of these rows, their space and the range of their values."""
        return (
            f"{self.n_rows} of {n_rows} embeddings of {label} have values that float16 cannot "
            f"hold: their magnitudes range from {self._smallest:.3g} to {self._largest:.3g}, and "
            "float16 holds 6.1e-05 to 65504 with three digits. These rows are kept in float32. If "
            "a space often has such rows, pass EmbeddingCache(dtype='float32')."
        )


def _warn_not_stored(exc: OSError) -> None:
    warn_caller(
        CacheWriteWarning(
            f"the cache cannot be written ({exc}); embeddings are returned but not stored. Free "
            "some space, or pass another folder: cache=PATH, or FEATX_CACHE in the environment."
        )
    )
