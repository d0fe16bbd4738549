"""The format of a shard: plain HDF5 that a stranger reads with h5py alone. The only h5py user.

A shard holds, contiguous and unfiltered, ``embeddings (n, d)`` float32 or float16, ``keys (n, 16)``
uint8 and ``checksums (n,)`` uint64 (xxh3 of each row), and as root attributes ``format_version``
and ``space`` (JSON: what made these numbers, in words). A float16 space may have shards of float32,
for rows that float16 cannot hold. An exported file may hold ``names`` and ``labels`` of the samples
as well.

libhdf5 makes the frame, in memory; rows are put into it and written by featx itself, because h5py
on a full disk leaves an unreadable file and a process that dies at exit. A file is looked into
through libhdf5 only to learn where its parts lie, by a child process; their
bytes are never read this way.

A file in memory that keeps only what was written to it, page by page.

libhdf5 writes the frame of a shard into it: a few kilobytes, though the file may be as large as the
embeddings for which the frame leaves room.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import h5py
import numpy as np

from featx._text import as_utf8
from featx.digests.hashing import DIGEST_BYTES
from featx.digests.space import Space

_PAGE_BYTES = 4096


class PagedFile(io.RawIOBase):
    r"""A seekable binary file whose untouched pages are zero and take no room.

    Examples
    --------
    >>> file = PagedFile()
    >>> file.seek(10**12)
    1000000000000
    >>> file.write(b"far away")
    8
    >>> file.part(10**12 - 2, 10**12 + 3)
    b'\x00\x00far'
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._place = 0
        self._size = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def writable(self) -> bool:
        """Tell that it can be written."""
        return True

    def seekable(self) -> bool:
        """Tell that any place in it can be reached."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the start, from here or from the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """Tell the place."""
        return self._place

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        self._size = self._place if size is None else size
        return self._size

    def write(self, data: Any) -> int:
        """Write at the place, and go on behind it."""
        rest = memoryview(data).cast("B")
        n_bytes = len(rest)
        while len(rest):
            number, start = divmod(self._place, _PAGE_BYTES)
            page = self._pages.setdefault(number, bytearray(_PAGE_BYTES))
            n_here = min(len(rest), _PAGE_BYTES - start)
            page[start : start + n_here] = rest[:n_here]
            rest = rest[n_here:]
            self._place += n_here
        self._size = max(self._size, self._place)
        return n_bytes

    def readinto(self, buffer: Any) -> int:
        """Read from the place as much as there is and fits, and go on behind it."""
        target = memoryview(buffer).cast("B")
        stop = min(self._place + len(target), self._size)
        data = self.part(self._place, stop)
        target[: len(data)] = data
        self._place += len(data)
        return len(data)

    def part(self, start: int, stop: int) -> bytes:
        """Return the bytes between two places."""
        parts = []
        while start < stop:
            number, first = divmod(start, _PAGE_BYTES)
            n_here = min(stop - start, _PAGE_BYTES - first)
            page = self._pages.get(number, bytes(_PAGE_BYTES))
            parts.append(bytes(page[first : first + n_here]))
            start += n_here
        return b"".join(parts)

    @property
    def size(self) -> int:
        """How many bytes the whole file has."""
        return self._size


FORMAT_VERSION = 1
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
    dtype : {"float32", "float16"}
        Dtype of the embeddings.
    """

    embeddings: int
    keys: int
    checksums: int
    n_rows: int
    n_features: int
    space: dict[str, Any]
    dtype: str


class ShardFrame(NamedTuple):
    """A shard file without its rows, keys and checksums, for which it leaves room.

    Attributes
    ----------
    file : PagedFile
        Everything else.
    embeddings, keys, checksums : int
        Where they have to be written; offsets in bytes.
    """

    file: PagedFile
    embeddings: int
    keys: int
    checksums: int

    def filled(
        self, *, embeddings: np.ndarray, keys: np.ndarray, checksums: np.ndarray
    ) -> list[Any]:
        """Return the whole file, as buffers in the order of their places; nothing is copied."""
        rooms = {self.embeddings: embeddings, self.keys: keys, self.checksums: checksums}
        parts: list[Any] = []
        done = 0
        for offset, array in sorted(rooms.items(), key=lambda room: room[0]):
            parts += [self.file.part(done, offset), array]
            done = offset + array.nbytes
        return [*parts, self.file.part(done, self.file.size)]

    def rest(self, *, n_rows: int, row_bytes: int) -> list[tuple[int, bytes]]:
        """Return what is around the rooms, as (offset, bytes)."""
        rooms = sorted(
            [
                (self.embeddings, n_rows * row_bytes),
                (self.keys, n_rows * DIGEST_BYTES),
                (self.checksums, n_rows * np.dtype(np.uint64).itemsize),
            ]
        )
        starts = [0, *(offset + size for offset, size in rooms)]
        stops = [*(offset for offset, _ in rooms), self.file.size]
        return [
            (start, self.file.part(start, stop)) for start, stop in zip(starts, stops, strict=True)
        ]


def shard_frame(
    shape: tuple[int, int],
    *,
    space: dict[str, Any],
    dtype: str,
    texts: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> ShardFrame:
    """Make a shard file that leaves room for embeddings, keys and checksums.

    libhdf5 never sees the rows: they are neither copied in memory, however many there are, nor
    written by it to a disk that may be full.

    Parameters
    ----------
    shape : tuple of int
        Of the embeddings, ``(n, d)``, both positive.
    space : dict
        Description of the space, plain data.
    dtype : {"float32", "float16"}
        Dtype of the embeddings.
    texts : mapping of str to sequence of str
        Further datasets of strings, such as ``names`` and ``labels``.
    """
    n_rows, n_features = shape
    memory = PagedFile()
    with h5py.File(memory, "w") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["space"] = json.dumps(space, sort_keys=True)
        _write_strings(file, texts)
        return ShardFrame(
            memory,
            _allocate(file, "embeddings", (n_rows, n_features), dtype),
            _allocate(file, "keys", (n_rows, DIGEST_BYTES), "uint8"),
            _allocate(file, "checksums", (n_rows,), "uint64"),
        )


def plain_file(embeddings: np.ndarray, texts: Mapping[str, Sequence[str]]) -> memoryview:
    """Return the bytes of a file with embeddings and texts that is not a shard."""
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file["embeddings"] = embeddings
        _write_strings(file, texts)
    return memory.getbuffer()


def _write_strings(file: h5py.File, texts: Mapping[str, Sequence[str]]) -> None:
    """Write datasets of strings, with escapes for what HDF5 strings cannot hold."""
    for name, values in texts.items():
        plain = [as_utf8(value).replace("\0", r"\x00") for value in values]
        file.create_dataset(name, data=plain, dtype=h5py.string_dtype())


def _allocate(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str) -> int:
    """Reserve the bytes of a contiguous dataset and return their offset."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    kind = h5py.h5t.py_create(np.dtype(dtype))
    space = h5py.h5s.create_simple(shape)
    return h5py.h5d.create(file.id, name.encode(), kind, space, creation).get_offset()


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
    space = Space.from_json(json.loads(description))
    embeddings = _plain_dataset(file, "embeddings", space.stored_dtypes, 2, size_bytes)
    keys = _plain_dataset(file, "keys", ["uint8"], 2, size_bytes)
    checksums = _plain_dataset(file, "checksums", ["uint64"], 1, size_bytes)
    n_rows, n_features = embeddings.shape
    if keys.shape != (n_rows, DIGEST_BYTES) or checksums.shape != (n_rows,):
        raise ShardStructureError("keys, checksums and embeddings differ in length")
    if n_features != space.n_features:
        raise ShardStructureError("its rows are not as long as its description says")
    return ShardLayout(
        embeddings=embeddings.id.get_offset(),
        keys=keys.id.get_offset(),
        checksums=checksums.id.get_offset(),
        n_rows=n_rows,
        n_features=n_features,
        space=space.to_json(),
        dtype=embeddings.dtype.name,
    )


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
    file: h5py.File, name: str, dtypes: Sequence[str], ndim: int, size_bytes: int
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
        "has another dtype": not any(dataset.dtype == np.dtype(dtype) for dtype in dtypes),
        "has another rank": dataset.ndim != ndim,
        "is empty": offset is None,
        "is larger than the file": (offset or 0) + storage_bytes > size_bytes,
        "does not fill its storage": dataset.size * dataset.dtype.itemsize != storage_bytes,
    }
    for fault, found in faults.items():
        if found:
            raise ShardStructureError(f"{name} {fault}")
    return dataset
