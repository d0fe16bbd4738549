"""The rows of one space on disk: look up, append, compact, set damage aside.

The folder ``CACHE/spaces/<space digest>`` holds immutable shards. A reader keeps a snapshot of
their indexes in memory and renews it when the folder's listing changed; nobody holds a lock. What a
look-up returns was checked row by row, so the worst that damage can do is cost a new pass.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.exceptions import CacheDamageWarning
from featx.key_table import KEY_DTYPE, KeyTable
from featx.shards import (
    DATA_SUFFIX,
    INDEX_SUFFIX,
    DamagedShardError,
    Shard,
    open_shard,
    rebuild_index,
    remove_shard,
    write_shard,
)
from featx.spaces import Space

MAX_SHARDS = 256
_COMPACTED_BYTES = 256 * 2**20  # of a shard: twice this is held in memory while merging
_ATTEMPTS = 3


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """The shards that a listing showed, and where each key is."""

    stems: frozenset[str]
    shards: tuple[Shard, ...]
    table: KeyTable
    shard_of: np.ndarray
    row_of: np.ndarray


class SpaceStore:
    """The stored rows of one space.

    Parameters
    ----------
    folder : Path
        Where the shards lie; made when the first row is stored.
    space : Space
    damaged_folder : Path
        Where damaged files are moved.
    """

    def __init__(self, folder: Path, space: Space, *, damaged_folder: Path) -> None:
        self.folder = folder
        self.space = space
        self.damaged_folder = damaged_folder
        self._snapshot = _snapshot_of((), frozenset())
        self._damage: list[str] = []

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read the rows that are stored.

        Parameters
        ----------
        keys : ndarray of shape (n,), dtype S16

        Returns
        -------
        embeddings : ndarray of shape (n, n_features), float32
            NaN where a row is missing.
        found : ndarray of shape (n,), bool

        Warns
        -----
        CacheDamageWarning
            Something in the folder was damaged; it was moved aside and counts as missing.
        """
        with self._damage_reported():
            for _ in range(_ATTEMPTS):
                # A compaction or clear() may remove a shard after the listing: then look again.
                # What stays unreadable, a mount that is gone, counts as missing.
                with contextlib.suppress(OSError):
                    return self._read(self._refreshed(), keys)
            return self._nothing(len(keys))

    def append(self, keys: np.ndarray, embeddings: np.ndarray) -> Shard:
        """Store rows as one new shard; once it returns they are safe.

        Raises
        ------
        OSError
            They could not be written; what was stored before is unharmed.
        """
        return write_shard(self.folder, keys, embeddings, space=self.space)

    def shards(self) -> tuple[Shard, ...]:
        """Return the shards as they are now."""
        with self._damage_reported():
            return self._refreshed().shards

    def keys(self) -> np.ndarray:
        """Return the distinct keys that are stored, sorted."""
        keys = [shard.keys for shard in self.shards()]
        return np.unique(np.concatenate([np.empty(0, KEY_DTYPE), *keys]))

    def compact(self) -> None:
        """Merge the shards into few, dropping rows that are stored twice.

        The merged shards are in place before the old ones go, so that neither a kill at any
        moment nor a reader at the same time loses a row. If a row cannot be read, all stay.
        """
        old, n_keys = self.shards(), len(self.keys())
        if len(old) < 2:
            return
        n_merged = 0
        for embeddings, keys in self.blocks():
            self.append(keys, embeddings)
            n_merged += len(keys)
        if n_merged == n_keys:
            for shard in old:
                remove_shard(shard)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all rows as (embeddings, keys), each key once, in blocks that fit in memory."""
        keys = self.keys()
        n_rows = max(1, _COMPACTED_BYTES // (4 * self.space.n_features))
        for start in range(0, len(keys), n_rows):
            embeddings, found = self.find(keys[start : start + n_rows])
            if found.any():
                yield embeddings[found], keys[start : start + n_rows][found]

    def damaged_rows(self) -> dict[Path, int]:
        """Count the rows of each shard that disagree with their checksums, where there are any."""
        counts = {shard.path: int((~shard.read(slice(None))[1]).sum()) for shard in self.shards()}
        return {path: count for path, count in counts.items() if count}

    def repair(self) -> None:
        """Move each shard with a damaged row aside, storing its sound rows anew."""
        damaged = self.damaged_rows()
        with self._damage_reported():
            for shard in self._snapshot.shards:
                if shard.path in damaged:
                    self._salvage(shard)

    def _read(self, snapshot: _Snapshot, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = snapshot.table.find(keys)
        wanted = np.flatnonzero(places >= 0)
        shard_of = snapshot.shard_of[places[wanted]]
        row_of = snapshot.row_of[places[wanted]]
        numbers = np.unique(shard_of).tolist()
        if len(numbers) == 1 and len(wanted) == len(keys):
            rows, sound = snapshot.shards[numbers[0]].read(row_of)
            if sound.all():
                return rows, sound
        embeddings, found = self._nothing(len(keys))
        for number in numbers:
            mine = shard_of == number
            rows, sound = snapshot.shards[number].read(row_of[mine])
            targets = wanted[mine][sound]
            embeddings[targets] = rows[sound]
            found[targets] = True
            if not sound.all():
                self._salvage(snapshot.shards[number])
        return embeddings, found

    def _nothing(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        embeddings = np.full((n_samples, self.space.n_features), np.nan, np.float32)
        return embeddings, np.zeros(n_samples, bool)

    def _refreshed(self) -> _Snapshot:
        stems = _stems(self.folder)
        if stems != self._snapshot.stems:
            known = {shard.path.stem: shard for shard in self._snapshot.shards}
            opened = [known.get(stem) or self._open(stem) for stem in sorted(stems)]
            self._snapshot = _snapshot_of(tuple(filter(None, opened)), stems)
        return self._snapshot

    def _open(self, stem: str) -> Shard | None:
        """Open a shard, from its data alone if the index is of no use; None if there is no way."""
        data, index = (self.folder / f"{stem}{suffix}" for suffix in (DATA_SUFFIX, INDEX_SUFFIX))
        try:
            return self._own(open_shard(index))
        except OSError:
            # Lost, or its writer is between its two renames: the data say all that it would.
            fault = None
        except DamagedShardError as exc:
            fault = exc
        try:
            shard = self._own(rebuild_index(data))
        except OSError:
            return None
        except DamagedShardError as exc:
            self._move_aside(f"{fault or exc}", index, data)
            return None
        if fault:
            self._damage.append(f"{fault}; the index was made anew")
        return shard

    def _own(self, shard: Shard) -> Shard:
        if shard.space.digest != self.space.digest:
            raise DamagedShardError(f"{shard.path} holds rows of another space")
        return shard

    def _salvage(self, shard: Shard) -> None:
        embeddings, sound = shard.read(slice(None))
        reason = f"{shard.path}: {int((~sound).sum())} of {shard.shape[0]} rows are damaged"
        try:
            if sound.any():
                self.append(shard.keys[sound], embeddings[sound])
        except OSError as exc:
            self._damage.append(f"{reason}, and the others cannot be stored anew ({exc})")
            return
        self._move_aside(reason, shard.path, shard.index_path)

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
    def _damage_reported(self) -> Iterator[None]:
        """Turn the damage found inside into one warning."""
        yield
        if self._damage:
            found, self._damage = "; ".join(self._damage), []
            warnings.warn(
                CacheDamageWarning(
                    f"damage in the cache: {found}. Damaged files are in {self.damaged_folder}; "
                    "their rows are computed again."
                ),
                stacklevel=4,
            )


def _stems(folder: Path) -> frozenset[str]:
    """Name the shards of a folder, those without an index included."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("shard-")]
    except OSError:
        # Not there, or not to be read: rows are computed again, and storing names the trouble.
        return frozenset()
    suffixes = (DATA_SUFFIX, INDEX_SUFFIX)
    return frozenset(os.path.splitext(name)[0] for name in names if name.endswith(suffixes))


def _snapshot_of(shards: tuple[Shard, ...], stems: frozenset[str]) -> _Snapshot:
    lengths = [len(shard.keys) for shard in shards]
    return _Snapshot(
        stems=stems,
        shards=shards,
        table=KeyTable(np.concatenate([np.empty(0, KEY_DTYPE), *(s.keys for s in shards)])),
        shard_of=np.repeat(np.arange(len(shards)), lengths),
        row_of=np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in lengths)]),
    )
