"""Shard: an immutable block of embeddings on disk, written with an index of its rows.

``shard-<id>.h5`` holds the rows (see ``schema.py``). ``shard-<id>.index`` holds the keys, the
checksums, the offset of the embeddings in the file, and a digest of itself. The index is moved into
place last, which commits the shard. Ids are ordered by time. Rows are read directly from the
``.h5`` file at the recorded offset, and all are checked (see ``read_rows.py``), so that libhdf5,
which damaged metadata can crash, is not needed for reading.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from featx._files import (
    is_regular,
    open_regular,
    read_regular,
    seal,
    unseal,
    write_atomically,
    write_in_order,
)
from featx.cache.hdf5_child_process import HDF5Fault, inspect_shards
from featx.cache.read_rows import Checksums, read_rows
from featx.cache.schema import ROW_FIELDS, ArrayPlace, ShardLayout
from featx.digests.hashing import digest_of
from featx.digests.key_table import keys_from_matrix, matrix_from_keys
from featx.digests.space import Space

INDEX_SUFFIX = ".index"
DATA_SUFFIX = ".h5"
SHARD_PREFIX = "shard-"
_MAGIC = b"featx-shard-index-4\n"
_STAMP = re.compile("[0-9a-f]{16}")
_MAX_HEADER_BYTES = 2**20
_ENTRY_BYTES = sum(field.entry_bytes for field in ROW_FIELDS.values())
# A file that was cut off still gives the rows before the cut, unless hardly anything is left.
_MAX_CUT = 4
_MAX_CUT_BYTES = 64 * 2**20
_LAST_S = 253402300799.0  # the end of the year 9999: Python has no later dates


class DamagedShardError(ValueError):
    """A shard or its index has changed since it was written."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard whose index was found sound.

    `path` is that of the ``.h5`` file, in which the embeddings start at the byte `offset`. `dtype`
    is that of the space, or float32 where it cannot hold them. `frame_digest` covers all bytes of
    the file except the embeddings, which have checksums. `times_s` are the times when the oldest
    and the newest row were first stored, in seconds since 1970.
    """

    path: Path
    space: Space
    keys: np.ndarray
    checksums: Checksums
    offset: int
    dtype: np.dtype
    frame_digest: str
    times_s: tuple[float, float]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def index_path(self) -> Path:
        """Path of the index."""
        return self.path.with_suffix(INDEX_SUFFIX)

    @property
    def stamp_ns(self) -> int:
        """Time stamp that orders the shards, in nanoseconds since 1970; 0 for a foreign name."""
        stamp = self.path.name.removeprefix(SHARD_PREFIX).partition("-")[0]
        return int(stamp, 16) if _STAMP.fullmatch(stamp) else 0

    @property
    def row_bytes(self) -> int:
        """Size of one embedding on disk in bytes."""
        return self.space.n_features * self.dtype.itemsize

    @property
    def size_bytes(self) -> int:
        """Size of all embeddings on disk in bytes."""
        return len(self) * self.row_bytes

    def read(self, rows: np.ndarray, out: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Copy rows into rows `targets` of an array, checking each: see :func:`read_rows`."""
        return read_rows(
            self.path,
            rows,
            offset=self.offset,
            dtype=self.dtype,
            checksums=self.checksums,
            out=out,
            targets=targets,
        )

    def read_all(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all rows as they are stored, and a mask of the sound ones."""
        embeddings = np.empty((len(self), self.space.n_features), self.dtype)
        rows = np.arange(len(self))
        return embeddings, self.read(rows, embeddings, rows)

    def has_sound_frame(self) -> bool:
        """Return True if the bytes around the embeddings, which only HDF5 needs, are unchanged."""
        with BufferedReader(open_regular(self.path)) as file:
            return _frame_digest(file, self.offset, self.size_bytes) == self.frame_digest

    def row_arrays(self) -> dict[str, np.ndarray]:
        """Return the values of :data:`ROW_FIELDS`, as they are stored."""
        return {"keys": matrix_from_keys(self.keys), "checksums": self.checksums.rows}


def write_shard(
    folder: Path,
    keys: np.ndarray,
    embeddings: np.ndarray,
    *,
    space: Space,
    times_s: tuple[float, float] | None = None,
    stamp_ns: int | None = None,
) -> Shard:
    """Store rows as a new shard in the folder of a space; they are on disk when it returns.

    Rows, (n, n_features), are stored in their dtype, float32 or float16. `times_s` are the times
    when the oldest and the newest row were first stored, and `stamp_ns`, in nanoseconds since 1970,
    orders the shards by name; None is now. Shards with the same stamp and content have the same
    name. If OSError is raised, no reader sees any of the shard.
    """
    # Loading h5py takes 0.15 s, which a run that finds all rows in the cache saves.
    from featx.cache.hdf5_frame import shard_frame

    rows = np.ascontiguousarray(embeddings)
    times_s = times_s or (time.time(), time.time())
    frame = shard_frame(len(rows), space=space, dtype=rows.dtype.name)
    offset = frame.places["embeddings"].offset
    shard = Shard(folder, space, keys, Checksums.of(rows), offset, rows.dtype, "", times_s)
    parts = frame.filled({"embeddings": rows, **shard.row_arrays()})
    around = digest_of(*(part for part in parts if part is not rows)).hex()
    content = digest_of(around.encode(), shard.checksums.rows, np.array(times_s)).hex()
    stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
    path = folder / f"{SHARD_PREFIX}{stamp_ns:016x}-{content[:16]}{DATA_SUFFIX}"
    shard = replace(shard, path=path, frame_digest=around)
    write_in_order({path: parts, shard.index_path: [_index_of(shard)]})
    return shard


def _frame_digest(file: BinaryIO, offset: int, size_bytes: int) -> str:
    """Digest a file without its embeddings."""
    file.seek(0)
    before = file.read(offset)
    file.seek(offset + size_bytes)
    return digest_of(before, file.read()).hex()


def _index_of(shard: Shard) -> bytes:
    header = {
        "space": shard.space.to_json(),
        "shape": (len(shard), shard.space.n_features),
        "dtype": shard.dtype.name,
        "offset": shard.offset,
        "rows_of_a_block": shard.checksums.rows_of_a_block,
        "frame": shard.frame_digest,
        "times_s": shard.times_s,
    }
    arrays = shard.row_arrays()
    payload = (
        _MAGIC,
        json.dumps(header, sort_keys=True).encode() + b"\n",
        *(arrays[name].astype(field.dtype).tobytes() for name, field in ROW_FIELDS.items()),
        shard.checksums.blocks.astype("<u8").tobytes(),
    )
    return seal(b"".join(payload))


def open_shard(index_path: Path) -> Shard:
    """Read the index of a shard.

    DamagedShardError is raised if the index is damaged, foreign or of another format version, or
    contradicts itself or its file; OSError if either is gone, or cannot be read.
    """
    path = index_path.with_suffix(DATA_SUFFIX)
    data_bytes = os.lstat(path).st_size
    max_bytes = data_bytes + _MAX_HEADER_BYTES  # the file holds the keys and checksums too
    payload = unseal(read_regular(index_path, start=_MAGIC, max_bytes=max_bytes))
    if payload is None or not payload.startswith(_MAGIC):
        raise DamagedShardError(f"{index_path} is damaged or not an index of this format")
    try:
        header_end = payload.index(b"\n", len(_MAGIC))
        header = json.loads(payload[len(_MAGIC) : header_end])
        arrays = memoryview(payload)[header_end + 1 :]
        return _checked(_shard_of(path, header, arrays), header["shape"], data_bytes)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as exc:
        raise DamagedShardError(f"{index_path} is inconsistent: {exc!r}") from exc
    except ValueError as exc:
        raise DamagedShardError(f"{index_path} is inconsistent: {exc}") from exc


def _shard_of(path: Path, header: dict[str, Any], arrays: memoryview) -> Shard:
    n_rows, step = header["shape"][0], header["rows_of_a_block"]
    if not (type(n_rows) is type(step) is int and 0 < n_rows <= len(arrays) // _ENTRY_BYTES):
        raise ValueError(f"shape {header['shape']}, blocks of {step} rows")
    if len(arrays) - n_rows * _ENTRY_BYTES not in (0, 8 * -(-n_rows // max(1, step))):
        raise ValueError(f"{len(arrays)} bytes are not the keys and checksums of {n_rows} rows")
    found, start = {}, 0
    for name, field in ROW_FIELDS.items():
        stop = start + n_rows * field.entry_bytes
        found[name] = np.frombuffer(arrays[start:stop], field.dtype)
        start = stop
    blocks = np.frombuffer(arrays[start:], "<u8").astype(np.uint64)
    return Shard(
        path=path,
        space=Space.from_json(header["space"]),
        keys=keys_from_matrix(found["keys"]),
        checksums=Checksums(found["checksums"].astype(np.uint64), blocks, step),
        offset=header["offset"],
        dtype=np.dtype(header["dtype"]),
        frame_digest=header["frame"],
        times_s=tuple(header["times_s"]),
    )


def _checked(shard: Shard, shape: Any, data_bytes: int) -> Shard:
    """Return the shard; raise ValueError unless it agrees with its space and file size."""
    if shape != [len(shard), shard.space.n_features]:
        raise ValueError(f"shape {shape}, of rows of {shard.space.n_features} features")
    if shard.dtype.name not in shard.space.stored_dtypes:
        raise ValueError(f"rows of {shard.dtype} in a space of {shard.space.dtype}")
    if not (shard.checksums.rows_of_a_block > 0 and isinstance(shard.frame_digest, str)):
        raise ValueError(f"blocks of {shard.checksums.rows_of_a_block} rows")
    most_bytes = _MAX_CUT * data_bytes + _MAX_CUT_BYTES
    if not (type(shard.offset) is int and 0 < shard.offset <= most_bytes):
        raise ValueError(f"rows at byte {shard.offset} of a file of {data_bytes}")
    if shard.size_bytes > most_bytes:
        raise ValueError(f"{shard.size_bytes} bytes of rows in a file of {data_bytes}")
    oldest_s, newest_s = shard.times_s
    if not 0 <= float(oldest_s) <= float(newest_s) <= _LAST_S:
        raise ValueError(f"rows of the times {shard.times_s}")
    return shard


def remove_shard(shard: Shard) -> None:
    """Remove a shard.

    The data are removed first: a concurrent reader skips an index without data, but would rebuild
    the index of data without one.
    """
    try:
        shard.path.unlink(missing_ok=True)
        shard.index_path.unlink(missing_ok=True)
    except PermissionError:
        # Windows does not remove a file that is being read; the next compaction will.
        if os.name != "nt":
            raise


def examine_shards(paths: Sequence[Path]) -> list[Shard | DamagedShardError | OSError]:
    """Return shards from their ``.h5`` files alone, which may come from anywhere.

    The result has for each file a shard, or the error that makes it unsound or unreadable. Rows
    that disagree with their checksums are found when they are read.
    """
    regular = list(filter(is_regular, paths))
    layouts = dict(zip(regular, inspect_shards(regular), strict=True)) if regular else {}
    examined: list[Shard | DamagedShardError | OSError] = []
    for path in paths:
        try:
            examined.append(_examined(path, layouts.get(path)))
        except (DamagedShardError, OSError) as exc:
            examined.append(exc)
    return examined


def store_index(shard: Shard) -> None:
    """Store the index of a shard whose index was lost.

    In a read-only folder nothing is stored, and the next reader examines the shard again.
    """
    with contextlib.suppress(OSError):
        write_atomically(shard.index_path, _index_of(shard))


def _examined(path: Path, layout: ShardLayout | HDF5Fault | None) -> Shard:
    if layout is None or isinstance(layout, HDF5Fault):
        if not os.path.lexists(path):
            raise FileNotFoundError(f"{path} is gone")
        if layout is None:
            raise DamagedShardError("not a regular file")
        raise DamagedShardError(layout.reason) if layout.is_damage else OSError(layout.reason)
    embeddings = layout.places["embeddings"]
    with BufferedReader(open_regular(path)) as file:
        keys, checksums = (_read_shard_array(file, layout.places[name]) for name in ROW_FIELDS)
        frame_digest = _frame_digest(file, embeddings.offset, embeddings.n_bytes)
        stored_s = min(max(0.0, os.fstat(file.fileno()).st_mtime), _LAST_S)
    if not keys.any(axis=1).all():
        raise DamagedShardError("a row has no key")
    return Shard(
        path=path,
        space=Space.from_json(layout.space),
        keys=keys_from_matrix(keys),
        checksums=Checksums.of_rows_alone(checksums),
        offset=embeddings.offset,
        dtype=np.dtype(embeddings.dtype),
        frame_digest=frame_digest,
        times_s=(stored_s, stored_s),
    )


def _read_shard_array(file: BinaryIO, place: ArrayPlace) -> np.ndarray:
    file.seek(place.offset)
    data = file.read(place.n_bytes)
    if len(data) != place.n_bytes:
        raise DamagedShardError("the file was truncated while it was read")
    return np.frombuffer(data, place.dtype).reshape(place.shape)
