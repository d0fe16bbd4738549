"""The rows of one space on disk: look up, append, set damage aside.

The folder ``CACHE/spaces/<space digest>`` holds immutable shards. A reader keeps a snapshot of
their indexes in memory and renews it when the folder's listing changed; nobody holds a lock, and
what threads share is replaced whole, never changed. What a look-up returns was checked row by row,
so the worst that damage can do is cost a new pass.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featx.exceptions import CacheDamageWarning
from featx.key_table import KEY_DTYPE, KeyTable, distinct
from featx.shards import (
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
from featx.spaces import Space
from featx.usage import USAGE_FILE, note_use

_ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The shards that a listing of the folder showed, oldest first.

    Attributes
    ----------
    names : frozenset of str
        The listing.
    shards : tuple of Shard
    """

    names: frozenset[str]
    shards: tuple[Shard, ...]

    @cached_property
    def keys(self) -> np.ndarray:
        """The keys of all shards, one after another; doubles included."""
        return np.concatenate([np.empty(0, KEY_DTYPE), *(shard.keys for shard in self.shards)])

    @cached_property
    def table(self) -> KeyTable:
        """Where in `keys` each key is."""
        return KeyTable(self.keys)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where in `keys` each shard begins, and where the last ends."""
        return np.cumsum([0, *map(len, self.shards)])

    def locate(self, places: np.ndarray) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """Yield each shard that holds some of these places in `keys`.

        Yields
        ------
        shard : Shard
        rows : ndarray of shape (m,)
            Of the shard.
        which : ndarray of shape (m,), increasing
            Positions in `places`.
        """
        numbers = np.searchsorted(self.starts, places, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        present, first = np.unique(numbers[order], return_index=True)
        for number, which in zip(present.tolist(), np.split(order, first[1:]), strict=False):
            yield self.shards[number], places[which] - self.starts[number], which


class SpaceStore:
    """The stored rows of one space.

    Parameters
    ----------
    folder : Path
        Where the shards lie; made when the first row is stored.
    space : Space
    damaged_folder : Path
        Where damaged and foreign files are moved.
    """

    def __init__(self, folder: Path, space: Space, *, damaged_folder: Path) -> None:
        self.folder = folder
        self.space = space
        self.damaged_folder = damaged_folder
        self._snapshot = Snapshot(frozenset(), ())
        self._damage: list[str] = []

    def find(
        self, keys: np.ndarray, *, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the rows that are stored.

        Parameters
        ----------
        keys : ndarray of shape (n,), dtype S16
        out : ndarray of shape (n, n_features), float32 or float64, default=None
            Where the rows go; None makes a float32 array.

        Returns
        -------
        embeddings : ndarray of shape (n, n_features)
            `out`, if it was passed. NaN where a row is missing.
        found : ndarray of shape (n,), bool

        Warns
        -----
        CacheDamageWarning
            Something in the folder was damaged; it was moved aside and counts as missing.
        """
        if out is None:
            out = np.empty((len(keys), self.space.n_features), np.float32)
        found = np.zeros(len(keys), bool)
        with self.damage_reported():
            # A compaction or clear() may remove a shard after the listing: then look again. What
            # stays unreadable, on a mount that is gone, counts as missing.
            for _ in range(_ATTEMPTS):
                if self._read(self.snapshot(), keys, out, found):
                    break
        if not found.all():
            out[~found] = np.nan
        return out, found

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Tell of each key, (n,) bool, whether a row is stored under it, without reading it."""
        with self.damage_reported():
            return self.snapshot().table.find(keys) >= 0

    def append(self, keys: np.ndarray, embeddings: np.ndarray) -> Shard:
        """Store rows as one new shard; once it returns they are safe.

        Raises
        ------
        OSError
            They could not be written; what was stored before is unharmed.
        """
        return write_shard(self.folder, keys, embeddings, space=self.space)

    def shards(self) -> tuple[Shard, ...]:
        """Return the shards as they are now, oldest first."""
        with self.damage_reported():
            return self.snapshot().shards

    def keys(self) -> np.ndarray:
        """Return the distinct keys that are stored, in the order in which they came."""
        with self.damage_reported():
            return distinct(self.snapshot().keys)

    def note_use(self, *, n_hits: int) -> None:
        """Note that rows were looked up, and how many were there."""
        note_use(self.folder, n_hits=n_hits)

    def salvage(self, shard: Shard, reason: str = "") -> None:
        """Store the sound rows of a damaged shard anew and move it aside.

        Parameters
        ----------
        shard : Shard
        reason : str, default=""
            What is wrong with it; by default how many rows are damaged.
        """
        try:
            embeddings, sound = shard.read_all()
        except OSError:
            return  # gone, or not to be read for now: its rows count as missing
        fault = reason or f"{int((~sound).sum())} of {len(shard)} rows are damaged"
        fault = f"{shard.path}: {fault}"
        try:
            if sound.any():
                self.append(shard.keys[sound], embeddings[sound])
        except OSError as exc:
            self._damage.append(f"{fault}, and the others cannot be stored anew ({exc})")
            return
        self._move_aside(fault, shard.path, shard.index_path)

    def snapshot(self) -> Snapshot:
        """Return the shards as they are now; what cannot be one is moved aside."""
        snapshot = self._snapshot
        names = _names_in(self.folder)
        if names != snapshot.names:
            snapshot = self._snapshot = Snapshot(names, self._open_all(names, snapshot.shards))
        return snapshot

    def _read(
        self, snapshot: Snapshot, keys: np.ndarray, out: np.ndarray, found: np.ndarray
    ) -> bool:
        """Read what was not found yet; tell whether everything that is there could be read."""
        lacking = np.flatnonzero(~found)
        places = snapshot.table.find(keys[lacking])
        stored = places >= 0
        lacking, places = lacking[stored], places[stored]
        all_read = True
        for shard, rows, which in snapshot.locate(places):
            try:
                sound = shard.read(rows, out, lacking[which])
            except OSError:
                all_read = False
                continue
            found[lacking[which]] = sound
            if not sound.all():
                self.salvage(shard)
        return all_read

    def _open_all(self, names: frozenset[str], known: Iterable[Shard]) -> tuple[Shard, ...]:
        opened = {shard.path.stem: shard for shard in known}
        stems = sorted(
            stem for stem, suffix in map(os.path.splitext, names) if suffix == DATA_SUFFIX
        )
        reasons: dict[str, str] = {}
        # A writer may just have been between its two renames: a second look finds its index.
        for _ in range(2):
            for stem in stems:
                if stem not in opened:
                    self._open(stem, opened, reasons)
        self._rebuild([stem for stem in stems if stem not in opened], opened, reasons)
        self._set_foreign_files_aside(names)
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
        """Make lost and damaged indexes anew; what cannot be mended is moved aside."""
        paths = [self.folder / f"{stem}{DATA_SUFFIX}" for stem in stems]
        paths = [path for path in paths if path.exists()]  # the others were removed just now
        if not paths:
            return
        try:
            rebuilt = examine_shards(paths)
        except OSError:
            return  # just removed, or not to be read for now: the rows count as missing
        for path, shard in zip(paths, rebuilt, strict=True):
            stem = path.stem
            if isinstance(shard, DamagedShardError):
                if path.exists():
                    reason = reasons.get(stem, str(shard))
                    self._move_aside(reason, path, path.with_suffix(INDEX_SUFFIX))
                continue
            opened[stem] = shard
            store_index(shard)
            if stem in reasons:
                self._damage.append(f"{reasons[stem]}; the index was made anew")

    def _is_ours(self, shard: Shard | None) -> bool:
        if shard is None:
            return False
        if shard.space.digest == self.space.digest:
            return True
        reason = f"{shard.path} holds rows of another space"
        self._move_aside(reason, shard.path, shard.index_path)
        return False

    def _set_foreign_files_aside(self, names: frozenset[str]) -> None:
        for name in names:
            is_shard = name.startswith(SHARD_PREFIX) and name.endswith((DATA_SUFFIX, INDEX_SUFFIX))
            if not is_shard and name != USAGE_FILE:
                self._move_aside(f"{self.folder / name} is no part of a cache", self.folder / name)

    def _move_aside(self, reason: str, *paths: Path) -> None:
        try:
            self.damaged_folder.mkdir(parents=True, exist_ok=True)
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    os.replace(path, self.damaged_folder / f"{self.folder.name}-{path.name}")
        except OSError as exc:
            reason = f"{reason}, and it cannot be moved aside ({exc})"
        self._damage.append(reason)

    @contextlib.contextmanager
    def damage_reported(self) -> Iterator[None]:
        """Turn the damage found inside into one warning."""
        yield
        if self._damage:
            damage, self._damage = self._damage, []
            warnings.warn(
                CacheDamageWarning(
                    f"damage in the cache: {'; '.join(damage)}. Damaged files are in "
                    f"{self.damaged_folder}; their rows are computed again."
                ),
                stacklevel=4,
            )


def _names_in(folder: Path) -> frozenset[str]:
    """List a folder, unfinished files left out."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError:
        # Not there, or not to be read: rows are computed again, and storing names the trouble.
        return frozenset()
