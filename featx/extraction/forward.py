"""The pass: each distinct sample that the cache does not hold goes through the backbone, once.

    samples -> keys -> the cache answers what it has -> the rest is decoded in threads, embedded
    in batches, and stored every few seconds -> embeddings in the order of the samples

Whether the backbone runs follows from what is missing; when nothing is, it is not even built. One
pass may store several layers: a sample goes through if any of them lacks it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from featx._progress import progress_bar
from featx._threads import Prefetcher
from featx._warning import warn_caller
from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.cache.store import SpaceStore
from featx.digests.key_table import first_places, keys_from
from featx.digests.space import Space
from featx.engines.runner import Runner
from featx.exceptions import BadSampleError, CacheWriteWarning, SampleFault
from featx.extraction.engines import make_runner
from featx.extraction.faults import check_finite, report_faults, search_faults, with_duplicates
from featx.extraction.frontier import StoredFrontier
from featx.extraction.load import DistinctRows, KnownRows, Loaded, LoadedFeed, Rows, load
from featx.extraction.write import RowWriter
from featx.inputs.file_index import FileIndex
from featx.inputs.samples import Identified, Identities, ReadBlock, Samples

_STORE_FILES_EVERY_S = 5.0
_IDENTIFY_FAULTY_S = 10.0


class PassOptions(NamedTuple):
    """How a pass runs; none of it changes a number.

    Attributes
    ----------
    batch_size : int or "auto"
    engine : {"auto", "keras", "openvino", "onnx"}
    n_jobs : int or None
        Threads that decode; None is one per core.
    on_error : {"raise", "nan"}
    verbose : int or callable
    """

    batch_size: Any = "auto"
    engine: str = "auto"
    n_jobs: int | None = None
    on_error: str = "raise"
    verbose: int | bool | Callable[[int, int], object] = 0


def embed(
    samples: Samples,
    resolved: EmbeddingSource,
    cache: EmbeddingCache | None,
    options: PassOptions,
    *,
    also: Sequence[EmbeddingSource] = (),
    frontier: StoredFrontier | None = None,
    out: np.ndarray | None = None,
) -> tuple[np.ndarray, Bunch]:
    """Embed samples, running the backbone for those that are missing.

    Parameters
    ----------
    samples : Samples
    resolved : EmbeddingSource
        The space, and the way to its backbone.
    cache : EmbeddingCache or None
    options : PassOptions
    also : sequence of EmbeddingSource
        Other layers and poolings of the same backbone, to be stored as well.
    frontier : StoredFrontier, default=None
        Where the backbone can be entered.
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
        Samples could not be read and `on_error` is ``"raise"``. None was embedded if that was known
        before the pass, and all others if decoding showed it. Where samples are identified while
        the pass goes on, those were that had gone through when it was met. They are stored.
    """
    clock = _Clock()
    store = cache.store(resolved.space) if cache and resolved.is_cacheable else None
    others = [(other, cache.store(other.space)) for other in also] if cache and store else []
    stores = [their for _, their in [(resolved, store), *others] if their is not None]
    is_all_missing = not frontier and not any(their.shards() for their in stores)
    blocks = samples.read(
        resolved.input_shape, is_wanted=partial(_is_lacking, stores), n_jobs=options.n_jobs
    )
    n_above = 0
    if blocks is not None:
        clock.lap("identify")
        embeddings, found = _nothing_found(resolved.space, len(samples), out)
        lacks = np.ones((1 + len(others), len(samples)), bool)
        taps = [
            _Tap(one, RowWriter(its), lacking)
            for (one, its), lacking in zip([(resolved, store), *others], lacks, strict=True)
        ]
        clock.lap("look_up")
        reading = _Reading(samples, blocks, taps, embeddings, found)
        if cache and store and frontier:
            reading.enter_above = partial(_embed_above, frontier, taps[0], samples, cache)
        new, n_forward, runner = _embed_as_read(reading, cache, options)
        known, n_above = reading.identities, reading.n_above
        clock.lap("forward")
    else:
        with _identified(samples, cache, options, ahead=is_all_missing) as distinct:
            known = distinct.identities
            keys = known.keys
            _check_identified(samples, distinct, resolved.input_shape, options)
            clock.lap("identify")
            embeddings, found = _look_up(store, resolved.space, keys, out)
            taps = [_Tap(resolved, RowWriter(store), ~found)]
            if cache and store and frontier:
                n_above = _embed_above(
                    frontier, taps[0], samples, cache, keys, embeddings, np.flatnonzero(~found)
                )
            taps += [_Tap(other, RowWriter(their), ~their.holds(keys)) for other, their in others]
            clock.lap("look_up")
            new, n_forward, runner = _embed_missing(
                samples, distinct, taps, cache, options, embeddings
            )
            _check_identified(samples, distinct, resolved.input_shape, options, new)
            clock.lap("forward")
    # What another layer lacks, and cannot be read any more, is no fault of these rows.
    faults = sorted(known.faults + [one for one in new if not found[one.position]])
    report_faults(faults, len(samples), options.on_error)
    return embeddings, Bunch(
        n_samples=len(samples),
        n_unread=len(faults),
        n_hits=int(found.sum()),
        n_forward=n_forward,
        n_above_frontier=n_above,
        seconds=clock.seconds,
        bytes_read=int(found.sum()) * embeddings.itemsize * embeddings.shape[1],
        bytes_written=sum(tap.writer.bytes_written for tap in taps),
        engine=" + ".join(runner.engines) if runner and runner.engines else None,
        batch_size=runner.batch_size if runner else None,
    )


@contextlib.contextmanager
def _identified(
    samples: Samples, cache: EmbeddingCache | None, options: PassOptions, *, ahead: bool
) -> Iterator[DistinctRows]:
    """Identify samples: all of them first, or ahead of the pass where `ahead` says that it pays."""
    files = cache.files if cache else FileIndex(None)
    started = samples.start_identifying(files) if ahead else None
    with contextlib.ExitStack() as stack:
        stack.callback(_store_file_index, cache)
        if started is None:
            blocks = iter([Identified(slice(0, len(samples)), *samples.keys(files))])
        else:
            stack.callback(started.close)
            blocks = _remembered(started, len(samples), cache)
        distinct = DistinctRows(
            blocks, n_samples=len(samples), ends_at_fault=options.on_error == "raise"
        )
        if started is None or started.wait(seconds=0):
            distinct.identify_all()
            _store_file_index(cache)
        yield distinct


def _remembered(
    started: Prefetcher[Identified], n_samples: int, cache: EmbeddingCache | None
) -> Iterator[Identified]:
    """Pass blocks on; what was learnt of files is stored every few seconds, and once all is."""
    last_s = time.monotonic()
    for block in started:
        is_last = block.rows.stop == n_samples
        if is_last or time.monotonic() - last_s >= _STORE_FILES_EVERY_S:
            _store_file_index(cache)
            last_s = time.monotonic()
        yield block


def _check_identified(
    samples: Samples,
    distinct: DistinctRows,
    shape: tuple[int, ...],
    options: PassOptions,
    found: Sequence[SampleFault] = (),
) -> None:
    """Raise an error for what is known to be at fault, those `found` in the pass included.

    The other samples are identified and decoded for some seconds, so that all faults can be told.
    """
    identities = distinct.identities
    if not identities.faults or options.on_error != "raise":
        return
    distinct.identify_for(_IDENTIFY_FAULTY_S)
    faults, n_unseen = search_faults(
        samples, identities.keys, [*identities.faults, *found], shape=shape, n_jobs=options.n_jobs
    )
    n_unseen += len(samples) - identities.n_known
    raise BadSampleError(faults, len(samples), n_unseen=n_unseen)


class _Tap(NamedTuple):
    """A layer whose embeddings a pass stores.

    Attributes
    ----------
    resolved : EmbeddingSource
    writer : RowWriter
    lacks : ndarray of shape (n_samples,), bool
        Of which samples it has no row.
    """

    resolved: EmbeddingSource
    writer: RowWriter
    lacks: np.ndarray


def _embed_above(
    frontier: StoredFrontier,
    tap: _Tap,
    samples: Samples,
    cache: EmbeddingCache,
    keys: np.ndarray,
    embeddings: np.ndarray,
    missing: np.ndarray,
) -> int:
    """Fill in and store what can be had from stored activations; return how many rows that is."""
    missing = missing[frontier.holds(cache, keys[missing])]
    if not len(missing):
        return 0
    with RowWriter(tap.writer.store) as writer:
        for places, rows in frontier.embed(tap.resolved.load_backbone(), cache, keys[missing]):
            done = missing[places]
            check_finite(done, rows, samples, [tap.resolved])
            embeddings[done] = writer.add(keys[done], rows)
            tap.lacks[done] = False
    return int(len(missing) - tap.lacks[missing].sum())


def _embed_missing(
    samples: Samples,
    distinct: DistinctRows,
    taps: Sequence[_Tap],
    cache: EmbeddingCache | None,
    options: PassOptions,
    embeddings: np.ndarray,
) -> tuple[list[SampleFault], int, Runner | None]:
    """Run the backbone for what any tap lacks; fill in the embeddings of the first.

    Returns
    -------
    faults : list of SampleFault
        Those that were found on the way, not when samples were identified.
    n_forward : int
    runner : Runner or None
        None if nothing was missing.
    """
    missing = np.any([tap.lacks for tap in taps], axis=0)
    missing[[fault.position for fault in distinct.identities.faults]] = False
    missing_rows = np.flatnonzero(missing)
    if not len(missing_rows):
        return [], 0, None
    keys = distinct.identities.keys
    rows: Rows = distinct
    if distinct.are_known:
        rows = KnownRows(missing_rows[first_places(keys[missing_rows])])
    runner = make_runner(
        [tap.resolved for tap in taps],
        n_samples=rows.n_expected,
        engine=options.engine,
        batch_size=options.batch_size,
        cache=cache,
    )
    found: list[SampleFault] = []
    n_forward = 0
    with contextlib.ExitStack() as stack:
        for tap in taps:
            stack.enter_context(tap.writer)
        shape = taps[0].resolved.input_shape
        n_samples = rows.n_untaken
        groups = load(
            samples, rows, shape, batch_size=lambda: runner.batch_size, n_jobs=options.n_jobs
        )
        stack.enter_context(contextlib.closing(groups))
        feed = LoadedFeed(groups, n_expected=lambda: rows.n_expected)
        for done, outputs in _run(feed, runner, options, found, n_samples=n_samples):
            check_finite(done, outputs, samples, [tap.resolved for tap in taps])
            _keep(done, outputs, taps, keys, embeddings)
            n_forward += len(done)
    if n_forward + len(found) < len(missing_rows):
        _fill_in_duplicates(embeddings, keys, missing_rows, taps[0].lacks)
    return with_duplicates(found, samples, keys), n_forward, runner


def _fill_in_duplicates(
    embeddings: np.ndarray, keys: np.ndarray, rows: np.ndarray, lacks: np.ndarray
) -> None:
    """Copy the embeddings of those rows that went through to those of the same content."""
    _, first, inverse = np.unique(keys[rows], return_index=True, return_inverse=True)
    repeated = (rows != rows[first[inverse]]) & lacks[rows]
    embeddings[rows[repeated]] = embeddings[rows[first[inverse[repeated]]]]


def _keep(
    done: np.ndarray,
    outputs: np.ndarray,
    taps: Sequence[_Tap],
    keys: np.ndarray,
    embeddings: np.ndarray,
) -> None:
    """Return the rows of the first tap, and hand those of each to its writer."""
    ends = np.cumsum([tap.resolved.space.n_features for tap in taps])
    for number, (tap, columns) in enumerate(
        zip(taps, np.split(outputs, ends[:-1], axis=1), strict=True)
    ):
        lacking: Any = tap.lacks[done]
        if lacking.all():
            lacking = slice(None)  # which copies nothing
        # What is stored in float16 is rounded the first time as well.
        stored = tap.writer.add(keys[done[lacking]], columns[lacking])
        if number == 0:
            embeddings[done[lacking]] = stored


def _look_up(
    store: SpaceStore | None, space: Space, keys: np.ndarray, out: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if store is not None:
        embeddings, found = store.find(keys, out=out)
        store.note_use(n_hits=int(found.sum()))
        return embeddings, found
    return _nothing_found(space, len(keys), out)


def _nothing_found(
    space: Space, n_samples: int, out: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    embeddings = np.empty((n_samples, space.n_features), np.float32) if out is None else out
    embeddings[:] = np.nan
    return embeddings, np.zeros(n_samples, bool)


def _is_lacking(stores: Sequence[SpaceStore], key: bytes) -> bool:
    """Return True if any store lacks a key, or if there is no store."""
    keys = keys_from([key], count=1)
    return not stores or not all(store.holds(keys)[0] for store in stores)


class _Reading:
    """Samples that are identified, looked up and loaded in one pass, each read once.

    Parameters
    ----------
    samples : Samples
    blocks : iterator of ReadBlock
        See :meth:`Samples.read`.
    taps : sequence of _Tap
        Layers to store, with `lacks` all True; it becomes False for samples that are found.
    embeddings : ndarray of shape (n_samples, n_features), float32
        Embeddings of the first tap, into which stored rows are filled.
    found : ndarray of shape (n_samples,), bool
        All False; becomes True for samples that the store of the first tap holds.

    Attributes
    ----------
    identities : Identities
        Keys and faults of the samples read so far.
    n_above : int
        Number of samples that were computed from stored activations.
    enter_above : callable or None
        Function ``(keys, embeddings, rows) -> count`` that fills in embeddings from stored
        activations.
    """

    def __init__(
        self,
        samples: Samples,
        blocks: Iterator[ReadBlock],
        taps: Sequence[_Tap],
        embeddings: np.ndarray,
        found: np.ndarray,
    ) -> None:
        self.samples, self.taps, self.embeddings, self.found = samples, taps, embeddings, found
        self.identities = Identities(len(samples))
        self.n_above = 0
        self.enter_above: Callable[[np.ndarray, np.ndarray, np.ndarray], int] | None = None
        self._blocks = blocks
        self._seen = {b""}  # keys so far; unreadable samples have this one
        self._n_missing = 0

    @property
    def n_expected(self) -> int:
        """Number of samples for the network, extrapolated from those read so far."""
        n_read = self.identities.n_known
        n_unread = len(self.samples) - n_read
        return self._n_missing + (n_unread * self._n_missing // n_read if n_read else n_unread)

    def groups(self) -> Generator[Loaded]:
        """Yield the rows and inputs of missing samples, and fill in stored rows.

        Yields
        ------
        rows, inputs, faults
            See :meth:`Samples.batch`.
        """
        shape = self.taps[0].resolved.input_shape
        for block in self._blocks:
            self.identities.add(block.identified)
            rows = self._look_up(self._new_rows(block.identified.rows))
            self._n_missing += len(rows)
            is_missing = np.isin(block.loaded, rows)
            yield block.loaded[is_missing], block.inputs[is_missing], []
            damaged = np.setdiff1d(rows, block.loaded)  # samples, or rows of the cache
            if len(damaged):
                yield self.samples.batch(damaged, shape)

    def _new_rows(self, rows: slice) -> np.ndarray:
        """Return the rows whose content no earlier sample has."""
        is_new = []
        for key in self.identities.keys[rows].tolist():
            is_new.append(key not in self._seen)
            self._seen.add(key)
        return rows.start + np.flatnonzero(is_new)

    def _look_up(self, rows: np.ndarray) -> np.ndarray:
        """Fill in stored rows; return those that need the network."""
        if not len(rows):
            return rows
        keys = self.identities.keys
        first = self.taps[0]
        if first.writer.store is not None:
            stored, is_stored = first.writer.store.find(keys[rows])
            self.embeddings[rows[is_stored]] = stored[is_stored]
            self.found[rows], first.lacks[rows] = is_stored, ~is_stored
        if self.enter_above:
            missing = rows[first.lacks[rows]]
            self.n_above += self.enter_above(keys, self.embeddings, missing)
        for tap in self.taps[1:]:
            if tap.writer.store is not None:
                tap.lacks[rows] = ~tap.writer.store.holds(keys[rows])
        return rows[np.any([tap.lacks[rows] for tap in self.taps], axis=0)]

    def fill_in_duplicates(self) -> None:
        """Copy embeddings to duplicates, the samples of the same content."""
        keys = self.identities.keys
        rows = np.flatnonzero(keys)
        _fill_in_duplicates(self.embeddings, keys, rows, self.taps[0].lacks)
        _, first, inverse = np.unique(keys[rows], return_index=True, return_inverse=True)
        self.found[rows] = self.found[rows[first]][inverse]


def _embed_as_read(
    reading: _Reading, cache: EmbeddingCache | None, options: PassOptions
) -> tuple[list[SampleFault], int, Runner | None]:
    """Run the backbone for what any tap lacks while samples are read: see `_embed_missing`."""
    samples, taps = reading.samples, reading.taps
    found: list[SampleFault] = []
    n_forward, runner = 0, None
    with contextlib.ExitStack() as stack:
        groups = stack.enter_context(contextlib.closing(reading.groups()))
        first = next((group for group in groups if len(group[0]) or group[2]), None)
        if first is not None:
            runner = make_runner(
                [tap.resolved for tap in taps],
                n_samples=reading.n_expected,
                engine=options.engine,
                batch_size=options.batch_size,
                cache=cache,
            )
            for tap in taps:
                stack.enter_context(tap.writer)
            feed = LoadedFeed(
                itertools.chain([first], groups), n_expected=lambda: reading.n_expected
            )
            for done, outputs in _run(feed, runner, options, found, n_samples=len(samples)):
                check_finite(done, outputs, samples, [tap.resolved for tap in taps])
                _keep(done, outputs, taps, reading.identities.keys, reading.embeddings)
                n_forward += len(done)
    reading.fill_in_duplicates()
    if (store := taps[0].writer.store) is not None:
        store.note_use(n_hits=int(reading.found.sum()))
    return with_duplicates(found, samples, reading.identities.keys), n_forward, runner


def _run(
    feed: LoadedFeed,
    runner: Runner,
    options: PassOptions,
    faults: list[SampleFault],
    *,
    n_samples: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, embeddings) batch by batch, and gather faults; threads decode ahead."""
    with progress_bar("embedding", total=n_samples, verbose=options.verbose) as advance:
        n_done = 0
        for done, outputs in runner.run(feed):
            yield done, outputs.reshape(len(done), -1)
            n_done += len(done)
            advance(len(done))  # which may end the pass: what is told is kept
        if n_done < n_samples:  # the others are faulty, or the same as one before
            advance(n_samples - n_done)
    faults += feed.faults


def _store_file_index(cache: EmbeddingCache | None) -> None:
    if cache is None:
        return
    try:
        cache.files.flush()
    except OSError as exc:
        if cache.files.is_first_failure():
            warn_caller(
                CacheWriteWarning(
                    f"what files contain cannot be remembered ({exc}): they are read again the "
                    "next time. Pass another folder: cache=PATH, or FEATX_CACHE."
                )
            )


class _Clock:
    """Notes how long each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.seconds[stage], self._start = now - self._start, now
