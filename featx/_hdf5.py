"""The format of a shard: plain HDF5 that a stranger reads with h5py alone. The only h5py user.

A shard holds, contiguous and unfiltered, ``embeddings (n, d) float32``, ``keys (n, 16) uint8``
and ``checksums (n,) uint64`` (xxh3 of each row), and as root attributes ``format_version`` and
``space`` (JSON: what made these numbers, in words).

It is built in memory and written by featx itself, because h5py on a full disk leaves an unreadable
file and a process that dies at exit. It is read back through libhdf5 only to rebuild a lost index,
and then only after its structure was checked; rows are never read this way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from featx._hashing import DIGEST_BYTES

FORMAT_VERSION = 1


class ShardStructureError(ValueError):
    """A file is not a shard of this format, or not one that is safe to read."""


class ShardContents(NamedTuple):
    """What the index of a shard is made of.

    Attributes
    ----------
    keys : ndarray of shape (n, 16), uint8
    checksums : ndarray of shape (n,), uint64
    shape : tuple of int
        Of the embeddings.
    offset : int
        Of the embeddings in the file, in bytes.
    space : dict
        The description of the space.
    """

    keys: np.ndarray
    checksums: np.ndarray
    shape: tuple[int, int]
    offset: int
    space: dict[str, Any]


def shard_image(
    embeddings: np.ndarray, *, keys: np.ndarray, checksums: np.ndarray, space: dict[str, Any]
) -> tuple[bytes, int]:
    """Build the bytes of a shard file.

    Parameters
    ----------
    embeddings : ndarray of shape (n, d), float32, n and d positive
    keys : ndarray of shape (n, 16), uint8
    checksums : ndarray of shape (n,), uint64
    space : dict
        Description of the space, plain data.

    Returns
    -------
    image : bytes
    offset : int
        Where the embeddings begin in it, in bytes.
    """
    with h5py.File("shard", "w", driver="core", backing_store=False) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["space"] = json.dumps(space, sort_keys=True)
        file.create_dataset("keys", data=keys)
        file.create_dataset("checksums", data=checksums)
        dataset = file.create_dataset("embeddings", data=np.ascontiguousarray(embeddings))
        offset = dataset.id.get_offset()
        file.flush()
        return file.id.get_file_image(), offset


def read_shard(path: Path) -> ShardContents:
    """Read all of a shard but its embeddings, if its structure is sound.

    Raises
    ------
    ShardStructureError
        It is not a shard, is cut short, or has links, filters, external or virtual storage.
    OSError
        The file cannot be read.
    """
    size_bytes = path.stat().st_size
    try:
        with h5py.File(path, "r", locking=False) as file:
            if int(file.attrs["format_version"]) != FORMAT_VERSION:
                raise ShardStructureError("another format version")
            embeddings = _plain_dataset(file, "embeddings", np.float32, 2, size_bytes)
            keys = _plain_dataset(file, "keys", np.uint8, 2, size_bytes)
            checksums = _plain_dataset(file, "checksums", np.uint64, 1, size_bytes)
            n = len(embeddings)
            if keys.shape != (n, DIGEST_BYTES) or checksums.shape != (n,):
                raise ShardStructureError("keys, checksums and embeddings differ in length")
            return ShardContents(
                keys=keys[:],
                checksums=checksums[:],
                shape=embeddings.shape,
                offset=embeddings.id.get_offset(),
                space=json.loads(file.attrs["space"]),
            )
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as exc:
        raise ShardStructureError(f"not a sound shard: {exc}") from exc


def _plain_dataset(
    file: h5py.File, name: str, dtype: type[np.generic], ndim: int, size_bytes: int
) -> h5py.Dataset:
    """Return a dataset whose bytes lie, plain and contiguous, in this very file."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ShardStructureError(f"{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ShardStructureError(f"{name} is not a dataset")
    creation = dataset.id.get_create_plist()
    storage_bytes = dataset.id.get_storage_size()
    faults = {
        "is virtual": dataset.is_virtual,
        "lies in another file": creation.get_external_count() > 0,
        "is not contiguous": creation.get_layout() != h5py.h5d.CONTIGUOUS,
        "has filters": creation.get_nfilters() > 0,
        "has another dtype": dataset.dtype != np.dtype(dtype),
        "has another rank": dataset.ndim != ndim,
        "is empty": dataset.id.get_offset() is None,
        "is larger than the file": storage_bytes > size_bytes,
        "does not fill its storage": dataset.size * dataset.dtype.itemsize != storage_bytes,
    }
    for fault, found in faults.items():
        if found:
            raise ShardStructureError(f"{name} {fault}")
    return dataset
