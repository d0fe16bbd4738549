"""SpaceStore: the stored rows of one space, looked up, appended, and quarantined if damaged.

The folder ``CACHE/spaces/<space digest>`` holds immutable shards. A reader keeps a snapshot of
their indexes in memory, and makes a new one when the listing of the folder has changed. There are
no locks between readers and writers: threads share snapshots, which are replaced and never changed.
A look-up checks each row that it returns, so damage costs no more than a new pass. It rebuilds lost
indexes, and quarantines damaged and foreign files. If that fails, it hides the unusable rows from
this process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from featx._files import check_folder, is_regular, names_in
from featx.cache.damage import DamageLog
from featx.cache.shard import (
    DATA_SUFFIX,
    INDEX_SUFFIX,
    SHARD_PREFIX,
    DamagedShardError,
    Shard,
    examine_shards,
    open_shard,
    store_index,
    write_shard,
)
from featx.cache.usage import USAGE_FILE, note_use
from featx.digests.key_table import (
    KEY_DTYPE,
    NO_KEY,
    KeyTable,
    distinct_keys,
    first_positions_of_keys,
)
from featx.digests.space import Space

_GROWTH = 2  # a table is rebuilt once newer tables together hold half as many keys
_ATTEMPTS = 3
_ROUNDING = 1e-3  # float16 rounds to half of that, except for tiny numbers
_BYTES_OF_A_PIECE = 64 * 2**20
_BYTES_FOR_THREADS = 8 * 2**20  # less is read before threads have started
_MAX_THREADS = 4  # more do not make memory faster


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The shards that a listing of the folder showed, oldest first.

    `names` is the listing. `hidden` has masks of the rows that are not to be used, by the path of
    their shard.
    """

    names: frozenset[str]
    shards: tuple[Shard, ...]
    hidden: Mapping[Path, np.ndarray]
    known_tables: tuple[tuple[int, KeyTable], ...] = ()

    @cached_property
    def row_keys(self) -> np.ndarray:
        """Key of each row of all shards in order; those of hidden rows are blank."""
        keys = np.concatenate([np.empty(0, KEY_DTYPE), *(shard.keys for shard in self.shards)])
        for shard, start in zip(self.shards, self.starts.tolist(), strict=False):
            if shard.path in self.hidden:
                keys[start : start + len(shard)][self.hidden[shard.path]] = NO_KEY
        return keys

    @cached_property
    def tables(self) -> tuple[tuple[int, KeyTable], ...]:
        """Tables of consecutive parts of `row_keys`, each with the position of its start."""
        n_known = sum(len(table) for _, table in self.known_tables)
        if n_known == len(self.row_keys):
            return self.known_tables
        tables, start = list(self.known_tables), n_known
        # A table is rebuilt only once half as many keys as it holds were added.
        while tables and len(tables[-1][1]) <= _GROWTH * (len(self.row_keys) - start):
            start = tables.pop()[0]
        return (*tables, (start, KeyTable(self.row_keys[start:])))

    def followed_by(
        self, names: frozenset[str], shards: tuple[Shard, ...], hidden: Mapping[Path, np.ndarray]
    ) -> Snapshot:
        """Return the snapshot of a later listing, reusing the tables that still hold."""
        pairs = zip(self.shards, shards, strict=False)
        n_same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], pairs))
        n_kept = 0 if hidden or self.hidden else self.starts[n_same]
        built = self.__dict__.get("tables", self.known_tables)
        kept = tuple((start, table) for start, table in built if start + len(table) <= n_kept)
        return Snapshot(names, shards, hidden, kept)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the position in `row_keys` of each key, int64; -1 if it is missing."""
        places = np.full(len(keys), -1, np.int64)
        for start, table in self.tables:
            if not start:
                places = table.find(keys)  # without a copy, since there is often only one table
                continue
            missing = np.flatnonzero(places < 0)
            found = table.find(keys[missing])
            places[missing[found >= 0]] = start + found[found >= 0]
        places[keys == NO_KEY] = -1
        return places

    def repeated(self) -> np.ndarray:
        """Return a mask of the keys that occur more than once in `row_keys`, shape (n,), bool."""
        return KeyTable(self.row_keys).repeated() & (self.row_keys != NO_KEY)

    @cached_property
    def starts(self) -> np.ndarray:
        """Position in `row_keys` at which each shard starts, and at which the last ends."""
        return np.cumsum([0, *map(len, self.shards)])

    def locate(
        self, places: np.ndarray, *, max_rows: int
    ) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """Yield the shards that hold the keys at some positions, large ones in parts.

        With each shard come its rows, `max_rows` at most, and their positions in `places`.
        """
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], self.starts)
        for shard, first, (start, stop) in zip(
            self.shards, self.starts.tolist(), itertools.pairwise(bounds.tolist()), strict=False
        ):
            for part in range(start, stop, max_rows):
                which = order[part : min(part + max_rows, stop)]
                yield shard, places[which] - first, which


class SpaceStore:
    """The stored rows of one space.

    The folder of the shards is made when the first row is stored. Damaged and foreign files are
    moved to `damaged_folder`.
    """

    def __init__(self, folder: Path, space: Space, *, damaged_folder: Path) -> None:
        self.folder = folder
        self.space = space
        self.damage = DamageLog(damaged_folder, prefix=folder.name)
        self.merging = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: deque[tuple[np.ndarray, np.ndarray, Future[None]]] = deque()
        self._snapshot = Snapshot(frozenset(), (), {})

    def find(
        self, keys: np.ndarray, *, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the stored rows, with NaN where one is missing, and a mask of the found ones.

        Rows are read into `out`, (n, n_features) float32 or float64; None makes a float32 array.

        Warns
        -----
        CacheDamageWarning
            A file in the folder is damaged or cannot be read; its rows count as missing.
        """
        if out is None:
            out = np.empty((len(keys), self.space.n_features), np.float32)
        found = np.zeros(len(keys), bool)
        with self.damage.reported():
            # Repeated, since a compaction or clear() may remove a shard after the listing, and a
            # damaged row may have a second copy.
            for is_last in (False,) * (_ATTEMPTS - 1) + (True,):
                if self._read(keys, out, found, is_last):
                    break
        if not found.all():
            out[~found] = np.nan
        return out, found

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Return a mask, (n,) bool, of the keys that have a row, without reading it."""
        with self.damage.reported():
            return self.snapshot().find(keys) >= 0

    def stored_dtype(self, keys: np.ndarray) -> np.dtype:
        """Return the dtype that holds all rows stored under these keys."""
        with self.damage.reported():
            snapshot = self.snapshot()
        places = snapshot.find(keys)
        shards = snapshot.locate(places[places >= 0], max_rows=max(1, len(keys)))
        return np.result_type(self.space.dtype, *{shard.dtype for shard, _, _ in shards})

    def append(
        self,
        keys: np.ndarray,
        embeddings: np.ndarray,
        *,
        times_s: tuple[float, float] | None = None,
        stamp_ns: int | None = None,
    ) -> list[Shard]:
        """Store rows as a new shard; they are on disk when it returns.

        Rows that the dtype of the space cannot hold form a second shard, in float32. See
        :func:`write_shard` for `times_s` and `stamp_ns`. If OSError is raised, rows stored before
        are unharmed.
        """
        check_folder(self.folder)
        rows, fits = rounded_rows(embeddings, self.space.dtype)
        parts = [(keys, rows)]
        if not fits.all():
            half = rows[fits].astype(self.space.dtype)
            parts = [(keys[~fits], rows[~fits]), *([(keys[fits], half)] if len(half) else [])]
        shards = [
            write_shard(self.folder, *part, space=self.space, times_s=times_s, stamp_ns=stamp_ns)
            for part in parts
        ]
        self.note_use(n_hits=0)
        return shards

    def append_together(self, keys: np.ndarray, embeddings: np.ndarray) -> None:
        """Store rows in one shard with those that other threads store at the same time.

        If another thread is writing, this one waits; the first to continue then writes the rows of
        all waiting threads. So many threads that store few rows each do not write many shards.
        Errors are those of :meth:`append`.
        """
        own: Future[None] = Future()
        self._waiting.append((keys, embeddings, own))
        with self._writing:
            if not own.done():
                self._append_waiting()
        own.result()

    def _append_waiting(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        all_keys, all_rows, futures = zip(*waiting, strict=True)
        try:
            keys, rows = np.concatenate(all_keys), np.concatenate(all_rows)
            if len(waiting) > 1:
                firsts = first_positions_of_keys(keys)
                keys, rows = keys[firsts], rows[firsts]
            self.append(keys, rows)
        except BaseException as exc:
            for future in futures:
                future.set_exception(exc)
        else:
            for future in futures:
                future.set_result(None)

    def shards(self) -> tuple[Shard, ...]:
        """Return the present shards, oldest first."""
        with self.damage.reported():
            return self.snapshot().shards

    def keys(self) -> np.ndarray:
        """Return the distinct stored keys, in the order in which they were stored."""
        with self.damage.reported():
            keys = self.snapshot().row_keys
        return distinct_keys(keys[keys != NO_KEY])

    def note_use(self, *, n_hits: int) -> None:
        """Record a look-up and the number of rows that it found."""
        note_use(self.folder, n_hits=n_hits)

    def snapshot(self) -> Snapshot:
        """Return a snapshot of the present shards; damage that is found goes to the log."""
        snapshot = self._snapshot
        # In a folder that cannot be read there are none; storing rows again gives the warning.
        # Names of unfinished files start with a dot.
        names = frozenset(name for name in names_in(self.folder) if not name.startswith("."))
        if names != snapshot.names:
            known = {shard.path.stem: shard for shard in snapshot.shards}
            shards = self._open_all(names, known)
            snapshot = self._snapshot = snapshot.followed_by(names, shards, self._snapshot.hidden)
        return snapshot

    def salvage(self, shard: Shard, reason: str = "") -> None:
        """Quarantine a damaged shard and store its sound rows again.

        If either fails, the shard stays, and its damaged rows are hidden from this process. The
        default `reason` is the number of damaged rows. OSError is raised if the shard is gone, or
        cannot be read.
        """
        embeddings, sound = shard.read_all()
        if sound.all() and not reason:
            return  # only the first read was faulty
        reason = reason or f"{int((~sound).sum())} of {len(shard)} rows are damaged"
        files = (shard.path, shard.index_path)
        if not self.damage.move(*files):
            self.damage.note(shard.path, f"{reason}, and it cannot be quarantined")
            self._hide(shard, ~sound)
            return
        try:
            if sound.any():
                self.append(shard.keys[sound], embeddings[sound], times_s=shard.times_s)
        except OSError as exc:
            self.damage.move_back(*files)
            self.damage.note(shard.path, f"{reason}, and the others cannot be stored again ({exc})")
            self._hide(shard, ~sound)
        else:
            self.damage.note(shard.path, reason)

    def _hide(self, shard: Shard, rows: np.ndarray) -> None:
        """Leave rows out of all look-ups of this process."""
        hidden = {**self._snapshot.hidden, shard.path: rows}
        self._snapshot = Snapshot(self._snapshot.names, self._snapshot.shards, hidden)

    def _read(self, keys: np.ndarray, out: np.ndarray, found: np.ndarray, is_last: bool) -> bool:
        """Read the rows that were not found yet; return False if another attempt may find more."""
        snapshot = self.snapshot()
        missing = np.flatnonzero(~found)
        places = snapshot.find(keys[missing])
        stored = places >= 0
        missing, places = missing[stored], places[stored]
        row_bytes = self.space.n_features * out.itemsize
        pieces = snapshot.locate(places, max_rows=max(1, _BYTES_OF_A_PIECE // row_bytes))
        is_done = True
        for shard, which, result in _read_pieces(pieces, missing, out):
            if isinstance(result, OSError):
                is_done = False
                if is_last and not isinstance(result, FileNotFoundError):
                    self.damage.note(shard.path, f"cannot be read ({result.strerror or result})")
                    self._hide(shard, np.ones(len(shard), bool))
                continue
            found[which] = result
            if not result.all():
                is_done = False
                with contextlib.suppress(OSError):  # just merged: the next attempt finds its rows
                    self.salvage(shard)
        return is_done

    def _open_all(self, names: frozenset[str], known: Mapping[str, Shard]) -> tuple[Shard, ...]:
        names = self._without_irregular_files(names)
        stems = sorted(
            os.path.splitext(name)[0]
            for name in names
            if name.startswith(SHARD_PREFIX) and name.endswith(DATA_SUFFIX)
        )
        opened = dict(known)
        reasons: dict[str, str] = {}
        # Twice, since a writer may be between its two renames: the second time there is an index.
        for _ in range(2):
            for stem in stems:
                if stem not in opened:
                    self._open(stem, opened, reasons)
        self._rebuild([stem for stem in stems if stem not in opened], opened, reasons)
        self._quarantine_foreign_files(names)
        return tuple(opened[stem] for stem in stems if self._is_ours(opened.get(stem)))

    def _open(self, stem: str, opened: dict[str, Shard], reasons: dict[str, str]) -> None:
        """Open a shard by its index, unless that is lost or damaged."""
        try:
            opened[stem] = open_shard(self.folder / f"{stem}{INDEX_SUFFIX}")
        except OSError:
            return
        except DamagedShardError as exc:
            reasons[stem] = str(exc)

    def _rebuild(self, stems: list[str], opened: dict[str, Shard], reasons: dict[str, str]) -> None:
        """Rebuild lost and damaged indexes; quarantine shards that are damaged themselves."""
        paths = [self.folder / f"{stem}{DATA_SUFFIX}" for stem in stems]
        paths = [path for path in paths if path.exists()]  # the others were removed just now
        for path, shard in zip(paths, examine_shards(paths), strict=True):
            stem = path.stem
            if isinstance(shard, Shard):
                opened[stem] = shard
                store_index(shard)
                if stem in reasons:
                    self.damage.note(path, f"{reasons[stem]}; the index was rebuilt")
            elif isinstance(shard, DamagedShardError):
                files = (path, path.with_suffix(INDEX_SUFFIX))
                self.damage.quarantine(*files, reason=reasons.get(stem, str(shard)))
            elif not isinstance(shard, FileNotFoundError):
                self.damage.note(path, f"cannot be read ({shard})")

    def _is_ours(self, shard: Shard | None) -> bool:
        if shard is None:
            return False
        if shard.space.digest == self.space.digest:
            return True
        self.damage.quarantine(shard.path, shard.index_path, reason="holds rows of another space")
        return False

    def _without_irregular_files(self, names: frozenset[str]) -> frozenset[str]:
        """Quarantine links, pipes, devices and folders, and return the other names."""
        new = names - self._snapshot.names
        irregular = [name for name in sorted(new) if not is_regular(self.folder / name)]
        for name in irregular:
            if os.path.lexists(self.folder / name):  # else it was removed just now
                self.damage.quarantine(self.folder / name, reason="is not a regular file")
        return names.difference(irregular)

    def _quarantine_foreign_files(self, names: frozenset[str]) -> None:
        for name in names:
            is_shard = name.startswith(SHARD_PREFIX) and name.endswith((DATA_SUFFIX, INDEX_SUFFIX))
            if not is_shard and name != USAGE_FILE:
                self.damage.quarantine(self.folder / name, reason="is no part of a cache")


def _read_pieces(
    pieces: Iterable[tuple[Shard, np.ndarray, np.ndarray]], targets: np.ndarray, out: np.ndarray
) -> Iterator[tuple[Shard, np.ndarray, np.ndarray | OSError]]:
    """Read pieces of shards in threads; yield the shard, its rows of `out`, and the outcome.

    The outcome is a mask of the sound rows, or the error that was raised.
    """

    def read(piece: tuple[Shard, np.ndarray, np.ndarray]) -> Any:
        shard, rows, which = piece
        try:
            return shard, targets[which], shard.read(rows, out, targets[which])
        except OSError as exc:
            return shard, targets[which], exc

    first_two = list(itertools.islice(pieces := iter(pieces), 2))
    if len(first_two) < 2 or len(targets) * out[:1].nbytes < _BYTES_FOR_THREADS:
        yield from map(read, itertools.chain(first_two, pieces))
        return
    with ThreadPoolExecutor(min(_MAX_THREADS, joblib.cpu_count())) as threads:
        yield from threads.map(read, itertools.chain(first_two, pieces))


def rounded_rows(rows: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Round rows to the dtype of a space, float32 or float16, except rows that it cannot represent.

    Return rows, in `dtype` if it can represent all of them, else in float32, and a mask of those
    that it represents: no value becomes infinite or zero, and the row is as precise as float16
    usually is.

    Examples
    --------
    >>> exact = np.float32([[0.1, 2], [1e5, 2], [0.1, 1e-9]])
    >>> rows, fits = rounded_rows(exact, np.dtype("float16"))
    >>> fits, rows[1:]
    (array([ True, False, False]), array([[1.e+05, 2.e+00],
           [1.e-01, 1.e-09]], dtype=float32))
    """
    exact = np.ascontiguousarray(rows)
    if exact.dtype == dtype or dtype == np.float32:
        return np.ascontiguousarray(exact, dtype), np.ones(len(exact), bool)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        half = exact.astype(dtype)
        gaps = half.astype(np.float32) - exact
        squares, lengths = (
            np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64) for matrix in (gaps, exact)
        )
        lost = (np.isinf(half) & np.isfinite(exact)) | ((half == 0) & (exact != 0))
        fits = ~(lost.any(axis=1) | (squares > _ROUNDING**2 * lengths))
    if fits.all():
        return half, fits
    return np.where(fits[:, np.newaxis], half.astype(np.float32), exact), fits
