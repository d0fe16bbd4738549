"""Maintenance of a cache: ``compact``, ``repair_shards``, ``choose_evictions``, ``recheck_rows``.

Compaction merges many small shards into few. Merged shards are in place before the old ones are
removed, so no row is lost if the process is killed, and none is missing for concurrent readers.
Processes that merge the same shards at once write the same shard, whose name is a digest of its
content. If they merge overlapping sets of shards, rows are stored twice until the next merge.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from featx._files import remove_abandoned_parts, remove_if_abandoned
from featx._text import one_line
from featx.cache.shard import (
    DATA_SUFFIX,
    INDEX_SUFFIX,
    SHARD_PREFIX,
    DamagedShardError,
    Shard,
    examine_shards,
    open_shard,
    remove_shard,
)
from featx.cache.store import Snapshot, SpaceStore
from featx.cache.usage import USAGE_FILE, is_past, read_usage
from featx.digests.key_table import NO_KEY, KeyTable, distinct_keys
from featx.digests.space import Space
from featx.exceptions import ParameterError
from featx.inputs.samples import Samples

MAX_SHARDS = 256
_MERGED_BYTES = 128 * 2**20  # size of a merged shard; merging holds three times this in memory
_MAX_TINY = 16
_TINY_BYTES = 8 * 2**20
_GROWTH = 2  # a shard is merged with smaller ones that hold half as many rows together
_N_SHOWN_DIGITS = 8  # of a digest


def compact(store: SpaceStore) -> None:
    """Merge the small shards of a space, and those that share rows with others, into few.

    Rows keep the order in which they were stored. If a row cannot be read, no shard is removed. If
    the merged shards cannot be written, OSError is raised, and nothing is lost.
    """
    _remove_unfinished_files(store)
    with store.damage.reported():
        snapshot = store.snapshot()
    _merge(store, _shards_worth_merging(snapshot))


def merge_tiny(store: SpaceStore) -> None:
    """Merge tiny shards of similar sizes once there are many, as after passes over single samples.

    Each row is rewritten only a few times, since a shard is not merged with smaller ones that
    together hold less than half of its rows. One thread of a process merges; no other waits for it.
    If the merged shard cannot be written, OSError is raised, and nothing is lost.
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
    keys = distinct_keys(np.concatenate([shard.keys for shard in old]))
    keys = keys[keys != NO_KEY]
    times_s = min(shard.times_s[0] for shard in old), max(shard.times_s[1] for shard in old)
    stamp_ns = max(shard.stamp_ns for shard in old)
    n_merged, kept = 0, set()
    for number, block in enumerate(_blocks(store, keys)):
        if len(block[0]):
            merged = store.append(*block, times_s=times_s, stamp_ns=stamp_ns + number)
            n_merged += len(block[0])
            kept |= {shard.path for shard in merged}
    if n_merged == len(keys):
        for shard in old:
            if shard.path not in kept:
                remove_shard(shard)


def _shards_worth_merging(snapshot: Snapshot) -> list[Shard]:
    """Choose the shards that are small, or share a row with another shard.

    All shards with such a row are chosen. So a process that removes a shard has written each of its
    rows again, whatever another process that compacts at the same time does with other shards.
    """
    twice = snapshot.repeated()
    has_repeated = [bool(twice[start:stop].any()) for start, stop in pairwise(snapshot.starts)]
    chosen = [
        shard
        for shard, is_repeated in zip(snapshot.shards, has_repeated, strict=True)
        if is_repeated or shard.size_bytes < _MERGED_BYTES // 2
    ]
    return chosen if len(chosen) > 1 or any(has_repeated) else []


def _remove_unfinished_files(store: SpaceStore) -> None:
    """Remove unfinished files of writers that were killed a day ago or longer."""
    remove_abandoned_parts(store.folder)
    for index in store.folder.glob(f"{SHARD_PREFIX}*{INDEX_SUFFIX}"):
        if not index.with_suffix(DATA_SUFFIX).exists():
            remove_if_abandoned(index)


def _blocks(store: SpaceStore, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the keys and rows of those keys whose row is sound, in blocks that fit in memory."""
    n_rows = max(1, _MERGED_BYTES // (store.space.dtype.itemsize * store.space.n_features))
    for start in range(0, len(keys), n_rows):
        block = keys[start : start + n_rows]
        embeddings, found = store.find(block)
        yield block[found], embeddings[found] if not found.all() else embeddings


def space_of(folder: Path) -> Space | None:
    """Return the space of a folder from its shards; None if none of them can be read."""
    for index in sorted(folder.glob(f"*{INDEX_SUFFIX}")):
        with contextlib.suppress(DamagedShardError, OSError):
            space = open_shard(index).space
            if space.digest == folder.name:
                return space
    with contextlib.suppress(OSError):
        for shard in examine_shards(sorted(folder.glob(f"*{DATA_SUFFIX}"))):
            if isinstance(shard, Shard) and shard.space.digest == folder.name:
                return shard.space
    return None


def choose_store(stores: Sequence[SpaceStore], digest: str, *, folder: Path) -> SpaceStore:
    """Return the store of the space whose digest starts with `digest`, which may be empty.

    If there is no such space, or more than one, ParameterError is raised.
    """
    chosen = [store for store in stores if store.space.digest.startswith(digest)]
    if len(chosen) == 1:
        return chosen[0]
    if not stores:
        raise ParameterError(f"nothing is stored in {one_line(folder)} yet")
    labels = {store.space.digest: store.space.label for store in chosen or stores}
    n_shown = _N_SHOWN_DIGITS
    while len({digest[:n_shown] for digest in labels}) < len(labels):
        n_shown += 1
    listed = {digest[:n_shown]: label for digest, label in labels.items()}
    cure = (
        f"choose one by the first digits of its digest, such as {next(iter(listed))!r}. "
        f"Stored: {'; '.join(f'{beginning} {label}' for beginning, label in listed.items())}"
    )
    if not digest:
        raise ParameterError(f"{one_line(folder)} holds {len(stores)} spaces: {cure}")
    problem = f"{len(chosen) or 'no'} spaces have a digest that begins so"
    raise ParameterError.of("space", digest, f"{problem}: {cure}")


def describe_space(store: SpaceStore) -> dict[str, Any]:
    """Return plain data on a space and its stored rows: see :meth:`EmbeddingCache.info`."""
    shards = store.shards()
    usage = read_usage(store.folder)
    times_s = [time_s for shard in shards for time_s in shard.times_s]
    return {
        "digest": store.space.digest,
        "label": store.space.label,
        "identity": store.space.description,
        "n_rows": len(store.keys()),
        "n_forward": sum(map(len, shards)),
        "n_hits": usage.n_hits,
        "n_shards": len(shards),
        "size_bytes": sum(map(_disk_bytes, shards)),
        "oldest": _iso_time(min(times_s, default=0)),
        "newest": _iso_time(max(times_s, default=0)),
        "last_used": _iso_time(_last_used_s(store)),
    }


def find_damage(store: SpaceStore) -> dict[Path, str]:
    """Return the fault of each file that is damaged or cannot be read."""
    shards = store.snapshot().shards
    damage = dict(store.damage.taken())
    for shard in shards:
        try:
            n_unsound = int((~shard.read_all()[1]).sum())
            if n_unsound:
                damage[shard.path] = f"{n_unsound} of {len(shard)} rows are damaged"
            elif not shard.has_sound_frame():
                damage[shard.path] = "the bytes around its rows are damaged"
        except FileNotFoundError:
            continue  # another process has just merged or removed it
        except OSError as exc:
            damage[shard.path] = f"cannot be read ({exc.strerror or exc})"
    return damage


def repair_shards(store: SpaceStore, damage: dict[Path, str]) -> None:
    """Quarantine damaged shards and store their sound rows again."""
    remove_abandoned_parts(store.folder)
    with store.damage.reported():
        for shard in store.snapshot().shards:
            if shard.path in damage:
                with contextlib.suppress(OSError):  # `damage` names it as unreadable
                    store.salvage(shard, damage[shard.path])


class Eviction(NamedTuple):
    """A summary of the shards of a space that are removed.

    Attributes
    ----------
    digest, label : str
        Digest and label of the space.
    last_used : str or None
        Time of its last use in UTC, ISO 8601.
    n_shards, n_rows, size_bytes : int
        Number of the shards, of the rows in them, and bytes that their removal frees.
    """

    digest: str
    label: str
    last_used: str | None
    n_shards: int
    n_rows: int
    size_bytes: int


def choose_evictions(
    stores: Sequence[SpaceStore],
    graph_bytes: Mapping[str, int],
    *,
    max_bytes: int | None,
    older_than: timedelta | None,
) -> list[tuple[SpaceStore, list[Shard]]]:
    """Choose the shards to remove: of spaces unused for long, then of the least recently used.

    The graphs of a space go with its last shard; `graph_bytes` has their size by its digest. If
    neither limit was passed, or one is negative, ParameterError is raised.
    """
    if max_bytes is None and older_than is None:
        raise ParameterError("expected max_bytes, older_than or both")
    if max_bytes is not None and max_bytes < 0:
        raise ParameterError(f"max_bytes={max_bytes}: expected a size in bytes, 0 or more")
    if older_than is not None and older_than < timedelta(0):
        raise ParameterError(f"older_than={older_than}: expected a length of time, 0 or more")
    now_s = time.time()
    by_use = sorted(stores, key=_last_used_s)
    shards_of = {store.space.digest: list(store.shards()) for store in by_use}
    kept_bytes = sum(_disk_bytes(shard) for shards in shards_of.values() for shard in shards)
    kept_bytes += sum(graph_bytes.get(digest, 0) for digest in shards_of)
    chosen = []
    for store in by_use:
        shards = shards_of[store.space.digest]
        is_old = older_than is not None and now_s - _last_used_s(store) > older_than.total_seconds()
        removed: list[Shard] = []
        for shard in shards:
            if is_old or (max_bytes is not None and kept_bytes > max_bytes):
                removed.append(shard)
                kept_bytes -= _disk_bytes(shard)
        if len(removed) == len(shards):
            kept_bytes -= graph_bytes.get(store.space.digest, 0)
        if removed:
            chosen.append((store, removed))
    return chosen


def summarize(
    store: SpaceStore, shards: Sequence[Shard], graph_bytes: Mapping[str, int]
) -> Eviction:
    """Sum up the removal of some shards of a space, and of its graphs if no shard is left."""
    is_last = len(shards) == len(store.shards())
    return Eviction(
        digest=store.space.digest,
        label=store.space.label,
        last_used=_iso_time(_last_used_s(store)),
        n_shards=len(shards),
        n_rows=sum(map(len, shards)),
        size_bytes=sum(map(_disk_bytes, shards))
        + (graph_bytes.get(store.space.digest, 0) if is_last else 0),
    )


def remove_shards(store: SpaceStore, shards: Sequence[Shard]) -> None:
    """Remove shards, and the folder of the space if nothing is left in it."""
    for shard in shards:
        remove_shard(shard)
    if not store.shards():
        with contextlib.suppress(OSError):
            (store.folder / USAGE_FILE).unlink(missing_ok=True)
            store.folder.rmdir()


class Recheck(NamedTuple):
    """The outcome of computing stored rows again.

    `largest_difference` is the largest ||computed - stored|| / ||computed|| of a row; `differing`
    names the samples whose rows differ by more than the storage can explain.
    """

    n_sampled: int
    largest_difference: float
    differing: list[str]


def recheck_rows(
    store: SpaceStore, keys: np.ndarray, samples: Samples, extractor: Any, *, n_sampled: int
) -> Recheck:
    """Compute rows again and compare; they are drawn with a fixed seed from the stored ones."""
    stored = np.flatnonzero(store.holds(keys))
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(stored, min(n_sampled, len(stored)), replace=False))
    if not len(rows):
        return Recheck(0, 0.0, [])
    kept, _ = store.find(keys[rows])
    # Rows under these keys belong to the samples themselves, not to their augmented views.
    itself = clone(extractor).set_params(cache=None, views=1, augment=None)
    fresh = itself.fit_transform(samples.take(rows))
    computed = np.asarray(fresh).reshape(kept.shape)
    norms = np.maximum(np.linalg.norm(computed, axis=1), np.finfo(np.float32).tiny)
    gaps = np.linalg.norm(computed - kept, axis=1) / norms
    # Two engines agree within 1e-4; float16 keeps 11 bits. NaN is not within either.
    allowed = 1e-4 if store.space.dtype == np.float32 else 2e-3
    differing = [samples.name(row) for row in rows[~(gaps <= allowed)].tolist()]
    return Recheck(len(rows), float(gaps.max()), differing)


def _last_used_s(store: SpaceStore) -> float:
    """Return the time of the last look-up or, if none is recorded, of the last storage."""
    stored_s = (shard.times_s[1] for shard in store.shards() if is_past(shard.times_s[1]))
    return read_usage(store.folder).last_used_s or max(stored_s, default=0.0)


def _disk_bytes(shard: Shard) -> int:
    with contextlib.suppress(FileNotFoundError):
        return shard.path.stat().st_size + shard.index_path.stat().st_size
    return 0


def folder_bytes(folder: Path) -> int:
    """Sum up the sizes of the files in a folder; zero if it is not there."""
    with contextlib.suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0


def _iso_time(seconds: float) -> str | None:
    """Return a time, in seconds since 1970, as ISO 8601 in UTC; None for 0."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else None
