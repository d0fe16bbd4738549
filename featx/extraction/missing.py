"""``find_missing`` and MissingRows: samples are identified and looked up; the others are loaded.

Files and arrays can be read twice: :class:`IdentifiedRows` hashes them before the network runs, or
while it runs, and loads the missing ones. A lazy sequence makes an item each time it is indexed:
:class:`ReadOnceRows` hashes, looks up and loads each item at once. :func:`find_missing` chooses.
"""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from featx.backbones.resolve import EmbeddingSource
from featx.digests.key_table import first_positions_of_keys, keys_from
from featx.exceptions import BadSampleError, SampleFault
from featx.extraction.faults import check_finite, search_faults, with_duplicates
from featx.extraction.frontier import FrontierEntry
from featx.extraction.prefetch import (
    DistinctRows,
    KnownRows,
    Loaded,
    RowsToLoad,
    first_of_content,
    load,
)
from featx.extraction.row_writer import RowWriter
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import InputForm
from featx.inputs.samples import IdentifiedBlock, Identities, ReadBlock, Samples

_FLUSH_EVERY_S = 5.0
_IDENTIFY_FAULTY_S = 10.0


class PassSettings(NamedTuple):
    """Settings of a pass, as in FeatureExtractor; none of them changes an embedding."""

    batch_size: Any = "auto"
    engine: str = "auto"
    n_jobs: int | None = None
    on_error: str = "raise"
    verbose: int | bool | Callable[[int, int], object] = 0


class LayerOutput:
    """A source in a pass: its stored rows, if anything is cached, and the samples without one."""

    def __init__(self, source: EmbeddingSource, writer: RowWriter, n_samples: int) -> None:
        self.source, self.writer, self.store = source, writer, writer.store
        self.lacks = np.ones(n_samples, bool)  # no stored row is known before the look-up

    def find(
        self, keys: np.ndarray, *, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read stored rows: see :meth:`SpaceStore.find`; none are found without a store."""
        if self.store is not None:
            return self.store.find(keys, out=out)
        return self.blank_rows(len(keys), out=out), np.zeros(len(keys), bool)

    def missing(self, keys: np.ndarray) -> np.ndarray:
        """Return True for each key without a stored row, shape (n,), bool."""
        return np.ones(len(keys), bool) if self.store is None else ~self.store.holds(keys)

    def blank_rows(self, n_rows: int, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return rows of NaN, shape (n_rows, n_features), float32; `out`, if it is passed."""
        rows = np.empty((n_rows, self.source.space.n_features), np.float32) if out is None else out
        rows[:] = np.nan
        return rows

    def note_use(self, found: np.ndarray) -> None:
        """Count the rows that were found as used."""
        if self.store is not None:
            self.store.note_use(n_hits=int(found.sum()))


class MissingRows(ABC):
    """The samples of a pass: which rows are stored, and which need the network.

    The embeddings of the first of the `outputs` are returned. `entry` is the way to them from
    stored activations.

    `embeddings`, (n_samples, n_features), float32, are NaN where a row is still missing; `found`,
    (n_samples,), is True where the first output had a stored row; `n_above` counts the rows that
    were computed from stored activations.
    """

    embeddings: np.ndarray
    found: np.ndarray

    def __init__(
        self,
        samples: Samples,
        outputs: Sequence[LayerOutput],
        settings: PassSettings,
        entry: FrontierEntry | None,
    ) -> None:
        self.samples, self.outputs, self.settings = samples, outputs, settings
        self.n_above = 0
        self._entry = entry

    @property
    def sources(self) -> list[EmbeddingSource]:
        """Sources of all outputs."""
        return [output.source for output in self.outputs]

    @property
    def input_form(self) -> InputForm:
        """Form of one input of the network."""
        return self.outputs[0].source.input_form

    @property
    @abstractmethod
    def identities(self) -> Identities:
        """Keys and faults of the samples that are identified so far."""

    @property
    @abstractmethod
    def n_expected(self) -> int:
        """Number of samples for the network, as far as it is known."""

    @property
    @abstractmethod
    def n_total(self) -> int:
        """Number of samples whose progress is reported."""

    def identify(self) -> None:  # noqa: B027
        """Identify the samples that have to be known before the look-up; faulty ones may raise."""

    @abstractmethod
    def look_up(self, out: np.ndarray | None) -> None:
        """Set `embeddings`, in `out` if it is passed, and `found`."""

    @abstractmethod
    def is_empty(self) -> bool:
        """Return True if no sample needs the network."""

    @abstractmethod
    def load(self, batch_size: Callable[[], int]) -> Generator[Loaded]:
        """Load the samples that need the network: see :func:`featx.extraction.prefetch.load`."""

    def keep(self, rows: np.ndarray, outputs: np.ndarray) -> None:
        """Store the outputs of the network for some rows, and fill in the embeddings.

        `outputs` of shape (n, sum of the features of all outputs) holds them side by side.
        """
        self.outputs[0].writer.check.note_rows()
        check_finite(rows, outputs, self.samples, self.sources)
        keys = self.identities.keys
        ends = np.cumsum([source.space.n_features for source in self.sources])
        for output, columns in zip(self.outputs, np.split(outputs, ends[:-1], axis=1), strict=True):
            lacking: Any = output.lacks[rows]
            if lacking.all():
                lacking = slice(None)  # a slice copies nothing
            # Rows as the cache will return them, so that a second pass gives the same numbers.
            stored = output.writer.add(keys[rows[lacking]], columns[lacking])
            if output is self.outputs[0]:
                self.embeddings[rows[lacking]] = stored

    @abstractmethod
    def complete(self, faults: list[SampleFault], n_forward: int) -> list[SampleFault]:
        """Fill in duplicates after the pass, and return the faults of all samples.

        `faults` are those that loading found; `n_forward` samples went through the network.
        """

    def close(self) -> None:  # noqa: B027
        """Stop prefetching, and store the digests of files."""

    def _embed_above(self, rows: np.ndarray) -> None:
        """Fill in and store the rows whose activations are stored."""
        if self._entry is None:
            return
        output, keys = self.outputs[0], self.identities.keys
        rows = rows[self._entry.holds(keys[rows])]
        if not len(rows):
            return
        with RowWriter(output.store, output.writer.check) as writer:
            for places, embeddings in self._entry.embed(keys[rows]):
                writer.check.note_rows()
                done = rows[places]
                check_finite(done, embeddings, self.samples, [output.source])
                self.embeddings[done] = writer.add(keys[done], embeddings)
                output.lacks[done] = False
        self.n_above += int((~output.lacks[rows]).sum())

    def _copy_to_duplicates(self, rows: np.ndarray) -> np.ndarray:
        """Copy embeddings from the first row of each content to the others; return first rows."""
        keys = self.identities.keys[rows]
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        origins = rows[first[inverse]]
        repeated = (rows != origins) & self.outputs[0].lacks[rows]
        self.embeddings[rows[repeated]] = self.embeddings[origins[repeated]]
        return origins

    def _all_faults(self, faults: list[SampleFault]) -> list[SampleFault]:
        # A sample that became unreadable, but has a row here, is missing from other layers only.
        new = [fault for fault in faults if not self.found[fault.position]]
        return sorted(self.identities.faults + new)


def find_missing(
    samples: Samples,
    outputs: Sequence[LayerOutput],
    settings: PassSettings,
    entry: FrontierEntry | None,
    files: FileIndex,
) -> MissingRows:
    """Return the missing rows of samples, which are read twice where possible, else once."""

    def is_wanted(key: bytes) -> bool:
        keys = keys_from([key], count=1)
        return any(output.missing(keys)[0] for output in outputs)

    form = outputs[0].source.input_form
    blocks = samples.read(form, files, is_wanted=is_wanted, n_jobs=settings.n_jobs)
    if blocks is None:
        return IdentifiedRows(samples, outputs, settings, entry, files)
    return ReadOnceRows(samples, outputs, settings, entry, blocks)


class IdentifiedRows(MissingRows):
    """Rows of samples that are identified first, or while the network runs if all are missing."""

    def __init__(
        self,
        samples: Samples,
        outputs: Sequence[LayerOutput],
        settings: PassSettings,
        entry: FrontierEntry | None,
        files: FileIndex,
    ) -> None:
        super().__init__(samples, outputs, settings, entry)
        self._files = files
        has_rows = any(output.store.shards() for output in outputs if output.store)
        can_overlap = entry is None and not has_rows
        self._started = samples.start_identifying(files) if can_overlap else None
        self._distinct = DistinctRows(
            self._blocks(), n_samples=len(samples), ends_at_fault=settings.on_error == "raise"
        )
        self._missing = np.empty(0, np.int64)
        self._queue: RowsToLoad = self._distinct

    @property
    def identities(self) -> Identities:
        """Keys and faults of the samples that are identified so far."""
        return self._distinct.identities

    @property
    def n_expected(self) -> int:
        """Number of samples for the network, as far as it is known."""
        return self._queue.n_expected

    @property
    def n_total(self) -> int:
        """Number of samples that are still to be loaded, at most."""
        return self._queue.n_untaken

    def identify(self) -> None:
        """Identify all samples, unless the network can start without that."""
        if self._started is None or self._started.wait(seconds=0):
            self._distinct.identify_all()
            self._files.flush_or_warn()
        self._check_faults()

    def look_up(self, out: np.ndarray | None) -> None:
        """Read all stored rows."""
        keys, first = self.identities.keys, self.outputs[0]
        self.embeddings, self.found = first.find(keys, out=out)
        first.note_use(self.found)
        first.lacks = ~self.found
        self._embed_above(np.flatnonzero(first.lacks))
        for output in self.outputs[1:]:
            output.lacks = output.missing(keys)
        missing = np.any([output.lacks for output in self.outputs], axis=0)
        missing[[fault.position for fault in self.identities.faults]] = False
        self._missing = np.flatnonzero(missing)
        if self._distinct.are_known:
            self._queue = KnownRows(self._missing[first_positions_of_keys(keys[self._missing])])

    def is_empty(self) -> bool:
        """Return True if no sample needs the network."""
        return not len(self._missing)

    def load(self, batch_size: Callable[[], int]) -> Generator[Loaded]:
        """Load the missing samples in threads."""
        return load(
            self.samples,
            self._queue,
            self.input_form,
            batch_size=batch_size,
            n_jobs=self.settings.n_jobs,
        )

    def complete(self, faults: list[SampleFault], n_forward: int) -> list[SampleFault]:
        """Fill in duplicates, and return all faults."""
        if n_forward + len(faults) < len(self._missing):
            self._copy_to_duplicates(self._missing)
        faults = with_duplicates(faults, self.samples, self.identities.keys)
        self._check_faults(faults)
        return self._all_faults(faults)

    def close(self) -> None:
        """Stop identifying, and store the digests of files."""
        if self._started is not None:
            self._started.close()
        self._files.flush_or_warn()

    def _blocks(self) -> Iterator[IdentifiedBlock]:
        """Identify samples, and store the digests of files every few seconds and at the end.

        A generator, so that nothing is read before :meth:`identify`.
        """
        if self._started is None:
            yield IdentifiedBlock(slice(0, len(self.samples)), *self.samples.keys(self._files))
            return
        last_s = time.monotonic()
        for block in self._started:
            is_last = block.rows.stop == len(self.samples)
            if is_last or time.monotonic() - last_s >= _FLUSH_EVERY_S:
                self._files.flush_or_warn()
                last_s = time.monotonic()
            yield block

    def _check_faults(self, found: Sequence[SampleFault] = ()) -> None:
        """Raise if identifying found faults; those `found` by loading are listed with them.

        The other samples are identified and decoded for some seconds, to list all faults at once.
        """
        faults = self.identities.faults
        if not faults or self.settings.on_error != "raise":
            return
        self._distinct.identify_for(_IDENTIFY_FAULTY_S)
        faults, n_unseen = search_faults(
            self.samples,
            self.identities.keys,
            [*self.identities.faults, *found],
            form=self.input_form,
            n_jobs=self.settings.n_jobs,
        )
        n_unseen += len(self.samples) - self.identities.n_known
        raise BadSampleError(faults, len(self.samples), n_unseen=n_unseen)


class ReadOnceRows(MissingRows):
    """Rows of samples that are identified, looked up and loaded in one pass, each read once."""

    def __init__(
        self,
        samples: Samples,
        outputs: Sequence[LayerOutput],
        settings: PassSettings,
        entry: FrontierEntry | None,
        blocks: Iterator[ReadBlock],
    ) -> None:
        super().__init__(samples, outputs, settings, entry)
        self._identities = Identities(len(samples))
        self._blocks = blocks
        self._groups = self._loaded_groups()
        self._first: list[Loaded] = []
        self._seen = {b""}  # keys so far; unreadable samples have this one
        self._n_missing = 0

    @property
    def identities(self) -> Identities:
        """Keys and faults of the samples that are read so far."""
        return self._identities

    @property
    def n_expected(self) -> int:
        """Number of samples for the network, extrapolated from those read so far."""
        n_read = self.identities.n_known
        n_unread = len(self.samples) - n_read
        return self._n_missing + (n_unread * self._n_missing // n_read if n_read else n_unread)

    @property
    def n_total(self) -> int:
        """Number of samples, all of which are read."""
        return len(self.samples)

    def identify(self) -> None:
        """Check that no sample is known to be missing."""
        faults = self.samples.faults_before_reading()
        if faults and self.settings.on_error == "raise":
            n_unseen = len(self.samples) - len(faults)
            raise BadSampleError(faults, len(self.samples), n_unseen=n_unseen)

    def look_up(self, out: np.ndarray | None) -> None:
        """Start without stored rows; samples are looked up as they are read."""
        self.embeddings = self.outputs[0].blank_rows(len(self.samples), out=out)
        self.found = np.zeros(len(self.samples), bool)

    def is_empty(self) -> bool:
        """Read up to the first sample that needs the network; return True if there is none."""
        is_needed = (group for group in self._groups if len(group[0]) or group[2])
        self._first = list(itertools.islice(is_needed, 1))
        return not self._first

    def load(self, batch_size: Callable[[], int]) -> Generator[Loaded]:
        """Load the missing samples as they are read."""
        yield from self._first
        yield from self._groups

    def complete(self, faults: list[SampleFault], n_forward: int) -> list[SampleFault]:
        """Fill in duplicates, and return all faults."""
        rows = np.flatnonzero(self.identities.keys)
        self.found[rows] = self.found[self._copy_to_duplicates(rows)]
        self.outputs[0].note_use(self.found)
        return self._all_faults(with_duplicates(faults, self.samples, self.identities.keys))

    def close(self) -> None:
        """Stop reading."""
        self._groups.close()

    def _loaded_groups(self) -> Generator[Loaded]:
        """Yield the rows and inputs of missing samples, and fill in stored rows."""
        for block in self._blocks:
            self.identities.add(block.identified)
            start, keys = block.identified.rows.start, self.identities.keys[block.identified.rows]
            rows = self._look_up_rows(start + first_of_content(keys, self._seen))
            self._n_missing += len(rows)
            is_missing = np.isin(block.loaded, rows)
            yield block.loaded[is_missing], block.inputs[is_missing], []
            # Faulty samples, and samples that were not loaded since their row seemed to be intact.
            damaged = np.setdiff1d(rows, block.loaded)
            if len(damaged):
                yield self.samples.batch(damaged, self.input_form)

    def _look_up_rows(self, rows: np.ndarray) -> np.ndarray:
        """Fill in stored rows; return those that need the network."""
        if not len(rows):
            return rows
        keys, first = self.identities.keys[rows], self.outputs[0]
        stored, is_stored = first.find(keys)
        self.embeddings[rows[is_stored]] = stored[is_stored]
        self.found[rows], first.lacks[rows] = is_stored, ~is_stored
        self._embed_above(rows[first.lacks[rows]])
        for output in self.outputs[1:]:
            output.lacks[rows] = output.missing(keys)
        return rows[np.any([output.lacks[rows] for output in self.outputs], axis=0)]
