"""ShardFrame: the HDF5 file of a shard, made in memory with gaps where its rows go.

A shard is plain HDF5, readable with h5py alone; ``schema.py`` lists its fields. An exported file
may also hold ``names`` and ``labels`` of the samples.

libhdf5 makes the frame in memory, and featx fills in the rows and writes the file, because h5py on
a full disk leaves an unreadable file and a process that crashes at exit.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import h5py
import numpy as np

from featx._text import as_utf8
from featx.cache.schema import ArrayPlace, attributes_of, fields_of
from featx.digests.space import Space

_PAGE_BYTES = 4096


class ShardFrame(NamedTuple):
    """A shard file with gaps in place of its arrays."""

    file: PagedFile
    places: dict[str, ArrayPlace]

    def filled(self, arrays: Mapping[str, np.ndarray]) -> list[Any]:
        """Return the complete file as buffers in order, without copying the arrays."""
        around = [part for _, part in self.rest()]
        inside = [arrays[name] for name in sorted(self.places, key=self.places.__getitem__)]
        pairs = zip(around, inside, strict=False)
        return [*itertools.chain.from_iterable(pairs), around[-1]]

    def rest(self) -> list[tuple[int, bytes]]:
        """Return the parts of the file around the arrays, as (offset, bytes)."""
        places = sorted(self.places.values())
        starts = [0, *(place.stop for place in places)]
        stops = [*(place.offset for place in places), self.file.size]
        return [
            (start, self.file.part(start, stop)) for start, stop in zip(starts, stops, strict=True)
        ]


def shard_frame(
    n_rows: int,
    *,
    space: Space,
    dtype: str,
    texts: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ShardFrame:
    """Make a shard file with gaps in place of its arrays, for one row or more.

    The rows do not go through libhdf5, so they are neither copied in memory nor written by it to a
    disk that may be full. `dtype` is that of the embeddings; `texts` are further datasets of
    strings, such as ``names`` and ``labels``.
    """
    memory = PagedFile()
    with h5py.File(memory, "w") as file:
        file.attrs.update(attributes_of(space))
        _write_strings(file, texts)
        places = {}
        for name, field in fields_of(space).items():
            field_dtype = dtype if name == "embeddings" else field.dtypes[0]
            places[name] = _allocate_dataset(file, name, (n_rows, *field.entry_shape), field_dtype)
        return ShardFrame(memory, places)


def _allocate_dataset(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> ArrayPlace:
    """Reserve the bytes of a contiguous dataset."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(dtype))
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, creation)
    return ArrayPlace(dataset.get_offset(), shape, dtype)


def plain_file(arrays: Mapping[str, np.ndarray], texts: Mapping[str, Sequence[str]]) -> memoryview:
    """Return the bytes of an HDF5 file of arrays and texts that is not a shard."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        _write_strings(file, texts)
    return memory.getbuffer()


def _write_strings(file: h5py.File, texts: Mapping[str, Sequence[str]]) -> None:
    """Write datasets of strings; characters that HDF5 strings cannot hold are escaped."""
    for name, values in texts.items():
        plain = [as_utf8(value).replace("\0", r"\x00") for value in values]
        file.create_dataset(name, data=plain, dtype=h5py.string_dtype())


class PagedFile(io.RawIOBase):
    """A binary file of `size` bytes in memory; unwritten pages are zero and take no memory."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._position = 0
        self.size = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    writable = seekable = readable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, counted from the start, the current position or the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """Set the size; None is the position."""
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        """Write at the position, and advance it."""
        rest = memoryview(data).cast("B")
        n_bytes = len(rest)
        while len(rest):
            number, start = divmod(self._position, _PAGE_BYTES)
            page = self._pages.setdefault(number, bytearray(_PAGE_BYTES))
            n_here = min(len(rest), _PAGE_BYTES - start)
            page[start : start + n_here] = rest[:n_here]
            rest = rest[n_here:]
            self._position += n_here
        self.size = max(self.size, self._position)
        return n_bytes

    def readinto(self, buffer: Any) -> int:
        """Read from the position as much as fits, and advance it."""
        target = memoryview(buffer).cast("B")
        stop = min(self._position + len(target), self.size)
        data = self.part(self._position, stop)
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes between two positions."""
        parts = []
        while start < stop:
            number, first = divmod(start, _PAGE_BYTES)
            page = self._pages.get(number, bytes(_PAGE_BYTES))
            parts.append(page[first : first + stop - start])
            start += len(parts[-1])
        return b"".join(parts)
