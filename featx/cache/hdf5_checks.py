"""``check_plain``, ``read_layout``: an HDF5 file is plain and stores all of its arrays itself.

HDF5 can refer to other files (external links, external and virtual storage), so that reading it
reads files of this machine, and it can declare arrays that are far larger than what it stores.
Neither featx nor Keras writes such files.
The checks read metadata only, and run in a child process (``hdf5_child_process.py``), since hostile
metadata can crash libhdf5 or make it hang. The arrays of a shard are never read through libhdf5.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.cache.schema import (
    ATTRIBUTES,
    FORMAT_VERSION,
    ArrayPlace,
    RowField,
    ShardLayout,
    fields_of,
)
from featx.digests.space import Space

_MAX_DESCRIPTION_BYTES = 2**20
_MAX_OBJECTS = 100_000
_MAX_DEPTH = 64
_MAX_ATTRIBUTE_BYTES = 2**16


class HDF5StructureError(ValueError):
    """A file holds something other than plain arrays, or not those of a shard."""


@contextlib.contextmanager
def _opened_hdf5_file(path: Path, fault: str) -> Iterator[h5py.File]:
    """Open a file, and raise errors of libhdf5 on damaged metadata as HDF5StructureError."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except (FileNotFoundError, PermissionError, HDF5StructureError):
        raise
    except (OSError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as exc:
        raise HDF5StructureError(f"{fault}: {exc}") from exc


def read_layout(path: Path) -> ShardLayout:
    """Return the places of the fields of a shard, if its structure is sound.

    HDF5StructureError is raised if the file is not a shard, is truncated, or has links, filters,
    external or virtual storage; OSError if it cannot be opened.
    """
    size_bytes = path.stat().st_size
    with _opened_hdf5_file(path, "not a sound shard") as file:
        attributes = _plain_attributes(file)
        version = attributes["format_version"]
        if version != FORMAT_VERSION:
            raise HDF5StructureError(f"format version {version}, not {FORMAT_VERSION}")
        space = Space.from_json(json.loads(attributes["space"]))
        places = {
            name: _place_of_dataset(file, name, field, size_bytes)
            for name, field in fields_of(space).items()
        }
        n_rows = places["embeddings"].shape[0]
        for name, field in fields_of(space).items():
            shape, expected = places[name].shape, (n_rows, *field.entry_shape)
            if shape != expected:
                raise HDF5StructureError(f"{name} of shape {shape}, expected {expected}")
        return ShardLayout(space.to_json(), places)


def _plain_attributes(file: h5py.File) -> dict[str, Any]:
    """Read the root attributes of a shard, after checking their types and sizes."""
    for name, kind in ATTRIBUTES.items():
        attribute = file.attrs.get_id(name)
        is_text = attribute.get_type().get_class() == h5py.h5t.STRING
        if attribute.shape != () or is_text != (kind is str):
            raise HDF5StructureError(f"attribute {name} is not a plain value")
        if attribute.get_storage_size() > _MAX_DESCRIPTION_BYTES:
            raise HDF5StructureError(f"attribute {name} is too large")
    return {name: file.attrs[name] for name in ATTRIBUTES}


def _place_of_dataset(file: h5py.File, name: str, field: RowField, size_bytes: int) -> ArrayPlace:
    """Return the place of a dataset whose bytes are plain and contiguous in this file."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise HDF5StructureError(f"{name} is a link")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise HDF5StructureError(f"{name} is not a dataset")
    _check_plain_storage(dataset, name)
    dtypes = [np.dtype(dtype) for dtype in field.dtypes]
    stored_bytes, offset = dataset.id.get_storage_size(), dataset.id.get_offset()
    layout = dataset.id.get_create_plist().get_layout()
    _check_no_structure_fault(
        name,
        {
            "is not contiguous": layout != h5py.h5d.CONTIGUOUS,
            "has another dtype": not any(dataset.dtype == dtype for dtype in dtypes),
            "has another rank": dataset.ndim != 1 + len(field.entry_shape),
            "is empty": offset is None,
            "is larger than the file": (offset or 0) + stored_bytes > size_bytes,
            "does not fill its storage": dataset.size * dataset.dtype.itemsize != stored_bytes,
        },
    )
    return ArrayPlace(offset, dataset.shape, dataset.dtype.name)


def _check_plain_storage(dataset: h5py.Dataset, where: str) -> None:
    creation = dataset.id.get_create_plist()
    _check_no_structure_fault(
        where,
        {
            "is virtual": dataset.is_virtual,
            "is stored in another file": creation.get_external_count() > 0,
            "has filters": creation.get_nfilters() > 0,
        },
    )


def _check_no_structure_fault(where: str, faults: Mapping[str, bool]) -> None:
    for fault, is_found in faults.items():
        if is_found:
            raise HDF5StructureError(f"{where} {fault}")


def check_plain(path: Path) -> None:
    """Check that a file holds only groups, and arrays of numbers stored in the file itself.

    HDF5StructureError is raised if the file has links, external or virtual storage, filters, types
    other than numbers, or arrays that declare more than is stored; OSError if it cannot be opened.
    """
    size_bytes = path.stat().st_size
    with _opened_hdf5_file(path, "damaged") as file:
        _ObjectChecker(size_bytes).check_group(file, "", 0)


class _ObjectChecker:
    """Checks of all objects of a file, none of which may be met twice."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._met: set[int] = set()
        self._declared_bytes = 0

    def check_group(self, group: h5py.Group, where: str, depth: int) -> None:
        self._meet(group, where)
        if depth > _MAX_DEPTH:
            raise HDF5StructureError(f"{where} is nested too deeply")
        for name in group:
            place = f"{where}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise HDF5StructureError(f"{place} is a link")
            found = group[name]
            if isinstance(found, h5py.Group):
                self.check_group(found, place, depth + 1)
            elif isinstance(found, h5py.Dataset):
                self._check_dataset(found, place)
            else:
                raise HDF5StructureError(f"{place} is a {type(found).__name__}")

    def _meet(self, found: h5py.Group | h5py.Dataset, where: str) -> None:
        address = h5py.h5o.get_info(found.id).addr
        if address in self._met:
            raise HDF5StructureError(f"{where} is linked twice")
        self._met.add(address)
        if len(self._met) > _MAX_OBJECTS:
            raise HDF5StructureError(f"more than {_MAX_OBJECTS} objects")
        for name in found.attrs:
            attribute = found.attrs.get_id(name)
            if attribute.shape == (0,):  # Keras 2 writes an empty list of names as one of numbers
                continue
            is_small = attribute.get_storage_size() <= _MAX_ATTRIBUTE_BYTES
            is_plain = attribute.dtype.kind in "biufSO" and attribute.shape == ()
            if not is_small or not (is_plain or _is_list_of_names(found.attrs, name)):
                raise HDF5StructureError(f"attribute {name} of {where or '/'} is not a plain value")

    def _check_dataset(self, dataset: h5py.Dataset, where: str) -> None:
        self._meet(dataset, where)
        if dataset.shape is None:
            raise HDF5StructureError(f"{where} has no shape")
        declared_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
        self._declared_bytes += declared_bytes
        has_numbers = dataset.dtype.kind in "biufV" and not dataset.dtype.hasobject
        _check_plain_storage(dataset, where)
        _check_no_structure_fault(
            where,
            {
                "holds no numbers": not has_numbers,
                "declares more than it stores": declared_bytes != dataset.id.get_storage_size(),
                "is larger than the file": self._declared_bytes > self._size_bytes,
            },
        )


def _is_list_of_names(attributes: h5py.AttributeManager, name: str) -> bool:
    """Return True for a short list of texts, such as the names of layers in a file of Keras 2.

    The texts are read here, where memory is limited, since several may be the same large one.
    """
    attribute = attributes.get_id(name)
    if len(attribute.shape) != 1:
        return False
    is_text = h5py.check_string_dtype(attribute.dtype) is not None
    return is_text and sum(map(len, attributes[name])) <= _MAX_ATTRIBUTE_BYTES
