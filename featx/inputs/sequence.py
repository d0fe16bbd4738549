"""ItemSamples: a sequence of paths, encoded images, PIL images and arrays, in any mixture."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from featx._progress import activity
from featx._threads import Prefetcher
from featx.digests.hashing import DIGEST_BYTES, digest_of
from featx.digests.key_table import KEY_DTYPE, keys_from
from featx.exceptions import InputError, SampleFault, UnreadableImageError
from featx.inputs.file_index import FileIndex, file_key
from featx.inputs.items import (
    check_unmasked,
    content_of_item,
    digest_of_file,
    file_status,
    is_missing,
    name_of_item,
)
from featx.inputs.kinds import IMAGE, InputForm, kind_of
from featx.inputs.opened_files import CHANGED, OpenedFiles
from featx.inputs.pixels import float_range
from featx.inputs.reader import Reader
from featx.inputs.samples import IdentifiedBlock, Samples, ValueSamples, check_several, load_rows
from featx.readers.parts import Part

_UNREAD = bytes(DIGEST_BYTES)
_FILES_AT_ONCE = 256  # in a block
_MISSING = "missing value (None or NaN)"
_PATIENCE_S = 0.2  # time to hash all files, after which a pass starts with those that are hashed


class _SampleFile(NamedTuple):
    """A file that exists: `state` is its key in the file index, `digest` what the index holds."""

    row: int
    path: str
    state: bytes
    changed_s: float
    digest: bytes | None


class ItemSamples(Samples):
    """A sequence of paths, encoded images, PIL images and single arrays, in any mixture.

    Missing values, such as None and NaN, are samples that cannot be read. A file may change after
    it is hashed and before it is decoded. So it is hashed again when it is decoded, and is a fault
    if the digests differ.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        shapes = {item.shape if isinstance(item, np.ndarray) else None for item in items}
        self.array_shape = shapes.pop() if len(shapes) == 1 else None
        self._keys = np.zeros(len(items), KEY_DTYPE)  # of the samples identified so far
        self._opened = OpenedFiles()
        self._loading = threading.Lock()

    def __len__(self) -> int:
        return len(self.items)

    def read_by(self, reader: Reader | None) -> Samples:
        """Return the same items, read by another reader; check that it takes them."""
        if reader is None and self.reader is None:
            return self
        if reader is not None:
            for row, item in enumerate(self.items):
                if not is_missing(item) and (fault := reader.why_not_taken(item)):
                    raise InputError(f"X[{row}] is {fault}")
        other = copy.copy(self)
        other.reader, other._keys = reader, np.zeros(len(self), KEY_DTYPE)
        return other

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself for images and for what a reader reads, else rows of one array."""
        if self.reader is not None:
            return self
        for row, item in enumerate(self.items):
            if isinstance(item, Part):
                raise InputError(
                    f"X[{row}] is a {type(item).__name__}, {name_of_item(item)!r}, which needs a "
                    "reader, such as FeatureExtractor(read=featx.readers.TiffReader())"
                )
        if kind_of(shape).is_resized:
            check_several(len(self), self.array_shape)
            return self
        for row, item in enumerate(self.items):
            self._check_numbers(row, item, shape)
        return ValueSamples(np.stack(self.items))

    def _check_numbers(self, row: int, item: Any, shape: tuple[int, ...]) -> None:
        """Check that an item is an array of numbers of this shape."""
        is_array = isinstance(item, np.ndarray)
        if not is_array or item.shape != shape or item.dtype.kind not in "biuf":
            got = (
                name_of_item(item)
                if is_array or is_missing(item)
                else f"an image, {name_of_item(item)!r}"
            )
            raise InputError(f"X[{row}] is {got}, but the backbone takes inputs of shape {shape}")
        try:
            check_unmasked(item)
        except UnreadableImageError as exc:
            raise InputError(f"X[{row}] {exc}") from exc

    def name(self, row: int) -> str:
        """Return the path of a file, or the kind of another sample."""
        return name_of_item(self.items[row])

    def path(self, row: int) -> str | None:
        """Return the path of a file; None for another sample."""
        item = self.items[row]
        return os.fspath(item) if isinstance(item, (str, os.PathLike)) else None

    def take(self, rows: np.ndarray) -> list[Any]:
        """Return some of the items."""
        return [self.items[row] for row in rows.tolist()]

    def content(self, row: int) -> np.ndarray | bytes:
        """Return the pixels of an array or a PIL image, or the bytes of other items.

        Where there is a reader, return a picture of what it reads.
        """
        item = self.items[row]
        if is_missing(item):
            raise UnreadableImageError(_MISSING)
        if self.reader is not None:
            return self.reader.picture_of(self._read_array(row, self.reader))
        if isinstance(item, Image.Image):
            with self._loading:  # the same image may be there twice, and loads when it is read
                return self._content_of(row)
        return self._content_of(row)

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of the pixels of floating-point arrays."""
        return float_range(item for item in self.items if isinstance(item, np.ndarray))

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples, and check that they are images."""
        digests: list[bytes] = [_UNREAD] * len(self)
        faults: list[SampleFault] = []
        paths: list[tuple[int, str]] = []
        for row, item in enumerate(self.items):
            if isinstance(item, (str, os.PathLike)):
                if path := os.fspath(item):
                    paths.append((row, _absolute_sample_path(path)))
                else:
                    faults.append(self.fault(row, "an empty path"))
            elif is_missing(item):
                faults.append(self.fault(row, _MISSING))
            else:
                try:
                    digests[row] = self._digest_of(content_of_item(item))
                except UnreadableImageError as exc:
                    faults.append(self.fault(row, exc))
        found, missing = self._look_for(paths, files)
        read, unreadable = self._read(_shown_while_read(found), files)
        for file, digest in zip(found, read, strict=True):
            digests[file.row] = digest
        self._keys = keys_from(digests, count=len(digests))
        return self._keys, faults + missing + unreadable

    def _look_for(
        self, paths: list[tuple[int, str]], files: FileIndex
    ) -> tuple[list[_SampleFile], list[SampleFault]]:
        """Return the files that exist, with the digests that the index knows, and the faults."""
        found: list[tuple[int, str, bytes, float]] = []
        faults: list[SampleFault] = []
        for row, path in paths:
            try:
                status = file_status(self.items[row])
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
                continue
            changed_s = max(status.st_mtime, status.st_ctime)
            found.append((row, path, file_key(path, status), changed_s))
        digests = files.find([state for _, _, state, _ in found])
        return [
            _SampleFile(*file, digest) for file, digest in zip(found, digests, strict=True)
        ], faults

    def _read(
        self, found: Iterable[_SampleFile], files: FileIndex
    ) -> tuple[list[bytes], list[SampleFault]]:
        """Return the digest of each file, and the faults; add what was read to the index."""
        digests: list[bytes] = []
        faults: list[SampleFault] = []
        for file in found:
            try:
                digests.append(self._digest_of_row(file, files))
            except UnreadableImageError as exc:
                digests.append(_UNREAD)
                faults.append(self.fault(file.row, exc))
        return digests, faults

    def start_identifying(self, files: FileIndex) -> Prefetcher[IdentifiedBlock] | None:
        """Identify files in a thread, if all samples are files that exist."""
        paths = [
            (row, _absolute_sample_path(path))
            for row, item in enumerate(self.items)
            if isinstance(item, (str, os.PathLike)) and (path := os.fspath(item))
        ]
        if len(paths) < len(self):
            return None
        found, faults = self._look_for(paths, files)
        if faults:
            return None
        blocks = (found[i : i + _FILES_AT_ONCE] for i in range(0, len(found), _FILES_AT_ONCE))
        started = Prefetcher(partial(self._identify, files=files), blocks, n_threads=1)
        try:
            started.wait(_PATIENCE_S)
        except BaseException:  # Ctrl-C: no caller has the thread yet
            started.close()
            raise
        return started

    def _identify(self, found: list[_SampleFile], files: FileIndex) -> IdentifiedBlock:
        digests, faults = self._read(found, files)
        rows = slice(found[0].row, found[-1].row + 1)
        self._keys[rows] = keys_from(digests, count=len(found))
        return IdentifiedBlock(rows, self._keys[rows], faults)

    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Decode and resize images, or let the reader read them."""
        return load_rows(self, rows, partial(self._load, form=form), form)

    def _load(self, row: int, form: InputForm) -> np.ndarray:
        if self.reader is None:
            return form.kind.load(self._content_of(row), form)
        return self.reader.input_of(self._read_array(row, self.reader), form)

    def _read_array(self, row: int, reader: Reader) -> np.ndarray:
        item = self.items[row]
        part = item if isinstance(item, Part) else None
        if not reader.opens(item):
            return reader(bytes(self._content_of(row)), part)
        array = reader(os.fspath(item), part)
        self._opened.check_unchanged(_absolute_sample_path(os.fspath(item)))
        return array

    def _digest_of(self, content: np.ndarray | bytes) -> bytes:
        """Return the digest of the content of an item; check it if featx decodes it itself."""
        if self.reader is not None and isinstance(content, bytes):
            return digest_of(content)
        return IMAGE.digest_of(content)

    def _digest_of_row(self, file: _SampleFile, files: FileIndex) -> bytes:
        """Return the digest of a file, or of a part of it; several parts hash their file once."""
        item = self.items[file.row]
        is_opened = self.reader is not None and self.reader.opens(item)
        if not (is_opened or isinstance(item, Part)):
            return file.digest or _digest_of_file(file, files, self.reader)
        digest = file.digest or self._opened.digest(file.path, file.state)
        digest = digest or _digest_of_file(file, files, self.reader)
        self._opened.add(file.path, file.state, digest, changed_s=file.changed_s)
        return _with_part(item, digest)

    def _content_of(self, row: int) -> np.ndarray | bytes:
        content = content_of_item(self.items[row])
        if isinstance(content, np.ndarray) or not self._keys[row]:
            return content
        digest = _with_part(self.items[row], digest_of(content))
        if self._keys[row] != keys_from([digest], count=1)[0]:
            raise UnreadableImageError(CHANGED)
        return content


def _with_part(item: Any, digest: bytes) -> bytes:
    """Return the digest of the content of an item, which may be a part of a file."""
    return digest_of(digest, item.selection.encode()) if isinstance(item, Part) else digest


def _shown_while_read(found: list[_SampleFile]) -> Iterator[_SampleFile]:
    """Yield files, and show how many of them are read, unless all digests are known."""
    if all(file.digest for file in found):
        yield from found
        return
    for first in range(0, len(found), _FILES_AT_ONCE):
        with activity(f"reading {first:,} of {len(found):,} files"):
            yield from found[first : first + _FILES_AT_ONCE]


def _absolute_sample_path(path: str) -> str:
    # Without normalization, which is slower: another spelling of a path costs one more hash.
    return path if path.startswith(os.sep) else os.path.abspath(path)


def _digest_of_file(file: _SampleFile, files: FileIndex, reader: Reader | None) -> bytes:
    if reader is None:
        digest = IMAGE.digest_of(content_of_item(file.path))
    else:
        digest = digest_of_file(file.path)
    files.add(file.state, digest, modified_s=file.changed_s)
    return digest
