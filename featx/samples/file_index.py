"""What files contain, remembered by what ``stat`` says of them.

A warm pass over a million files should cost a million ``stat`` calls, not a terabyte of reading.
The index maps (path, size, times of modification and change, inode) to the digest of the content.
An entry is made only if the file was already old when it was hashed: a file that changes twice
within the resolution of its clock would otherwise keep its first digest (git calls such entries
racy).

On disk it is a folder of immutable sealed segments, each an array of (key, digest) pairs.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import uuid
from pathlib import Path

import numpy as np

from featx._files import seal, unseal, write_atomically
from featx._warning import warn_caller
from featx.exceptions import CacheDamageWarning
from featx.identity._hashing import DIGEST_BYTES, digest_of
from featx.identity.key_table import KeyTable, keys_from, keys_from_matrix, matrix_from_keys

_MAGIC = b"featx-file-index-1\n"
_SETTLED_S = 2.0  # the coarsest clock in use, FAT's, ticks every two seconds
_MAX_SEGMENTS = 16
_PREFIX = "files-"
_STATE = struct.Struct("<qqqQ")
_LOW_64_BITS = 2**64 - 1


def file_key(path: str, status: os.stat_result) -> bytes:
    """Digest what tells one state of a file from another."""
    state = _STATE.pack(
        status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino & _LOW_64_BITS
    )
    return digest_of(state + os.fsencode(path))


class FileIndex:
    """Digests of files that were hashed before.

    Parameters
    ----------
    folder : Path or None
        Where segments lie; None keeps the index in memory only.

    Examples
    --------
    >>> index = FileIndex(None)
    >>> index.find([b"k" * 16])
    [None]
    >>> index.add(b"k" * 16, b"d" * 16, modified_s=0.0)
    >>> index.find([b"k" * 16])
    [b'dddddddddddddddd']
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._stored = _Segments({})
        self._added: dict[bytes, bytes] = {}
        self._has_failed = False

    def is_first_failure(self) -> bool:
        """Tell, once, that what was added could not be stored."""
        is_first, self._has_failed = not self._has_failed, True
        return is_first

    def find(self, keys: list[bytes]) -> list[bytes | None]:
        """Return the digest of each file, None where it is not known."""
        stored = self._refreshed()
        places = stored.table.find(keys_from(keys, count=len(keys)))
        digests: list[bytes | None] = [self._added.get(key) for key in keys]
        rows = np.flatnonzero(places >= 0)
        # An S16 element loses its trailing zero bytes when it becomes a Python object.
        known = matrix_from_keys(stored.digests[places[rows]]).tobytes()
        for number, row in enumerate(rows.tolist()):
            digests[row] = known[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
        return digests

    def add(self, key: bytes, digest: bytes, *, modified_s: float) -> None:
        """Remember a digest, if the file had settled; `modified_s` is its time of change."""
        if time.time() - modified_s >= _SETTLED_S:
            self._added[key] = digest

    def flush(self) -> None:
        """Store what was added as a segment; merge the segments when there are many.

        Raises
        ------
        OSError
            The folder cannot be written; what was added is still known.
        """
        if self.folder is None or not self._added:
            return
        added = dict(self._added)  # other threads may add meanwhile
        keys = keys_from(added, count=len(added))
        digests = keys_from(added.values(), count=len(added))
        stored = self._refreshed()
        merged = list(stored.pairs) if len(stored.pairs) >= _MAX_SEGMENTS else []
        if merged:
            keys = np.concatenate([stored.keys, keys])
            digests = np.concatenate([stored.digests, digests])
        pairs = np.hstack([matrix_from_keys(keys), matrix_from_keys(digests)])
        name = f"{_PREFIX}{uuid.uuid4().hex}.index"
        write_atomically(self.folder / name, seal(_MAGIC + pairs.tobytes()))
        for old in merged:
            (self.folder / old).unlink(missing_ok=True)
        for key in added:
            self._added.pop(key, None)

    def _refreshed(self) -> _Segments:
        stored = self._stored
        names = _segment_names(self.folder) if self.folder else []
        if self.folder is not None and set(names) != set(stored.pairs):
            pairs = {
                name: stored.pairs[name]
                if name in stored.pairs
                else _read_segment(self.folder, name)
                for name in names
            }
            # Threads share one object that is replaced whole, so that places fit digests.
            stored = self._stored = _Segments(pairs)
        return stored


class _Segments:
    """What the segments of a listing hold: for each its pairs, shape (n, 32), uint8."""

    def __init__(self, pairs: dict[str, np.ndarray]) -> None:
        self.pairs = pairs
        joined = np.concatenate([np.empty((0, 2 * DIGEST_BYTES), np.uint8), *pairs.values()])
        self.keys = keys_from_matrix(joined[:, :DIGEST_BYTES])
        self.digests = keys_from_matrix(joined[:, DIGEST_BYTES:])
        self.table = KeyTable(self.keys)


def _segment_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.name.startswith(_PREFIX)]
    except OSError:
        # Not there, or not to be read: files are hashed again, and storing names the trouble.
        return []


def _read_segment(folder: Path, name: str) -> np.ndarray:
    """Read a segment; one that is damaged is removed, and its files are hashed again."""
    path = folder / name
    with contextlib.suppress(OSError):
        payload = unseal(path.read_bytes())
        if payload is not None and payload.startswith(_MAGIC):
            return np.frombuffer(payload[len(_MAGIC) :], np.uint8).reshape(-1, 2 * DIGEST_BYTES)
        path.unlink()
        warn_caller(
            CacheDamageWarning(f"{path} was damaged and is removed: files are hashed again")
        )
    return np.empty((0, 2 * DIGEST_BYTES), np.uint8)
