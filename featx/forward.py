"""The pass: each distinct sample that the cache does not hold goes through the backbone, once.

    samples -> keys -> the cache answers what it has -> the rest is decoded in threads, embedded
    in batches, and stored every few seconds -> embeddings in the order of the samples

Whether the backbone runs follows from what is missing; when nothing is, it is not even built.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.utils import Bunch

from featx.exceptions import (
    BadSampleError,
    BadSampleWarning,
    CacheWriteWarning,
    SampleFault,
    describe_faults,
)
from featx.identity.spaces import Space
from featx.networks.backbones import Backbone
from featx.networks.engines import batch_size_for
from featx.networks.resolution import Resolved
from featx.progress import progress_bar
from featx.samples.base import Samples
from featx.samples.file_index import FileIndex
from featx.storage.cache import EmbeddingCache
from featx.storage.compaction import MAX_SHARDS, compact
from featx.storage.store import SpaceStore

_STORE_EVERY_S = 5.0
_STORE_EVERY_BYTES = 32 * 2**20
_SEARCH_S = 10.0
_SEARCH_ROWS = 1024


class PassOptions(NamedTuple):
    """How a pass runs; none of it changes a number.

    Attributes
    ----------
    batch_size : int or "auto"
    n_jobs : int or None
        Threads that decode; None is one per core.
    on_error : {"raise", "nan"}
    verbose : int
    """

    batch_size: Any = "auto"
    n_jobs: int | None = None
    on_error: str = "raise"
    verbose: int | bool = 0


def embed(
    samples: Samples,
    resolved: Resolved,
    cache: EmbeddingCache | None,
    options: PassOptions,
    *,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, Bunch]:
    """Embed samples, running the backbone for those that are missing.

    Parameters
    ----------
    samples : Samples
    resolved : Resolved
        The space, and the way to its backbone.
    cache : EmbeddingCache or None
    options : PassOptions
    out : ndarray of shape (n_samples, n_features), float32, default=None
        Where the embeddings go; None makes an array.

    Returns
    -------
    embeddings : ndarray of shape (n_samples, n_features), float32
        `out`, if it was passed. In the order of the samples; NaN where one could not be read.
    report : Bunch
        What was done; plain data.

    Raises
    ------
    BadSampleError
        Samples could not be read and `on_error` is ``"raise"``. The others were embedded and
        stored, unless the fault was known before the pass.
    """
    store = cache.store(resolved.space) if cache and resolved.is_cacheable else None
    clock = _Clock()
    keys, faults = samples.keys(cache.files if cache else FileIndex(None))
    _store_file_index(cache)
    if faults and options.on_error == "raise":
        faults, n_unseen = _search_faults(samples, keys, faults, resolved, options)
        raise BadSampleError(faults, len(samples), n_unseen=n_unseen)
    clock.lap("identify")
    embeddings, found = _look_up(store, resolved.space, keys, out)
    clock.lap("look_up")

    missing = ~found
    missing[[fault.position for fault in faults]] = False
    missing_rows = np.flatnonzero(missing)
    _, first, inverse = np.unique(keys[missing_rows], return_index=True, return_inverse=True)
    rows = missing_rows[np.sort(first)]
    n_forward = bytes_written = 0
    if len(rows):
        with _RowWriter(store, resolved.space) as writer:
            for done, outputs, bad in _run(samples, rows, resolved, options):
                embeddings[done] = outputs
                writer.add(keys[done], outputs)
                faults += bad
                n_forward += len(done)
        bytes_written = writer.bytes_written
        twins = missing_rows != missing_rows[first[inverse]]
        embeddings[missing_rows[twins]] = embeddings[missing_rows[first[inverse[twins]]]]
        faults = _with_twins(faults, samples, keys)
    clock.lap("forward")
    _report_faults(faults, len(samples), options.on_error)
    return embeddings, Bunch(
        n_samples=len(samples),
        n_hits=int(found.sum()),
        n_forward=n_forward,
        seconds=clock.seconds,
        bytes_read=int(found.sum()) * embeddings.itemsize * embeddings.shape[1],
        bytes_written=bytes_written,
        engine="keras" if n_forward else None,
    )


def _search_faults(
    samples: Samples,
    keys: np.ndarray,
    faults: list[SampleFault],
    resolved: Resolved,
    options: PassOptions,
) -> tuple[list[SampleFault], int]:
    """Decode the other samples too, for some seconds: whoever mends files wants to know all.

    Returns
    -------
    faults : list of SampleFault
    n_unseen : int
        Samples for which there was no time.
    """
    start_s = time.monotonic()
    healthy = np.flatnonzero(keys)
    n_seen = 0
    while n_seen < len(healthy) and time.monotonic() - start_s < _SEARCH_S:
        rows = healthy[n_seen : n_seen + _SEARCH_ROWS]
        for _, _, bad in _loaded(samples, rows, resolved.input_shape, _SEARCH_ROWS // 16, options):
            faults = faults + bad
        n_seen += len(rows)
    return _with_twins(faults, samples, keys), len(healthy) - n_seen


def _loaded(
    samples: Samples,
    rows: np.ndarray,
    shape: tuple[int, ...],
    batch_size: int,
    options: PassOptions,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[SampleFault]]]:
    """Load samples batch by batch, in threads that run ahead: see :meth:`Samples.batch`."""
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    n_jobs = options.n_jobs if options.n_jobs is not None else joblib.cpu_count()
    threads = joblib.Parallel(n_jobs=n_jobs, backend="threading", return_as="generator")
    return threads(joblib.delayed(samples.batch)(batch, shape) for batch in batches)


def _look_up(
    store: SpaceStore | None, space: Space, keys: np.ndarray, out: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if store is not None:
        embeddings, found = store.find(keys, out=out)
        store.note_use(n_hits=int(found.sum()))
        return embeddings, found
    embeddings = np.empty((len(keys), space.n_features), np.float32) if out is None else out
    embeddings[:] = np.nan
    return embeddings, np.zeros(len(keys), bool)


def _run(
    samples: Samples, rows: np.ndarray, resolved: Resolved, options: PassOptions
) -> Iterator[tuple[np.ndarray, np.ndarray, list[SampleFault]]]:
    """Yield (rows, embeddings, faults) batch by batch; threads decode ahead of the backbone."""
    backbone: Backbone = resolved.build()
    shape = backbone.input_shape
    batch_size = batch_size_for(shape) if options.batch_size == "auto" else options.batch_size
    loading = _loaded(samples, rows, shape, batch_size, options)
    with progress_bar("embedding", total=len(rows), verbose=options.verbose) as advance:
        for done, inputs, faults in loading:
            outputs = np.empty((0, resolved.space.n_features), resolved.space.dtype)
            if len(done):
                engine = backbone.engine(inputs.dtype.name, batch_size)
                outputs = engine.run(inputs).reshape(len(done), -1)
                # What is stored in float16 is rounded the first time as well.
                outputs = outputs.astype(resolved.space.dtype, copy=False)
            advance(len(done) + len(faults))
            yield done, outputs, faults


def _with_twins(faults: list[SampleFault], samples: Samples, keys: np.ndarray) -> list[SampleFault]:
    """Add the samples that have the very content of a faulty one."""
    reasons = {keys[fault.position]: fault.reason for fault in faults if keys[fault.position]}
    known = {fault.position for fault in faults}
    twins = [
        samples.fault(row, reasons[keys[row]])
        for row in np.flatnonzero(np.isin(keys, list(reasons))).tolist()
        if row not in known
    ]
    return sorted([*faults, *twins])


def _report_faults(faults: list[SampleFault], n_samples: int, on_error: str) -> None:
    if faults and on_error == "raise":
        raise BadSampleError(faults, n_samples)
    if faults:
        warnings.warn(
            BadSampleWarning(f"{describe_faults(faults, n_samples)}\nTheir rows are NaN."),
            stacklevel=4,
        )


def _store_file_index(cache: EmbeddingCache | None) -> None:
    if cache is None:
        return
    try:
        cache.files.flush()
    except OSError as exc:
        if cache.files.is_first_failure():
            warnings.warn(
                CacheWriteWarning(
                    f"what files contain cannot be remembered ({exc}): they are read again the "
                    "next time. Pass another folder: cache=PATH, or FEATX_CACHE."
                ),
                stacklevel=4,
            )


def _warn_not_stored(exc: OSError) -> None:
    warnings.warn(
        CacheWriteWarning(
            f"the cache cannot be written ({exc}); embeddings are returned but not kept. Free "
            "some space, or pass another folder: cache=PATH, or FEATX_CACHE in the environment."
        ),
        stacklevel=5,
    )


class _Clock:
    """Notes how long each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._start = now - self._start, now


@dataclass(eq=False)
class _RowWriter:
    """Stores rows every few seconds, and what is left when it is closed, whatever happened."""

    store: SpaceStore | None
    space: Space
    bytes_written: int = 0

    def __post_init__(self) -> None:
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._size_bytes = 0
        self._last_s = time.monotonic()
        self._has_failed = False

    def __enter__(self) -> _RowWriter:
        return self

    def add(self, keys: np.ndarray, rows: np.ndarray) -> None:
        if self.store is None:
            return
        self._keys.append(keys)
        self._rows.append(rows)
        self._size_bytes += rows.nbytes
        waited_s = time.monotonic() - self._last_s
        if waited_s >= _STORE_EVERY_S or self._size_bytes >= _STORE_EVERY_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self.store is None or not self._size_bytes:
            return
        try:
            self.store.append(np.concatenate(self._keys), np.concatenate(self._rows))
            self.bytes_written += self._size_bytes
        except OSError as exc:
            # What comes later may find room again; the warning is given once.
            if not self._has_failed:
                _warn_not_stored(exc)
            self._has_failed = True
        self._keys, self._rows, self._size_bytes = [], [], 0
        self._last_s = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flush()
        if self.store is not None and error is None and len(self.store.shards()) > MAX_SHARDS:
            try:
                compact(self.store)
            except OSError as exc:
                _warn_not_stored(exc)
