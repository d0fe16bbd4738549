"""One immutable shard: a block of embeddings on disk, and the index that vouches for it.

``shard-<id>.h5`` holds the rows (see ``_hdf5.py``). ``shard-<id>.index`` beside it holds the keys,
the row checksums, and offset and shape of the embeddings, closed by a digest of its own; it is
written last and is the commit. Rows are mapped straight from the ``.h5`` file at the recorded
offset and each is checked against its checksum, so that libhdf5, which damaged metadata can crash,
is not on the read path.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from featx._files import seal, unseal, write_atomically
from featx._hashing import DIGEST_BYTES, checksums_of_rows
from featx.key_table import keys_from_matrix, matrix_from_keys
from featx.spaces import Space

INDEX_SUFFIX = ".index"
DATA_SUFFIX = ".h5"
_MAGIC = b"featx-shard-index-1\n"


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
    checksums : ndarray of shape (n,), uint64
    shape : tuple of int
        ``(n, n_features)``.
    offset : int
        Of the embeddings in the file, in bytes.
    """

    path: Path
    space: Space
    keys: np.ndarray
    checksums: np.ndarray
    shape: tuple[int, int]
    offset: int

    @property
    def index_path(self) -> Path:
        """Where the index lies."""
        return self.path.with_suffix(INDEX_SUFFIX)

    @property
    def size_bytes(self) -> int:
        """Bytes that its embeddings take on disk."""
        return 4 * self.shape[0] * self.shape[1]

    def is_whole(self) -> bool:
        """Tell whether the file still reaches to the end of the embeddings.

        Raises
        ------
        FileNotFoundError
            The shard was removed, by a compaction or by ``clear()``.
        """
        return self.path.stat().st_size >= self.offset + self.size_bytes

    def read(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Copy rows out and check each.

        Parameters
        ----------
        rows : ndarray of shape (m,), int64, or slice

        Returns
        -------
        embeddings : ndarray of shape (m, n_features), float32
        sound : ndarray of shape (m,), bool
            Which rows agree with their checksums; the others must not be used.

        Raises
        ------
        FileNotFoundError
            The shard was removed.
        """
        checksums = self.checksums[rows]
        # Touching a mapped page beyond the end of a file would kill the process.
        if not self.is_whole():
            return np.empty((len(checksums), self.shape[1]), np.float32), checksums != checksums
        embeddings = np.ascontiguousarray(self._map[rows])
        return embeddings, checksums_of_rows(embeddings) == checksums

    @cached_property
    def _map(self) -> np.ndarray:
        return np.memmap(self.path, np.float32, "r", offset=self.offset, shape=self.shape)


def write_shard(folder: Path, keys: np.ndarray, embeddings: np.ndarray, *, space: Space) -> Shard:
    """Store rows as a new shard of a space's folder; once it returns they are safe.

    Parameters
    ----------
    folder : Path
    keys : ndarray of shape (n,), dtype S16
    embeddings : ndarray of shape (n, n_features), float32
    space : Space

    Raises
    ------
    OSError
        The shard could not be written; nothing of it is seen.
    """
    # Loading h5py takes 0.15 s, which a run that finds every row stored need not pay.
    from featx._hdf5 import shard_image

    path = folder / f"shard-{uuid.uuid4().hex}{DATA_SUFFIX}"
    checksums = checksums_of_rows(embeddings)
    image, offset = shard_image(
        embeddings,
        keys=matrix_from_keys(keys),
        checksums=checksums,
        space=space.to_json(),
    )
    shape = (len(embeddings), embeddings.shape[1])
    shard = Shard(path, space, keys, checksums, shape, offset)
    write_atomically(path, image)
    _write_index(shard)
    return shard


def _write_index(shard: Shard) -> None:
    header = {"space": shard.space.to_json(), "shape": shard.shape, "offset": shard.offset}
    payload = b"".join(
        (
            _MAGIC,
            json.dumps(header, sort_keys=True).encode() + b"\n",
            matrix_from_keys(shard.keys).tobytes(),
            shard.checksums.astype("<u8").tobytes(),
        )
    )
    write_atomically(shard.index_path, seal(payload))


def open_shard(index_path: Path) -> Shard:
    """Read the index of a shard.

    Raises
    ------
    DamagedShardError
        The index is damaged, foreign or of another format version, or its data are cut short.
    OSError
        It is gone, or not to be read.
    """
    payload = unseal(index_path.read_bytes())
    if payload is None or not payload.startswith(_MAGIC):
        raise DamagedShardError(f"{index_path} is damaged or not an index of this format")
    line, _, body = payload[len(_MAGIC) :].partition(b"\n")
    header: dict[str, Any] = json.loads(line)
    n, n_features = header["shape"]
    split = n * DIGEST_BYTES
    shard = Shard(
        path=index_path.with_suffix(DATA_SUFFIX),
        space=Space.from_json(header["space"]),
        keys=keys_from_matrix(np.frombuffer(body[:split], np.uint8)),
        checksums=np.frombuffer(body[split:], "<u8").astype(np.uint64),
        shape=(n, n_features),
        offset=header["offset"],
    )
    if not shard.is_whole():
        raise DamagedShardError(f"{shard.path} is shorter than its index says")
    return shard


def remove_shard(shard: Shard) -> None:
    """Take a shard away.

    The data go first: a reader in between finds an index without data, which it skips, and not
    data without an index, which it would take for a lost index and rebuild.
    """
    shard.path.unlink(missing_ok=True)
    shard.index_path.unlink(missing_ok=True)


def rebuild_index(path: Path) -> Shard:
    """Make the index of a shard anew from its ``.h5`` file, and store it.

    Rows that disagree with their checksums are found when they are read, as ever.

    Raises
    ------
    DamagedShardError
        The file is not a sound shard.
    OSError
        It is gone, or not to be read.
    """
    from featx._hdf5 import ShardStructureError, read_shard

    try:
        contents = read_shard(path)
    except ShardStructureError as exc:
        raise DamagedShardError(f"{path}: {exc}") from exc
    shard = Shard(
        path=path,
        space=Space.from_json(contents.space),
        keys=keys_from_matrix(contents.keys),
        checksums=contents.checksums,
        shape=contents.shape,
        offset=contents.offset,
    )
    # In a folder that cannot be written, the next reader makes it anew again.
    with contextlib.suppress(OSError):
        _write_index(shard)
    return shard
