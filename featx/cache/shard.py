"""One immutable shard: a block of embeddings on disk, and the index that vouches for it.

``shard-<id>.h5`` holds the rows (see ``_hdf5.py``). ``shard-<id>.index`` beside it holds the keys,
the checksums, and where the embeddings lie in the file, closed by a digest of its own; it is
moved into place last and is the commit. Ids are ordered by time. Rows are read straight from the
``.h5`` file at the recorded offset and all are checked (see ``read.py``), so that libhdf5,
which damaged metadata can crash, is not on the read path.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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
from featx.cache.inspect_hdf5 import Fault, inspect_shards
from featx.cache.read import Checksums, read_rows
from featx.digests.hashing import DIGEST_BYTES, digest_of
from featx.digests.key_table import keys_from_matrix, matrix_from_keys
from featx.digests.space import Space

if TYPE_CHECKING:
    from featx.cache.hdf5 import ShardLayout

INDEX_SUFFIX = ".index"
DATA_SUFFIX = ".h5"
SHARD_PREFIX = "shard-"
_MAGIC = b"featx-shard-index-4\n"
_STAMP = re.compile("[0-9a-f]{16}")
_MAX_HEADER_BYTES = 2**20
_BYTES_OF_A_KEY = DIGEST_BYTES + np.dtype(np.uint64).itemsize  # with the checksum of its row
_MAX_OFFSET = 2**62
# A file that was cut off still gives the rows before the cut, unless hardly anything is left.
_MAX_CUT = 4
_MAX_CUT_BYTES = 64 * 2**20
_LAST_S = 253402300799.0  # of the year 9999: Python has no later dates


class DamagedShardError(ValueError):
    """A shard or its index is not what it was when it was written."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A shard whose index was found sound.

    Attributes
    ----------
    path : Path
        The ``.h5`` file.
    space : Space
    keys : ndarray of shape (n,), dtype S16
    checksums : Checksums
    offset : int
        Of the embeddings in the file, in bytes.
    dtype : dtype
        Dtype of the stored embeddings: that of the space, or float32 where it cannot hold them.
    frame_digest : str
        Of all bytes of the file but the embeddings, which have checksums of their own.
    times_s : tuple of float
        When the oldest and the newest row were first stored, in seconds since 1970.
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
        """Where the index lies."""
        return self.path.with_suffix(INDEX_SUFFIX)

    @property
    def stamp_ns(self) -> int:
        """Time stamp that orders the shards, in nanoseconds since 1970; 0 for a foreign name."""
        stamp = self.path.name.removeprefix(SHARD_PREFIX).partition("-")[0]
        return int(stamp, 16) if _STAMP.fullmatch(stamp) else 0

    @property
    def row_bytes(self) -> int:
        """Bytes that one embedding takes on disk."""
        return self.space.n_features * self.dtype.itemsize

    @property
    def size_bytes(self) -> int:
        """Bytes that its embeddings take on disk."""
        return len(self) * self.row_bytes

    def read(self, rows: np.ndarray, out: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Copy rows into an array, checking each: see :func:`read_rows`.

        Parameters
        ----------
        rows : ndarray of shape (m,), int64
            Which of the shard's rows.
        out : ndarray of shape (n, n_features)
        targets : ndarray of shape (m,), int64
            Which rows of `out` they become.

        Returns
        -------
        ndarray of shape (m,), bool
            Which of them are sound; the others must not be used.

        Raises
        ------
        OSError
            The shard was removed, or cannot be read.
        """
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
        """Copy all rows out, as they are stored.

        Returns
        -------
        embeddings : ndarray of shape (n, n_features), float32 or float16
        sound : ndarray of shape (n,), bool
        """
        embeddings = np.empty((len(self), self.space.n_features), self.dtype)
        rows = np.arange(len(self))
        return embeddings, self.read(rows, embeddings, rows)

    def has_sound_frame(self) -> bool:
        """Tell whether the bytes around the embeddings, of no use to featx, are as written."""
        with BufferedReader(open_regular(self.path)) as file:
            return _frame_digest(file, self.offset, self.size_bytes) == self.frame_digest


def write_shard(
    folder: Path,
    keys: np.ndarray,
    embeddings: np.ndarray,
    *,
    space: Space,
    times_s: tuple[float, float] | None = None,
    stamp_ns: int | None = None,
) -> Shard:
    """Store rows as a new shard of a space's folder; once it returns they are safe.

    Parameters
    ----------
    folder : Path
    keys : ndarray of shape (n,), dtype S16
    embeddings : ndarray of shape (n, n_features), float32 or float16
        Rows to store, in their dtype.
    space : Space
    times_s : tuple of float, default=None
        When the oldest and the newest of them were first stored; None is now.
    stamp_ns : int, default=None
        Time stamp that orders the shards by name, in nanoseconds since 1970; None is now. Shards
        with the same stamp and content have the same name.

    Raises
    ------
    OSError
        The shard could not be written; nothing of it is seen.
    """
    # Loading h5py takes 0.15 s, which a run that finds every row stored need not pay.
    from featx.cache.hdf5 import shard_frame

    rows = np.ascontiguousarray(embeddings)
    checksums = Checksums.of(rows)
    frame = shard_frame(rows.shape, space=space.to_json(), dtype=rows.dtype.name)
    parts = frame.filled(embeddings=rows, keys=matrix_from_keys(keys), checksums=checksums.rows)
    around = digest_of(*(part for part in parts if part is not rows)).hex()
    times_s = times_s or (time.time(), time.time())
    content = digest_of(around.encode(), checksums.rows, np.array(times_s)).hex()
    stamp_ns = time.time_ns() if stamp_ns is None else stamp_ns
    path = folder / f"{SHARD_PREFIX}{stamp_ns:016x}-{content[:16]}{DATA_SUFFIX}"
    shard = Shard(path, space, keys, checksums, frame.embeddings, rows.dtype, around, times_s)
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
    payload = (
        _MAGIC,
        json.dumps(header, sort_keys=True).encode() + b"\n",
        matrix_from_keys(shard.keys).tobytes(),
        shard.checksums.rows.astype("<u8").tobytes(),
        shard.checksums.blocks.astype("<u8").tobytes(),
    )
    return seal(b"".join(payload))


def open_shard(index_path: Path) -> Shard:
    """Read the index of a shard.

    Raises
    ------
    DamagedShardError
        The index is damaged, foreign or of another format version, or contradicts itself or its
        file.
    OSError
        It is gone, or not to be read.
    """
    path = index_path.with_suffix(DATA_SUFFIX)
    data_bytes = os.lstat(path).st_size
    # The file holds each key and checksum, too.
    max_bytes = data_bytes + _MAX_HEADER_BYTES
    payload = unseal(read_regular(index_path, start=_MAGIC, max_bytes=max_bytes))
    if payload is None or not payload.startswith(_MAGIC):
        raise DamagedShardError(f"{index_path} is damaged or not an index of this format")
    try:
        header_end = payload.index(b"\n", len(_MAGIC))
        header = json.loads(payload[len(_MAGIC) : header_end])
        arrays = memoryview(payload)[header_end + 1 :]
        return _checked(_shard_of(path, header, arrays), header["shape"], data_bytes)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as exc:
        raise DamagedShardError(f"{index_path} makes no sense: {exc!r}") from exc
    except ValueError as exc:
        raise DamagedShardError(f"{index_path} makes no sense: {exc}") from exc


def _shard_of(path: Path, header: dict[str, Any], arrays: memoryview) -> Shard:
    n_rows, step = header["shape"][0], header["rows_of_a_block"]
    if not (type(n_rows) is type(step) is int and 0 < n_rows <= len(arrays) // _BYTES_OF_A_KEY):
        raise ValueError(f"shape {header['shape']}, blocks of {step} rows")
    if len(arrays) - n_rows * _BYTES_OF_A_KEY not in (0, 8 * -(-n_rows // max(1, step))):
        raise ValueError(f"{len(arrays)} bytes are not the keys and checksums of {n_rows} rows")
    keys = np.frombuffer(arrays, np.uint8, n_rows * DIGEST_BYTES)
    checksums = np.frombuffer(arrays, "<u8", offset=keys.nbytes).astype(np.uint64)
    return Shard(
        path=path,
        space=Space.from_json(header["space"]),
        keys=keys_from_matrix(keys),
        checksums=Checksums(checksums[:n_rows], checksums[n_rows:], step),
        offset=header["offset"],
        dtype=np.dtype(header["dtype"]),
        frame_digest=header["frame"],
        times_s=tuple(header["times_s"]),
    )


def _checked(shard: Shard, shape: Any, data_bytes: int) -> Shard:
    """Return a shard whose index agrees with its space and the size of its file.

    Raises
    ------
    ValueError
        The index does not agree.
    """
    if shape != [len(shard), shard.space.n_features]:
        raise ValueError(f"shape {shape}, of rows of {shard.space.n_features} features")
    if shard.dtype.name not in shard.space.stored_dtypes:
        raise ValueError(f"rows of {shard.dtype} in a space of {shard.space.dtype}")
    if not (shard.checksums.rows_of_a_block > 0 and isinstance(shard.frame_digest, str)):
        raise ValueError(f"blocks of {shard.checksums.rows_of_a_block} rows")
    if not (type(shard.offset) is int and 0 < shard.offset < _MAX_OFFSET):
        raise ValueError(f"rows at byte {shard.offset}")
    if shard.size_bytes > _MAX_CUT * data_bytes + _MAX_CUT_BYTES:
        raise ValueError(f"{shard.size_bytes} bytes of rows in a file of {data_bytes}")
    oldest_s, newest_s = shard.times_s
    if not 0 <= float(oldest_s) <= float(newest_s) <= _LAST_S:
        raise ValueError(f"rows of the times {shard.times_s}")
    return shard


def remove_shard(shard: Shard) -> None:
    """Take a shard away.

    The data go first: a reader in between finds an index without data, which it skips, and not
    data without an index, which it would take for a lost index and rebuild.
    """
    try:
        shard.path.unlink(missing_ok=True)
        shard.index_path.unlink(missing_ok=True)
    except PermissionError:
        # Windows removes no file that somebody reads: the next compaction does.
        if os.name != "nt":
            raise


def examine_shards(paths: Sequence[Path]) -> list[Shard | DamagedShardError | OSError]:
    """Learn what shards hold from their ``.h5`` files alone, wherever those come from.

    Rows that disagree with their checksums are found when they are read, as ever.

    Parameters
    ----------
    paths : sequence of Path

    Returns
    -------
    list of Shard, DamagedShardError or OSError
        For each file a shard, or why it is not a sound one, or why it cannot be read for now.
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
    """Store the index of a shard that has lost its own.

    In a folder that cannot be written nothing is stored, and the next reader examines it again.
    """
    with contextlib.suppress(OSError):
        write_atomically(shard.index_path, _index_of(shard))


def _examined(path: Path, layout: ShardLayout | Fault | None) -> Shard:
    if layout is None or isinstance(layout, Fault):
        if not os.path.lexists(path):
            raise FileNotFoundError(f"{path} is gone")
        if layout is None:
            raise DamagedShardError("not a regular file")
        raise DamagedShardError(layout.reason) if layout.is_damage else OSError(layout.reason)
    space = Space.from_json(layout.space)
    with BufferedReader(open_regular(path)) as file:
        keys = _read_array(file, layout.keys, (layout.n_rows, DIGEST_BYTES), np.uint8)
        checksums = _read_array(file, layout.checksums, (layout.n_rows,), np.uint64)
        dtype = np.dtype(layout.dtype)
        size_bytes = layout.n_rows * layout.n_features * dtype.itemsize
        frame = _frame_digest(file, layout.embeddings, size_bytes)
        stored_s = min(max(0.0, os.fstat(file.fileno()).st_mtime), _LAST_S)
    if not keys.any(axis=1).all():
        raise DamagedShardError("a row has no key")
    return Shard(
        path=path,
        space=space,
        keys=keys_from_matrix(keys),
        checksums=Checksums.of_rows_alone(checksums),
        offset=layout.embeddings,
        dtype=dtype,
        frame_digest=frame,
        times_s=(stored_s, stored_s),
    )


def _read_array(
    file: BinaryIO, offset: int, shape: tuple[int, ...], dtype: type[np.generic]
) -> np.ndarray:
    file.seek(offset)
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    data = file.read(n_bytes)
    if len(data) != n_bytes:
        raise DamagedShardError("it was cut off while it was read")
    return np.frombuffer(data, dtype).reshape(shape)
