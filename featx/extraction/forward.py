"""ForwardPass: each distinct sample without a row in the cache goes through the backbone.

    samples -> keys -> stored rows are read from the cache -> the missing ones are decoded in
    threads, embedded in batches, and stored every few seconds -> embeddings in the order of the
    samples

If no row is missing, the backbone is not even built. A pass may store several layers: a sample goes
through the backbone if a row of any of them is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from featx._progress import activity, progress_bar, show_activities
from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.cache.store import SpaceStore
from featx.digests.sketch import sketch_of
from featx.engines.runner import Runner
from featx.exceptions import SampleFault
from featx.extraction.engine_cache import PassEngines
from featx.extraction.faults import report_faults
from featx.extraction.frontier import FrontierEntry, StoredFrontier
from featx.extraction.missing import LayerOutput, MissingRows, PassSettings, find_missing
from featx.extraction.prefetch import LoadedFeed
from featx.extraction.row_writer import RowWriter, UnchangedCheck
from featx.inputs.augmented import Augmenter, augmented_views
from featx.inputs.file_index import FileIndex
from featx.inputs.samples import Samples

_COUNTS = ("n_unread", "n_hits", "n_forward", "n_above_frontier", "bytes_read", "bytes_written")


class ForwardPass:
    """Embed samples, and augmented views of them, with one backbone and one cache.

    The embeddings of the first source are returned; those of the others, which are layers and
    poolings of the same backbone, are stored as well. At the `frontier`, the backbone can be
    entered with stored activations.
    """

    def __init__(
        self,
        sources: Sequence[EmbeddingSource],
        cache: EmbeddingCache | None,
        settings: PassSettings,
        *,
        frontier: StoredFrontier | None = None,
    ) -> None:
        self._cache, self._settings = cache, settings
        self._files = cache.files if cache else FileIndex(None)
        self._stores: list[tuple[EmbeddingSource, SpaceStore | None]] = [(sources[0], None)]
        self._entry: FrontierEntry | None = None
        if cache and sources[0].is_cacheable:
            self._stores = [(source, cache.store(source.space)) for source in sources]
            self._entry = FrontierEntry(frontier, sources[0], cache) if frontier else None
        self._faults: list[SampleFault] = []
        self._seconds = dict.fromkeys(("identify", "look_up", "forward", "convert"), 0.0)
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._lap_start_s = 0.0
        self._n_samples: int | None = None
        self._sample_digests: list[int] = []
        self._engine: str | None = None
        self._batch_size: int | None = None

    def embed(self, samples: Samples, *, out: np.ndarray | None = None) -> np.ndarray:
        """Embed samples, running the backbone for those that are missing.

        Return `out` or a new array (n_samples, n_features), float32, in the order of the samples,
        with NaN where one could not be read.

        If `on_error` is ``"raise"``, such a sample raises BadSampleError. If identifying found the
        fault before the pass, nothing was embedded. If decoding found it, all other samples were
        embedded and stored. If samples were identified during the pass, those that went through
        before the fault were.
        """
        with self.find(samples, out=out) as missing:
            self.run(missing)
        return missing.embeddings

    @contextlib.contextmanager
    def find(self, samples: Samples, *, out: np.ndarray | None = None) -> Iterator[MissingRows]:
        """Identify samples, read stored rows, and yield the missing ones: see :meth:`embed`."""
        self._lap_start_s = time.perf_counter()
        check = UnchangedCheck([source for source, _ in self._stores])
        outputs = [
            LayerOutput(source, RowWriter(store, check), len(samples))
            for source, store in self._stores
        ]
        missing = find_missing(samples, outputs, self._settings, self._entry, self._files)
        with contextlib.closing(missing):
            missing.identify()
            self._lap("identify")
            missing.look_up(out)
            self._lap("look_up")
            yield missing

    def run(self, missing: MissingRows) -> None:
        """Run the backbone for missing rows, store them, and fill in the embeddings."""
        engines: PassEngines | None = None
        runner: Runner | None = None
        faults: list[SampleFault] = []
        n_forward = 0
        if not missing.is_empty():
            engines = PassEngines(missing.sources, self._settings.engine, self._cache)
            runner = engines.runner(missing.n_expected, self._settings.batch_size)
            with (
                show_activities(self._settings.verbose),
                activity(f"embedding {missing.n_expected} samples"),
            ):
                n_forward, faults = self._forward(missing, runner)
        self._faults = missing.complete(faults, n_forward)
        self._lap("forward")
        if engines and any(output.writer.bytes_written for output in missing.outputs):
            with show_activities(self._settings.verbose):
                engines.store_graphs()
            self._lap("convert")
        report_faults(self._faults, len(missing.samples), self._settings.on_error)
        self._count(missing, runner, n_forward)

    def embed_views(
        self,
        samples: Samples,
        augmenter: Augmenter | None,
        n_views: int,
        *,
        out: np.ndarray | None = None,
    ) -> Iterator[tuple[int, Any, np.ndarray]]:
        """Embed samples, then their augmented views: all views of some samples at a time.

        `augmenter` is None if `n_views`, the number of embeddings of each sample with its own, is
        1. `out` takes the embeddings of the samples themselves.

        Yield the number of the view, 0 for the sample itself; the rows of samples, without those
        that cannot be read; and the embeddings (m, n_features), float32, which the caller may
        change. Those of samples that cannot be read are NaN.
        """
        yield 0, slice(None), self.embed(samples, out=out)
        if augmenter is None:
            return
        unread = [fault.position for fault in self._faults]
        readable = np.setdiff1d(np.arange(len(samples)), unread)
        keys = samples.keys(self._files)[0][readable]
        for rows, changed in augmented_views(samples, readable, keys, augmenter, n_views - 1):
            views = self.embed(changed).reshape(len(rows), n_views - 1, -1)
            for number in range(1, n_views):
                yield number, rows, views[:, number - 1]

    @property
    def report(self) -> Bunch:
        """Counts and times of the pass so far, augmented views included."""
        return Bunch(
            n_samples=self._n_samples,
            **self._counts,
            sample_digests=self._sample_digests,
            seconds=dict(self._seconds),
            engine=self._engine,
            batch_size=self._batch_size,
        )

    def _forward(self, missing: MissingRows, runner: Runner) -> tuple[int, list[SampleFault]]:
        """Return how many samples went through, and the faults of those that could not be read."""
        n_forward, n_total = 0, missing.n_total
        with contextlib.ExitStack() as stack:
            for output in missing.outputs:
                stack.enter_context(output.writer)
            groups = missing.load(lambda: runner.batch_size)
            stack.enter_context(contextlib.closing(groups))
            feed = LoadedFeed(groups, n_expected=lambda: missing.n_expected)
            bar = progress_bar("embedding", total=n_total, verbose=self._settings.verbose)
            advance = stack.enter_context(bar)
            for rows, outputs in runner.run(feed):
                missing.keep(rows, outputs.reshape(len(rows), -1))
                n_forward += len(rows)
                advance(len(rows))  # last, since a callback may raise: counted rows are kept
            if n_forward < n_total:  # the others are faulty, or duplicates of earlier samples
                advance(n_total - n_forward)
        return n_forward, feed.faults

    def _lap(self, stage: str) -> None:
        now_s = time.perf_counter()
        self._seconds[stage] += now_s - self._lap_start_s
        self._lap_start_s = now_s

    def _count(self, missing: MissingRows, runner: Runner | None, n_forward: int) -> None:
        n_hits = int(missing.found.sum())
        new = {
            "n_unread": len(self._faults),
            "n_hits": n_hits,
            "n_forward": n_forward,
            "n_above_frontier": missing.n_above,
            "bytes_read": n_hits * missing.embeddings.itemsize * missing.embeddings.shape[1],
            "bytes_written": sum(output.writer.bytes_written for output in missing.outputs),
        }
        self._counts = {name: count + new[name] for name, count in self._counts.items()}
        if self._n_samples is None:
            self._n_samples = len(missing.samples)
            self._sample_digests = sketch_of(missing.identities.keys)
        if runner is not None:
            self._engine = " + ".join(runner.engines) or self._engine
            self._batch_size = runner.batch_size or self._batch_size
