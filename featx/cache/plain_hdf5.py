"""Check that an HDF5 file of weights holds only plain arrays of its own.

HDF5 can point elsewhere (soft and external links, external and virtual storage), which reads files
of this machine, and can declare far more than it stores. Keras writes none of that. The check reads
metadata only, and runs in a child process (``inspection.py``), since hostile metadata can crash
libhdf5 or make it hang.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py

_MAX_OBJECTS = 100_000
_MAX_DEPTH = 64
_MAX_ATTRIBUTE_BYTES = 2**16


class HDF5StructureError(ValueError):
    """A file holds something other than plain arrays."""


def check_plain(path: Path) -> None:
    """Check that a file holds only groups, and arrays of numbers stored in the file itself.

    Parameters
    ----------
    path : Path

    Raises
    ------
    HDF5StructureError
        It has links, external or virtual storage, filters, types other than numbers, or arrays that
        declare more than is stored.
    OSError
        It cannot be opened.
    """
    size_bytes = path.stat().st_size
    try:
        with h5py.File(path, "r", locking=False) as file:
            _Walk(size_bytes).check_group(file, "", 0)
    except (FileNotFoundError, PermissionError, HDF5StructureError):
        raise
    except (OSError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as exc:
        raise HDF5StructureError(f"damaged: {exc}") from exc


class _Walk:
    """A walk through all objects of a file that checks that each is met once."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._met: set[int] = set()
        self._declared_bytes = 0

    def check_group(self, group: h5py.Group, where: str, depth: int) -> None:
        self._meet(group, where)
        if depth > _MAX_DEPTH:
            raise HDF5StructureError(f"{where} lies too deep")
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
            raise HDF5StructureError(f"{where} is there twice")
        self._met.add(address)
        if len(self._met) > _MAX_OBJECTS:
            raise HDF5StructureError(f"more than {_MAX_OBJECTS} objects")
        for name in found.attrs:
            attribute = found.attrs.get_id(name)
            is_plain = attribute.dtype.kind in "biufSO" and attribute.shape == ()
            if not is_plain or attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
                raise HDF5StructureError(f"attribute {name} of {where or '/'} is not a plain value")

    def _check_dataset(self, dataset: h5py.Dataset, where: str) -> None:
        self._meet(dataset, where)
        creation = dataset.id.get_create_plist()
        stored_bytes = dataset.id.get_storage_size()
        if dataset.shape is None:
            raise HDF5StructureError(f"{where} has no shape")
        declared_bytes = math.prod(dataset.shape) * dataset.dtype.itemsize
        self._declared_bytes += declared_bytes
        faults = {
            "is virtual": dataset.is_virtual,
            "lies in another file": creation.get_external_count() > 0,
            "has filters": creation.get_nfilters() > 0,
            "holds no numbers": dataset.dtype.kind not in "biufV" or dataset.dtype.hasobject,
            "declares more than it stores": declared_bytes != stored_bytes,
            "is larger than the file": self._declared_bytes > self._size_bytes,
        }
        for fault, found in faults.items():
            if found:
                raise HDF5StructureError(f"{where} {fault}")
