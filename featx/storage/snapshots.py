"""A listing of a space's folder: its shards, and the position of each key in them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featx.identity.key_table import KEY_DTYPE, NO_KEY, KeyTable
from featx.storage.shards import Shard

_GROWTH = 2  # a table is built again with newer ones that hold half as many keys together


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The shards that a listing of the folder showed, oldest first.

    Attributes
    ----------
    names : frozenset of str
        The listing.
    shards : tuple of Shard
    hidden : mapping of Path to ndarray of bool
        Of some shards, which rows are of no use.
    """

    names: frozenset[str]
    shards: tuple[Shard, ...]
    hidden: Mapping[Path, np.ndarray]
    known_tables: tuple[tuple[int, KeyTable], ...] = ()

    @cached_property
    def keys(self) -> np.ndarray:
        """The keys of all shards, one after another; doubles included, hidden ones blank."""
        keys = np.concatenate([np.empty(0, KEY_DTYPE), *(shard.keys for shard in self.shards)])
        for shard, start in zip(self.shards, self.starts.tolist(), strict=False):
            if shard.path in self.hidden:
                keys[start : start + len(shard)][self.hidden[shard.path]] = NO_KEY
        return keys

    @cached_property
    def tables(self) -> tuple[tuple[int, KeyTable], ...]:
        """Tables of consecutive parts of `keys`, each with the position where it begins."""
        n_known = sum(len(table) for _, table in self.known_tables)
        if n_known == len(self.keys):
            return self.known_tables
        tables, start = list(self.known_tables), n_known
        # A table is rebuilt only once half as many keys as it holds were added.
        while tables and len(tables[-1][1]) <= _GROWTH * (len(self.keys) - start):
            start = tables.pop()[0]
        return (*tables, (start, KeyTable(self.keys[start:])))

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
        """Return where in `keys` each of these is, -1 where it is missing; shape (n,), int64."""
        places = np.full(len(keys), -1, np.int64)
        for start, table in self.tables:
            if not start:
                places = table.find(keys)  # of a single table nothing is copied
                continue
            lacking = np.flatnonzero(places < 0)
            found = table.find(keys[lacking])
            places[lacking[found >= 0]] = start + found[found >= 0]
        places[keys == NO_KEY] = -1
        return places

    def repeated(self) -> np.ndarray:
        """Return a mask of the keys that occur more than once in `keys`, shape (n,), bool."""
        return KeyTable(self.keys).repeated() & (self.keys != NO_KEY)

    @cached_property
    def starts(self) -> np.ndarray:
        """Where in `keys` each shard begins, and where the last ends."""
        return np.cumsum([0, *map(len, self.shards)])

    def locate(
        self, places: np.ndarray, *, max_rows: int
    ) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """Yield each shard that holds some of these places in `keys`, large ones in parts.

        Yields
        ------
        shard : Shard
        rows : ndarray of shape (m,), m at most `max_rows`
            Of the shard.
        which : ndarray of shape (m,)
            Positions in `places`.
        """
        order = np.argsort(places, kind="stable")
        bounds = np.searchsorted(places[order], self.starts)
        for shard, first, (start, stop) in zip(
            self.shards, self.starts.tolist(), itertools.pairwise(bounds.tolist()), strict=False
        ):
            for part in range(start, stop, max_rows):
                which = order[part : min(part + max_rows, stop)]
                yield shard, places[which] - first, which
