"""ItemSamples: a sequence of paths, encoded images, PIL images and arrays, in any mixture."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from featx._progress import activity
from featx._threads import Prefetcher
from featx.digests.hashing import digest_of
from featx.digests.key_table import KEY_DTYPE, NO_KEY, bytes_from_keys, keys_from
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

_FILES_AT_ONCE = 256  # that are read in a block
_FILES_OF_A_LOOK_UP = 4096  # whose states take memory at the same time
_MISSING = "missing value (None or NaN)"
_PATIENCE_S = 0.2  # time to hash all files, after which a pass starts with those that are hashed


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
        other = type(self)(self.items)
        other.reader, other.given = reader, self.given
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
        if self.reader is not None:
            return self.reader.picture_of(self._read_array(row, self.reader))
        return self._content_of(row)

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of the pixels of floating-point arrays."""
        return float_range(item for item in self.items if isinstance(item, np.ndarray))

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples, and check that they are images."""
        keys, faults = self._known_keys(files)
        unread = np.setdiff1d(np.flatnonzero(keys == NO_KEY), [fault.position for fault in faults])
        faults += self._read(_shown_while_read(unread), keys, files)
        self._keys = keys
        return keys, faults

    def _known_keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Return the keys, all zero for files that the index does not know, and the faults."""
        keys = np.zeros(len(self), KEY_DTYPE)
        faults: list[SampleFault] = []
        for start in range(0, len(self), _FILES_OF_A_LOOK_UP):
            at: list[int] = []
            states: list[bytes] = []
            tracked: list[tuple[int, bytes, float]] = []
            for row, item in enumerate(self.items[start : start + _FILES_OF_A_LOOK_UP], start):
                try:
                    if isinstance(item, (str, os.PathLike)):
                        status = file_status(item)
                        states.append(_state_of_file(item, status))
                        at.append(row)
                        if self.reader is not None and self._is_tracked(item):
                            tracked.append((row, states[-1], _changed_s(status)))
                    else:
                        keys[row] = self._digest_of_item(item)
                except UnreadableImageError as exc:
                    faults.append(self.fault(row, exc))
            keys[at] = files.find(keys_from(states, count=len(states)))
            for row, state, changed_s in tracked:
                if keys[row]:
                    digest = bytes_from_keys(keys[row : row + 1])[0]
                    keys[row] = self._key_of_tracked(row, state, digest, changed_s)
        return keys, faults

    def _read(self, rows: Iterable[int], keys: np.ndarray, files: FileIndex) -> list[SampleFault]:
        """Hash files, set their keys, and add them to the index; return the faults."""
        faults = []
        for row in rows:
            try:
                keys[row] = self._digest_of_row(row, files)
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
        return faults

    def start_identifying(self, files: FileIndex) -> Prefetcher[IdentifiedBlock] | None:
        """Identify files in a thread, if all samples are files that exist."""
        if not all(isinstance(item, (str, os.PathLike)) for item in self.items):
            return None
        keys, faults = self._known_keys(files)
        if faults:
            return None
        self._keys = keys
        blocks = (
            slice(start, min(start + _FILES_AT_ONCE, len(self)))
            for start in range(0, len(self), _FILES_AT_ONCE)
        )
        started = Prefetcher(partial(self._identify, files=files), blocks, n_threads=1)
        try:
            started.wait(_PATIENCE_S)
        except BaseException:  # Ctrl-C: no caller has the thread yet
            started.close()
            raise
        return started

    def _identify(self, rows: slice, files: FileIndex) -> IdentifiedBlock:
        unread = rows.start + np.flatnonzero(self._keys[rows] == NO_KEY)
        faults = self._read(unread.tolist(), self._keys, files)
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
        part = part_of(item)
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

    def _digest_of_item(self, item: Any) -> bytes:
        """Hash a sample that is no file."""
        if is_missing(item):
            raise UnreadableImageError(_MISSING)
        return self._digest_of(content_of_item(item))

    def _digest_of_row(self, row: int, files: FileIndex) -> bytes:
        """Hash a file, and add it to the index with the state that it had before."""
        path = os.fspath(self.items[row])
        status = file_status(path)
        state, changed_s = _state_of_file(path, status), _changed_s(status)
        is_tracked = self._is_tracked(self.items[row])
        digest = self._opened.digest(_absolute_sample_path(path), state) if is_tracked else None
        if digest is None:
            has_reader = self.reader is not None
            digest = digest_of_file(path) if has_reader else IMAGE.digest_of(content_of_item(path))
            files.add(state, digest, modified_s=changed_s)
        return self._key_of_tracked(row, state, digest, changed_s) if is_tracked else digest

    def _is_tracked(self, item: Any) -> bool:
        """Return True for a file that the reader opens itself, and for a part of a file."""
        return isinstance(item, Part) or (self.reader is not None and self.reader.opens(item))

    def _key_of_tracked(self, row: int, state: bytes, digest: bytes, changed_s: float) -> bytes:
        """Note that a file was hashed; return the key of a row, which may be a part of it."""
        path = _absolute_sample_path(os.fspath(self.items[row]))
        self._opened.add(path, state, digest, changed_s=changed_s)
        return with_part(self.items[row], digest)

    def _content_of(self, row: int) -> np.ndarray | bytes:
        content = self._read_item(row)
        if isinstance(content, np.ndarray) or not self._keys[row]:
            return content
        digest = with_part(self.items[row], digest_of(content))
        if self._keys[row] != keys_from([digest], count=1)[0]:
            raise UnreadableImageError(CHANGED)
        return content

    def _read_item(self, row: int) -> np.ndarray | bytes:
        item = self.items[row]
        if is_missing(item):
            raise UnreadableImageError(_MISSING)
        if isinstance(item, Image.Image):
            with self._loading:  # the same image may be there twice, and loads when it is read
                return content_of_item(item)
        return content_of_item(item)


def part_of(item: Any) -> Part | None:
    """Return an item that is a part of a file; None for another."""
    return item if isinstance(item, Part) else None


def with_part(item: Any, digest: bytes) -> bytes:
    """Return the digest of the content of an item, which may be a part of a file."""
    return digest_of(digest, item.selection.encode()) if isinstance(item, Part) else digest


def _shown_while_read(rows: np.ndarray) -> Iterator[int]:
    """Yield rows of files, and show how many of them are read."""
    for first in range(0, len(rows), _FILES_AT_ONCE):
        with activity(f"reading {first:,} of {len(rows):,} files"):
            yield from rows[first : first + _FILES_AT_ONCE].tolist()


def _state_of_file(path: str | os.PathLike[str], status: os.stat_result) -> bytes:
    """Return the key of a file in the index."""
    return file_key(_absolute_sample_path(os.fspath(path)), status)


def _absolute_sample_path(path: str) -> str:
    # Without normalization, which is slower: another spelling of a path costs one more hash.
    return path if path.startswith(os.sep) else os.path.abspath(path)


def _changed_s(status: os.stat_result) -> float:
    return max(status.st_mtime, status.st_ctime)
