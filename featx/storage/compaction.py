"""Many small shards into few: merged ones are in place before the old ones go.

So neither a kill at any moment nor a reader at the same time loses a row. Processes that merge the
same shards at once write one shard, whose name follows from its content. If they merge overlapping
sets of shards, rows are stored twice until the next merge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from featx._files import remove_abandoned_parts, remove_if_abandoned
from featx.identity.key_table import NO_KEY, KeyTable, distinct
from featx.storage.shards import DATA_SUFFIX, INDEX_SUFFIX, SHARD_PREFIX, Shard, remove_shard
from featx.storage.snapshots import Snapshot
from featx.storage.store import SpaceStore

MAX_SHARDS = 256
_MERGED_BYTES = 128 * 2**20  # of a shard: three times this is held in memory while merging
_MAX_TINY = 16
_TINY_BYTES = 8 * 2**20
_GROWTH = 2  # a shard is merged with smaller ones that hold half as many rows together


def compact(store: SpaceStore) -> None:
    """Merge the small shards of a space, and those that hold rows of others, into few.

    Rows keep the order in which they came. While a row cannot be read, no shard is removed.

    Parameters
    ----------
    store : SpaceStore

    Raises
    ------
    OSError
        The merged shards could not be written; nothing is lost.
    """
    _sweep(store)
    with store.damage.reported():
        snapshot = store.snapshot()
    _merge(store, _worth_merging(snapshot))


def merge_tiny(store: SpaceStore) -> None:
    """Merge tiny shards of similar sizes once there are many, as after passes over single samples.

    Each row is rewritten only a few times, since a shard is not merged with smaller ones that
    together hold less than half of its rows. One thread of a process merges; no other waits for it.

    Parameters
    ----------
    store : SpaceStore

    Raises
    ------
    OSError
        The merged shard could not be written; nothing is lost.
    """
    if not store.merging.acquire(blocking=False):
        return
    try:
        _merge(store, _tiny_of_similar_sizes(store.shards()))
    finally:
        store.merging.release()


def _tiny_of_similar_sizes(shards: Sequence[Shard]) -> list[Shard]:
    tiny = sorted((shard for shard in shards if shard.size_bytes <= _TINY_BYTES), key=len)
    if len(tiny) <= _MAX_TINY:
        return []
    starts = np.cumsum([0, *map(len, tiny)])
    twice = KeyTable(np.concatenate([shard.keys for shard in tiny])).repeated()
    chosen, n_rows = set(), 0
    for number, (shard, start) in enumerate(zip(tiny, starts.tolist(), strict=False)):
        fits = number < 2 or len(shard) <= _GROWTH * n_rows
        if fits or twice[start : start + len(shard)].any():
            chosen.add(shard.path)
            n_rows += len(shard)
    return [shard for shard in shards if shard.path in chosen]


def _merge(store: SpaceStore, old: Sequence[Shard]) -> None:
    if not old:
        return
    keys = distinct(np.concatenate([shard.keys for shard in old]))
    keys = keys[keys != NO_KEY]
    times_s = min(shard.times_s[0] for shard in old), max(shard.times_s[1] for shard in old)
    stamp_ns = max(shard.stamp_ns for shard in old)
    n_merged, kept = 0, set()
    for number, (block_keys, embeddings) in enumerate(blocks(store, keys)):
        if len(block_keys):
            merged = store.append(
                block_keys, embeddings, times_s=times_s, stamp_ns=stamp_ns + number
            )
            n_merged += len(block_keys)
            kept |= {shard.path for shard in merged}
    if n_merged == len(keys):
        for shard in old:
            if shard.path not in kept:
                remove_shard(shard)


def _worth_merging(snapshot: Snapshot) -> list[Shard]:
    """Choose the shards that are small, or hold a row that another holds too.

    All that hold such a row, so that whoever removes a shard has written each of its rows anew:
    what another process that compacts at the same time does with the others does not matter.
    """
    twice = snapshot.repeated()
    ends = zip(snapshot.starts[:-1], snapshot.starts[1:], strict=True)
    has_doubles = [bool(twice[start:stop].any()) for start, stop in ends]
    chosen = [
        shard
        for shard, doubles in zip(snapshot.shards, has_doubles, strict=True)
        if doubles or shard.size_bytes < _MERGED_BYTES // 2
    ]
    return chosen if len(chosen) > 1 or any(has_doubles) else []


def _sweep(store: SpaceStore) -> None:
    """Remove what writers and compactions that were killed left, a day ago or longer."""
    remove_abandoned_parts(store.folder)
    for index in store.folder.glob(f"{SHARD_PREFIX}*{INDEX_SUFFIX}"):
        if not index.with_suffix(DATA_SUFFIX).exists():
            remove_if_abandoned(index)


def blocks(store: SpaceStore, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read rows in blocks that fit in memory.

    Parameters
    ----------
    store : SpaceStore
    keys : ndarray of shape (n,), dtype S16
        Distinct.

    Yields
    ------
    keys : ndarray of shape (m,), dtype S16
        Those whose row was there and sound.
    embeddings : ndarray of shape (m, n_features), float32
    """
    n_rows = max(1, _MERGED_BYTES // (store.space.dtype.itemsize * store.space.n_features))
    for start in range(0, len(keys), n_rows):
        block = keys[start : start + n_rows]
        embeddings, found = store.find(block)
        yield block[found], embeddings[found] if not found.all() else embeddings
