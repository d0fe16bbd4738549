"""Many small shards into few: merged ones are in place before the old ones go.

So neither a kill at any moment nor a reader at the same time loses a row, and two processes that
compact at once only store rows twice, until the next time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featx._files import remove_abandoned_parts
from featx.key_table import distinct
from featx.shards import Shard, remove_shard
from featx.store import Snapshot, SpaceStore

MAX_SHARDS = 256
_MERGED_BYTES = 128 * 2**20  # of a shard: three times this is held in memory while merging


def compact(store: SpaceStore) -> None:
    """Merge the small shards of a space, and those that hold rows of others, into few.

    Rows keep the order in which they came. If a row cannot be read, all shards stay.

    Parameters
    ----------
    store : SpaceStore

    Raises
    ------
    OSError
        The merged shards could not be written; nothing is lost.
    """
    remove_abandoned_parts(store.folder)
    with store.damage_reported():
        snapshot = store.snapshot()
    old = _worth_merging(snapshot)
    if not old:
        return
    staying = [shard.keys for shard in snapshot.shards if shard not in old]
    keys = distinct(np.concatenate([shard.keys for shard in old]))
    if staying:
        keys = keys[~np.isin(keys, np.concatenate(staying))]
    n_merged = 0
    for block_keys, embeddings in blocks(store, keys):
        store.append(block_keys, embeddings)
        n_merged += len(block_keys)
    if n_merged == len(keys):
        for shard in old:
            remove_shard(shard)


def _worth_merging(snapshot: Snapshot) -> list[Shard]:
    """Choose the shards that are small, or hold a row that another holds too."""
    owned = snapshot.table.find(snapshot.keys) == np.arange(len(snapshot.keys))
    has_doubles = [
        not owned[start:stop].all()
        for start, stop in zip(snapshot.starts[:-1], snapshot.starts[1:], strict=True)
    ]
    chosen = [
        shard
        for shard, doubles in zip(snapshot.shards, has_doubles, strict=True)
        if doubles or shard.size_bytes < _MERGED_BYTES // 2
    ]
    return chosen if len(chosen) > 1 or any(has_doubles) else []


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
    n_rows = max(1, _MERGED_BYTES // (4 * store.space.n_features))
    for start in range(0, len(keys), n_rows):
        block = keys[start : start + n_rows]
        embeddings, found = store.find(block)
        yield block[found], embeddings[found] if not found.all() else embeddings
