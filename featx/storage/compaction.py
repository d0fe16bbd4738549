"""Many small shards into few: merged ones are in place before the old ones go.

So neither a kill at any moment nor a reader at the same time loses a row, and two processes that
compact at once only store rows twice, until the next time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from featx._files import remove_abandoned_parts, remove_if_abandoned
from featx.identity.key_table import NO_KEY, distinct
from featx.storage.shards import DATA_SUFFIX, INDEX_SUFFIX, SHARD_PREFIX, Shard, remove_shard
from featx.storage.store import Snapshot, SpaceStore

MAX_SHARDS = 256
_MERGED_BYTES = 128 * 2**20  # of a shard: three times this is held in memory while merging


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
    old = _worth_merging(snapshot)
    if not old:
        return
    keys = distinct(np.concatenate([shard.keys for shard in old]))
    keys = keys[keys != NO_KEY]
    times_s = min(shard.times_s[0] for shard in old), max(shard.times_s[1] for shard in old)
    n_merged = 0
    for block_keys, embeddings in blocks(store, keys):
        if len(block_keys):
            store.append(block_keys, embeddings, times_s=times_s)
            n_merged += len(block_keys)
    if n_merged == len(keys):
        for shard in old:
            remove_shard(shard)


def _worth_merging(snapshot: Snapshot) -> list[Shard]:
    """Choose the shards that are small, or hold a row that another holds too.

    All that hold such a row, so that whoever removes a shard has written each of its rows anew:
    what another process that compacts at the same time does with the others does not matter.
    """
    twice = snapshot.table.repeated() & (snapshot.keys != NO_KEY)
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
