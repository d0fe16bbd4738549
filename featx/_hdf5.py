"""The format of a shard: plain HDF5 that a stranger reads with h5py alone. The only h5py user.

A shard holds, contiguous and unfiltered, ``embeddings (n, d)`` float32 or float16, ``keys (n, 16)``
uint8 and ``checksums (n,)`` uint64 (xxh3 of each row), and as root attributes ``format_version``
and ``space`` (JSON: what made these numbers, in words). An exported file may hold ``names`` and
``labels`` of the samples as well.

It is built in memory and written by featx itself, because h5py on a full disk leaves an unreadable
file and a process that dies at exit. It is looked into through libhdf5 only to learn where its
parts lie, by a child process (``inspection.py``); their bytes are never read this way.
"""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from featx._hashing import DIGEST_BYTES

FORMAT_VERSION = 1
_DTYPES = ("float32", "float16")
_MAX_DESCRIPTION_BYTES = 2**20


class ShardStructureError(ValueError):
    """A file is not a shard of this format, or not one that is safe to read."""


class ShardLayout(NamedTuple):
    """Where the parts of a shard lie in its file; plain data.

    Attributes
    ----------
    embeddings, keys, checksums : int
        Offsets, in bytes.
    n_rows, n_features : int
    space : dict
        The description of the space.
    """

    embeddings: int
    keys: int
    checksums: int
    n_rows: int
    n_features: int
    space: dict[str, Any]


def shard_image(
    embeddings: np.ndarray, *, keys: np.ndarray, checksums: np.ndarray, space: dict[str, Any]
) -> tuple[bytes, int]:
    """Build the bytes of a shard file.

    Parameters
    ----------
    embeddings : ndarray of shape (n, d), float32 or float16, n and d positive
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
    # Never a file, but h5py opens none of one name twice, in whatever thread.
    name = f"shard-{uuid.uuid4().hex}"
    with h5py.File(name, "w", driver="core", backing_store=False) as file:
        _describe(file, space)
        file.create_dataset("keys", data=keys)
        file.create_dataset("checksums", data=checksums)
        dataset = file.create_dataset("embeddings", data=np.ascontiguousarray(embeddings))
        offset = dataset.id.get_offset()
        file.flush()
        return file.id.get_file_image(), offset


class EmptyShard(NamedTuple):
    """Where the parts of a shard file have to be written; offsets in bytes."""

    embeddings: int
    keys: int
    checksums: int


def create_shard_file(
    path: Path,
    shape: tuple[int, int],
    *,
    space: dict[str, Any],
    texts: dict[str, list[str]],
) -> EmptyShard:
    """Make a shard file whose embeddings, keys and checksums are still to be written.

    They are written by the caller, row by row and without h5py, so that neither memory nor a full
    disk is a problem.

    Parameters
    ----------
    path : Path
        Must not be there.
    shape : tuple of int
        Of the embeddings.
    space : dict
        Description of the space; its dtype is that of the embeddings.
    texts : dict of str to list of str
        Further datasets of strings, such as ``names`` and ``labels``.
    """
    n_rows, n_features = shape
    with h5py.File(path, "x") as file:
        _describe(file, space)
        for name, values in texts.items():
            # File names need not be UTF-8.
            plain = [value.encode("utf-8", "backslashreplace").decode() for value in values]
            file.create_dataset(name, data=plain, dtype=h5py.string_dtype())
        return EmptyShard(
            _allocate(file, "embeddings", (n_rows, n_features), space["identity"]["dtype"]),
            _allocate(file, "keys", (n_rows, DIGEST_BYTES), "uint8"),
            _allocate(file, "checksums", (n_rows,), "uint64"),
        )


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Reserve the bytes of a contiguous dataset and return their offset."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(dtype))
    space = h5py.h5s.create_simple(shape)
    return h5py.h5d.create(file.id, name.encode(), kind, space, creation).get_offset()


def _describe(file: h5py.File, space: dict[str, Any]) -> None:
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["space"] = json.dumps(space, sort_keys=True)


def read_layout(path: Path) -> ShardLayout:
    """Find where the parts of a shard lie, if its structure is sound.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ShardStructureError
        It is not a shard, is cut short, or has links, filters, external or virtual storage.
    OSError
        The file cannot be opened.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _layout_of(file, path.stat().st_size)
    except (FileNotFoundError, PermissionError, ShardStructureError):
        raise
    except (OSError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as exc:
        raise ShardStructureError(f"not a sound shard: {exc}") from exc


def _layout_of(file: h5py.File, size_bytes: int) -> ShardLayout:
    version, description = _attributes(file)
    if version != FORMAT_VERSION:
        raise ShardStructureError(f"format version {version}, not {FORMAT_VERSION}")
    space = _checked_space(json.loads(description))
    dtype = np.dtype(space["identity"]["dtype"])
    embeddings = _plain_dataset(file, "embeddings", dtype, 2, size_bytes)
    keys = _plain_dataset(file, "keys", np.dtype(np.uint8), 2, size_bytes)
    checksums = _plain_dataset(file, "checksums", np.dtype(np.uint64), 1, size_bytes)
    n_rows, n_features = embeddings.shape
    if keys.shape != (n_rows, DIGEST_BYTES) or checksums.shape != (n_rows,):
        raise ShardStructureError("keys, checksums and embeddings differ in length")
    if n_features != math.prod(space["identity"]["feature_shape"]):
        raise ShardStructureError("its rows are not as long as its description says")
    return ShardLayout(
        embeddings=embeddings.id.get_offset(),
        keys=keys.id.get_offset(),
        checksums=checksums.id.get_offset(),
        n_rows=n_rows,
        n_features=n_features,
        space=space,
    )


def _checked_space(space: Any) -> dict[str, Any]:
    """Return a description of which everything that is used is what it has to be."""
    identity = space["identity"]
    if not (isinstance(space["label"], str) and isinstance(identity, dict)):
        raise ShardStructureError("a description of another form")
    if identity["dtype"] not in _DTYPES:
        raise ShardStructureError(f"embeddings of dtype {identity['dtype']}")
    shape = identity["feature_shape"]
    if not (isinstance(shape, list) and shape and all(type(n) is int and n > 0 for n in shape)):
        raise ShardStructureError(f"embeddings of shape {shape}")
    return space


def _attributes(file: h5py.File) -> tuple[int, str]:
    """Read format version and description, once their types and sizes were found plain."""
    for name in ("format_version", "space"):
        attribute = file.attrs.get_id(name)
        is_text = attribute.get_type().get_class() == h5py.h5t.STRING
        if attribute.shape != () or is_text != (name == "space"):
            raise ShardStructureError(f"attribute {name} is not a plain value")
        if attribute.get_storage_size() > _MAX_DESCRIPTION_BYTES:
            raise ShardStructureError(f"attribute {name} is too large")
    return int(file.attrs["format_version"]), file.attrs["space"]


def _plain_dataset(
    file: h5py.File, name: str, dtype: np.dtype, ndim: int, size_bytes: int
) -> h5py.Dataset:
    """Return a dataset whose bytes lie, plain and contiguous, in this very file."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ShardStructureError(f"{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ShardStructureError(f"{name} is not a dataset")
    creation = dataset.id.get_create_plist()
    storage_bytes = dataset.id.get_storage_size()
    offset = dataset.id.get_offset()
    faults = {
        "is virtual": dataset.is_virtual,
        "lies in another file": creation.get_external_count() > 0,
        "is not contiguous": creation.get_layout() != h5py.h5d.CONTIGUOUS,
        "has filters": creation.get_nfilters() > 0,
        "has another dtype": dataset.dtype != dtype,
        "has another rank": dataset.ndim != ndim,
        "is empty": offset is None,
        "is larger than the file": (offset or 0) + storage_bytes > size_bytes,
        "does not fill its storage": dataset.size * dataset.dtype.itemsize != storage_bytes,
    }
    for fault, found in faults.items():
        if found:
            raise ShardStructureError(f"{name} {fault}")
    return dataset
