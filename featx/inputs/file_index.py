"""FileIndex: digests of files that were hashed before, found by what ``stat`` returns.

A pass over a million known files should cost a million ``stat`` calls, not a terabyte of reading.
The index maps (path, size, times of modification and change, inode) to the digest of the content.
An entry is made only if the file was already old when it was hashed: a file that changes twice
within the resolution of its clock would otherwise keep its first digest (git calls such entries
racy).

On disk, the index is a folder of immutable sealed segments, each an array of (key, digest) pairs
with distinct keys. Segments of similar sizes are merged, so that there are few, and each entry is
rewritten only a few times. The name of a segment is a digest of the set of its pairs: processes
that merge the same segments at once write the same file. A process removes only segments that it
has read, and only once another segment holds all their entries, so no entry is lost when several
processes merge. If their merges overlap, the segments with common entries are merged later.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from featx._files import (
    IrregularFileError,
    check_folder,
    names_in,
    read_regular,
    seal,
    unseal,
    write_atomically,
)
from featx._warning import warn_caller
from featx.digests.hashing import DIGEST_BYTES, digest_of
from featx.digests.key_table import (
    KEY_DTYPE,
    NO_KEY,
    KeyTable,
    bytes_from_keys,
    first_positions_of_keys,
    keys_from,
    matrix_from_keys,
)
from featx.exceptions import CacheDamageWarning, CacheWriteWarning

_MAGIC = b"featx-file-index-1\n"
_SETTLED_S = 2.0  # the coarsest clock in use, FAT's, ticks every two seconds
_MAX_SEGMENTS = 16
_GROWTH = 2  # a segment is merged with smaller ones that hold half as many entries together
_MAX_OVERLAP = 1 / 4  # fraction of a segment's entries that may be in others without a merge
_MIN_OVERLAP_ENTRIES = 16  # smaller segments are not compared, since they are merged soon anyway
_MAX_ROUNDS = 8
_PAIR_BYTES = 2 * DIGEST_BYTES
_PREFIX, _SUFFIX = "files-", ".index"
_STATE = struct.Struct("<qqqQ")
_LOW_64_BITS = 2**64 - 1


def file_key(path: str, status: os.stat_result) -> bytes:
    """Return a digest of the path and the state of a file."""
    state = _STATE.pack(
        status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _LOW_64_BITS
    )
    return digest_of(state + os.fsencode(path))


def is_settled(modified_s: float) -> bool:
    """Return True if a file was changed so long ago that a new change gives it another state."""
    return time.time() - modified_s >= _SETTLED_S


class FileIndex:
    """Digests of files that were hashed before, in memory only if the folder is None.

    Examples
    --------
    >>> index = FileIndex(None)
    >>> keys = np.array([b"k" * 16])
    >>> index.find(keys).tolist()
    [b'']
    >>> index.add(b"k" * 16, b"d" * 16, modified_s=0.0)
    >>> index.find(keys).tolist()
    [b'dddddddddddddddd']
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._stored = _IndexSegments({}, frozenset())
        self._added: dict[bytes, bytes] = {}
        self._unclaimed: set[bytes] = set()  # keys in _added that no thread is storing yet
        self._merging = threading.Lock()
        self._has_failed = False

    def __reduce__(self) -> tuple[type[FileIndex], tuple[Path | None]]:
        return type(self), (self.folder,)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the digest of each file, (n,) S16, all zero if it is not known."""
        # First, since entries that are flushed meanwhile are then found in a segment.
        found = (self._added.get(key, NO_KEY) for key in bytes_from_keys(keys))
        added = keys_from(found, count=len(keys))
        stored = self._refreshed().find(keys)
        return np.where(stored == NO_KEY, added, stored)

    def add(self, key: bytes, digest: bytes, *, modified_s: float) -> None:
        """Remember a digest if the file, last changed at `modified_s`, is old enough."""
        if is_settled(modified_s):
            self._added[key] = digest
            self._unclaimed.add(key)

    def flush(self) -> None:
        """Store added entries as a segment, and merge segments if there are many.

        Entries that another thread is storing are left to it. If the folder cannot be written,
        OSError is raised, and added entries stay in memory.
        """
        if self.folder is None:
            return
        claimed = list(_pop_all_keys(self._unclaimed))
        if claimed:
            try:
                self._store(self.folder, claimed)
            except BaseException:
                self._unclaimed.update(claimed)
                raise
        # Segments that cannot be merged now are merged later.
        if self._merging.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._merge(self.folder)
            finally:
                self._merging.release()

    def flush_or_warn(self) -> None:
        """Store added entries; warn, once, if the folder cannot be written."""
        try:
            self.flush()
        except OSError as exc:
            if not self._has_failed:
                self._has_failed = True
                warn_caller(
                    CacheWriteWarning(
                        f"the digests of files cannot be stored ({exc}): the files will be read "
                        "again the next time. Pass another folder: cache=PATH, or FEATX_CACHE."
                    )
                )

    def _store(self, folder: Path, claimed: list[bytes]) -> None:
        """Store added entries, except those that are stored already."""
        claimed = [key for key in claimed if key in self._added]  # else it was stored just now
        keys = keys_from(claimed, count=len(claimed))
        digests = keys_from((self._added[key] for key in claimed), count=len(claimed))
        is_new = self._refreshed().find(keys) != digests
        if is_new.any():
            pairs = [matrix_from_keys(keys[is_new]), matrix_from_keys(digests[is_new])]
            self._write(folder, np.hstack(pairs))
        for key in claimed:
            self._added.pop(key, None)

    def _merge(self, folder: Path) -> None:
        for _ in range(_MAX_ROUNDS):
            stored = self._refreshed()
            group = stored.worth_merging()
            if not group:
                return
            pairs = np.concatenate([stored.by_name[name].pairs for name in group])
            merged = self._write(folder, _without_duplicates(pairs))
            for name in group - {merged}:
                (folder / name).unlink(missing_ok=True)

    def _write(self, folder: Path, pairs: np.ndarray) -> str:
        """Write a segment and return its name, the same for the same pairs in any order."""
        sums = pairs.view(np.uint64).sum(axis=0)
        name = f"{_PREFIX}{digest_of(len(pairs).to_bytes(8, 'little'), sums).hex()}{_SUFFIX}"
        check_folder(folder)
        write_atomically(folder / name, seal(_MAGIC + pairs.tobytes()))
        self._stored = self._stored.joined({name: _IndexSegment(pairs)})
        return name

    def _refreshed(self) -> _IndexSegments:
        stored = self._stored
        names = _segment_names(self.folder) if self.folder else frozenset()
        if self.folder is not None and names != stored.by_name.keys():
            new = sorted(names - stored.by_name.keys())
            read = {name: _IndexSegment(_read_pairs(self.folder / name)) for name in new}
            # Threads share one immutable object, which is replaced.
            stored = self._stored = stored.limited_to(names).joined(read)
        return stored


def _pop_all_keys(keys: set[bytes]) -> Iterable[bytes]:
    """Yield and remove all keys of a set; threads that share it get different keys."""
    with contextlib.suppress(KeyError):
        while True:
            yield keys.pop()


@dataclass(frozen=True, eq=False)
class _IndexSegment:
    """The contents of one file: pairs of key and digest, shape (n, 32), uint8."""

    pairs: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def keys(self) -> np.ndarray:
        """Keys of the files, (n,) S16, without a copy."""
        return self.pairs.view(KEY_DTYPE)[:, 0]

    @property
    def digests(self) -> np.ndarray:
        """Digests of the files, (n,) S16, without a copy."""
        return self.pairs.view(KEY_DTYPE)[:, 1]

    @cached_property
    def table(self) -> KeyTable:
        return KeyTable(self.keys)


@dataclass(frozen=True, eq=False)
class _IndexSegments:
    """The segments of a listing by name.

    `overlaps` has the names of two segments of which one holds many entries of the other; the same
    name twice for a segment with repeated entries.
    """

    by_name: dict[str, _IndexSegment]
    overlaps: frozenset[tuple[str, str]]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the digest of each key, (n,) S16, all zero if it is not known."""
        digests = np.zeros(len(keys), KEY_DTYPE)
        unknown = np.arange(len(keys))
        for segment in sorted(self.by_name.values(), key=len, reverse=True):
            if not len(unknown):
                break
            places = segment.table.find(keys[unknown])
            is_known = places >= 0
            digests[unknown[is_known]] = segment.digests[places[is_known]]
            unknown = unknown[~is_known]
        return digests

    def joined(self, others: dict[str, _IndexSegment]) -> _IndexSegments:
        """Return these and other segments, with the overlaps between them."""
        by_name, overlaps = dict(self.by_name), set(self.overlaps)
        for name, segment in others.items():
            compared = by_name.items() if len(segment) >= _MIN_OVERLAP_ENTRIES else ()
            known = {
                other: n_common
                for other, one in compared
                if other != name and (n_common := int((one.table.find(segment.keys) >= 0).sum()))
            }
            if sum(known.values()) > _MAX_OVERLAP * len(segment):
                overlaps |= {(name, other) for other in known}
            if len(segment) > 1 and segment.table.repeated().any():
                overlaps.add((name, name))
            by_name[name] = segment
        return _IndexSegments(by_name, frozenset(overlaps))

    def limited_to(self, names: frozenset[str]) -> _IndexSegments:
        """Return the segments that are still listed."""
        by_name = {name: one for name, one in self.by_name.items() if name in names}
        overlaps = {pair for pair in self.overlaps if names.issuperset(pair)}
        return _IndexSegments(by_name, frozenset(overlaps))

    def worth_merging(self) -> set[str]:
        """Return the names of segments to merge into one; empty if there is nothing to merge."""
        if self.overlaps:
            return set(itertools.chain(*self.overlaps))
        if len(self.by_name) <= _MAX_SEGMENTS:
            return set()
        # Without empty segments, which may just be unreadable at the moment.
        filled = (name for name, segment in self.by_name.items() if len(segment))
        by_size = sorted(filled, key=lambda name: len(self.by_name[name]))
        group, n_entries = by_size[:2], sum(len(self.by_name[name]) for name in by_size[:2])
        for name in by_size[2:]:
            if len(self.by_name[name]) > _GROWTH * n_entries:
                break
            group.append(name)
            n_entries += len(self.by_name[name])
        return set(group) if len(group) > 1 else set()


def _without_duplicates(pairs: np.ndarray) -> np.ndarray:
    """Return each pair once; drop keys with two digests, whose files are hashed again."""
    all_pairs = _IndexSegment(pairs)
    firsts = _IndexSegment(pairs[first_positions_of_keys(all_pairs.keys)])
    places = firsts.table.find(all_pairs.keys)
    contradicted = places[firsts.digests[places] != all_pairs.digests]
    return np.delete(firsts.pairs, contradicted, axis=0)


def _segment_names(folder: Path) -> frozenset[str]:
    # In a folder that cannot be read there are none; storing entries again gives the warning.
    return frozenset(
        name for name in names_in(folder) if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
    )


def _read_pairs(path: Path) -> np.ndarray:
    """Read a segment; remove it if it is damaged, so that its files are hashed again.

    A file that does not begin as a segment does is foreign, and stays.
    """
    with contextlib.suppress(OSError):
        try:
            data = read_regular(path, start=_MAGIC)
        except IrregularFileError:
            os.replace(path, path.with_name(f".{path.name}.damaged"))
        else:
            if not data and path.stat().st_size:
                warn_caller(CacheDamageWarning(f"{path} was not written by featx and is ignored"))
                return np.empty((0, _PAIR_BYTES), np.uint8)
            payload = unseal(memoryview(data)) or b""  # a view, since the index may be large
            if (len(payload) - len(_MAGIC)) % _PAIR_BYTES == 0 and payload:
                pairs = np.frombuffer(payload, np.uint8, offset=len(_MAGIC))
                pairs = pairs.reshape(-1, _PAIR_BYTES)
                return pairs[pairs.view(KEY_DTYPE)[:, 1] != NO_KEY]
            path.unlink()
        warn_caller(
            CacheDamageWarning(f"{path} was damaged and has been removed: files are hashed again")
        )
    return np.empty((0, _PAIR_BYTES), np.uint8)
