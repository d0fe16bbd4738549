"""Samples one by one: paths, encoded images, PIL images and single arrays, in any mixture."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from featx._files import kind_of
from featx._threads import Prefetcher
from featx.digests.hashing import DIGEST_BYTES, digest_of, digest_of_array
from featx.digests.key_table import KEY_DTYPE, keys_from
from featx.exceptions import InputError, SampleFault, UnreadableImageError
from featx.inputs.containers import as_numpy
from featx.inputs.file_index import FileIndex, file_key
from featx.inputs.images import check_header, decode_to, pixels_of
from featx.inputs.pixels import check_range, float_range
from featx.inputs.samples import Identified, Samples, ValueSamples, check_several, conformed

_UNREAD = bytes(DIGEST_BYTES)
_FILES_AT_ONCE = 256  # that are identified before they are handed on
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|(data|file):")
_PATIENCE_S = 0.2  # a pass waits for all files to be identified before it goes ahead


ONE_SAMPLE = (str, bytes, bytearray, os.PathLike, Image.Image)
_KINDS = (*ONE_SAMPLE, memoryview, np.ndarray)


class _File(NamedTuple):
    """A file that is there.

    Attributes
    ----------
    row : int
    path : str
    state : bytes
        What the index knows it by.
    changed_s : float
    digest : bytes or None
        None if the index does not know it.
    """

    row: int
    path: str
    state: bytes
    changed_s: float
    digest: bytes | None = None


class ItemSamples(Samples):
    """A sequence of paths, encoded images, PIL images and single arrays, in any mixture.

    A file may change between the moment when it is hashed and that when it is decoded. Its pixels
    are then not those of its key, so it is hashed once more when it is decoded, and is at fault if
    it differs.

    Parameters
    ----------
    items : sequence of str, Path, bytes, PIL.Image.Image or ndarray
        None, NaN and the like are samples that cannot be read.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        shapes = {item.shape if isinstance(item, np.ndarray) else None for item in items}
        self.array_shape = shapes.pop() if len(shapes) == 1 else None
        self._keys = np.zeros(len(items), KEY_DTYPE)  # of those that are identified

    def __len__(self) -> int:
        return len(self.items)

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself for images; arrays that are not images become one array."""
        if len(shape) == 3:
            check_several(len(self), self.array_shape)
            return self
        for row, item in enumerate(self.items):
            self._check_values(row, item, shape)
        return ValueSamples(np.stack(self.items))

    def _check_values(self, row: int, item: Any, shape: tuple[int, ...]) -> None:
        """Check that an item is an array of numbers of a shape."""
        is_array = isinstance(item, np.ndarray)
        if not is_array or item.shape != shape or item.dtype.kind not in "biuf":
            got = name_of(item) if is_array or is_missing(item) else f"an image, {name_of(item)!r}"
            raise InputError(f"X[{row}] is {got}, but the backbone takes inputs of shape {shape}")
        try:
            check_unmasked(item)
        except UnreadableImageError as exc:
            raise InputError(f"X[{row}] {exc}") from exc

    def name(self, row: int) -> str:
        """Return the path of a file, or the kind of another sample."""
        return name_of(self.items[row])

    def take(self, rows: np.ndarray) -> list[Any]:
        """Return some of the items."""
        return [self.items[row] for row in rows.tolist()]

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of the pixels of floating-point arrays."""
        return float_range(item for item in self.items if isinstance(item, np.ndarray))

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples; what is read for it is checked to be an image."""
        digests: list[bytes] = [_UNREAD] * len(self)
        faults: list[SampleFault] = []
        paths: list[tuple[int, str]] = []
        for row, item in enumerate(self.items):
            if isinstance(item, (str, os.PathLike)):
                path = os.fspath(item)
                if not path:
                    faults.append(self.fault(row, "an empty path"))
                    continue
                paths.append((row, _absolute(path)))
                continue
            if is_missing(item):
                faults.append(self.fault(row, "missing value (None or NaN)"))
                continue
            try:
                digests[row] = digest_of_content(content_of(item))
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
        faults += self._add_files(paths, digests, files)
        self._keys = keys_from(digests, count=len(digests))
        return self._keys, faults

    def _add_files(
        self, paths: list[tuple[int, str]], digests: list[bytes], files: FileIndex
    ) -> list[SampleFault]:
        """Fill in the digests of files; only those that the index does not know are read."""
        found, missing = self._look_for(paths, files)
        read, faults = self._read(found, files)
        for file, digest in zip(found, read, strict=True):
            digests[file.row] = digest
        return missing + faults

    def _look_for(
        self, paths: list[tuple[int, str]], files: FileIndex
    ) -> tuple[list[_File], list[SampleFault]]:
        """Return the files that are there, with those digests that the index knows; faults."""
        found: list[_File] = []
        faults: list[SampleFault] = []
        for row, path in paths:
            try:
                status = os.stat(path)
            except (OSError, ValueError) as exc:
                reason = _why_not_opened(exc, path=os.fspath(self.items[row]))
                faults.append(self.fault(row, reason))
                continue
            if not stat.S_ISREG(status.st_mode):
                faults.append(self.fault(row, _why_not_read(status.st_mode)))
                continue
            changed_s = max(status.st_mtime, status.st_ctime)
            found.append(_File(row, path, file_key(path, status), changed_s))
        known = files.find([file.state for file in found])
        found = [file._replace(digest=one) for file, one in zip(found, known, strict=True)]
        return found, faults

    def _read(self, found: list[_File], files: FileIndex) -> tuple[list[bytes], list[SampleFault]]:
        """Return the digest of each file, and faults; the index learns those that are read."""
        digests: list[bytes] = []
        faults: list[SampleFault] = []
        for file in found:
            try:
                digests.append(file.digest or _digest_of_file(file, files))
            except UnreadableImageError as exc:
                digests.append(_UNREAD)
                faults.append(self.fault(file.row, exc))
        return digests, faults

    def start_identifying(self, files: FileIndex) -> Prefetcher[Identified] | None:
        """Read files in a thread, if all samples are files that are there."""
        paths = [
            (row, _absolute(path))
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
        except BaseException:  # Ctrl-C: nobody else knows the thread yet
            started.close()
            raise
        return started

    def _identify(self, found: list[_File], files: FileIndex) -> Identified:
        digests, faults = self._read(found, files)
        rows = slice(found[0].row, found[-1].row + 1)
        self._keys[rows] = keys_from(digests, count=len(found))
        return Identified(rows, self._keys[rows], faults)

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Decode and resize images."""
        read = partial(self._pixels_of, shape=shape)
        return conformed(self, rows, items=rows.tolist(), pixels_of=read, shape=shape)

    def _pixels_of(self, row: int, shape: tuple[int, ...]) -> np.ndarray:
        content = content_of(self.items[row])
        if isinstance(content, np.ndarray):
            return content
        if self._keys[row] and self._keys[row] != keys_from([digest_of(content)], count=1)[0]:
            raise UnreadableImageError(
                "changed after it was hashed: run it again when nothing writes to it"
            )
        return decode_to(content, shape)


def is_sample(item: Any) -> bool:
    """Return True for a path, an encoded image, a PIL image or an array without objects."""
    if isinstance(item, np.ndarray):
        return not (item.dtype.hasobject or _is_foreign(item))
    return isinstance(item, _KINDS)


def _is_foreign(array: np.ndarray) -> bool:
    """Return True for bfloat16 and the like, dtypes that other packages add to numpy."""
    return array.dtype.kind == "V" and array.dtype.names is None


def as_item(item: Any) -> Any:
    """Return a tensor or scalar of another library as an array or a Python object.

    Raises
    ------
    UnreadableImageError
        The tensor cannot be a numpy array.

    Examples
    --------
    >>> as_item(np.array("a.png")), as_item("b.png")
    ('a.png', 'b.png')
    """
    if isinstance(item, (str, bytes)) or item is None:
        return item
    if hasattr(item, "as_py"):  # pyarrow
        return item.as_py()
    is_array = isinstance(item, np.ndarray) and not _is_foreign(item)
    if not is_array and hasattr(item, "__array__"):
        try:
            item = as_numpy(item)
        except InputError as exc:
            raise UnreadableImageError(str(exc)) from exc
    if isinstance(item, np.ndarray) and item.ndim == 0:
        return item.item()
    if isinstance(item, np.ndarray) and item.dtype.hasobject:
        return _dense(item)
    return item


def _dense(nested: np.ndarray) -> np.ndarray:
    """Return an array of arrays, as in a column of nested lists, as one array of numbers."""
    if not nested.dtype.hasobject or not len(nested):
        return nested
    try:
        parts = [_dense(part) if isinstance(part, np.ndarray) else part for part in nested]
        return np.asarray(parts)
    except ValueError as exc:
        raise UnreadableImageError(f"an array of objects that make no image: {exc}") from exc


def name_of(item: Any) -> str:
    """Return the path of a file, or the kind of another sample.

    Examples
    --------
    >>> name_of("a.png"), name_of(b"abc"), name_of(np.zeros((4, 4), np.uint8))
    ('a.png', '3 bytes', 'array (4, 4) uint8')
    """
    if isinstance(item, (str, os.PathLike)):
        return os.fspath(item)
    if isinstance(item, np.ndarray):
        return f"array {item.shape} {item.dtype}"
    if isinstance(item, (bytes, bytearray, memoryview)):
        return f"{len(item)} bytes"
    if is_missing(item):
        return str(item)
    return type(item).__name__


def content_of(item: Any) -> np.ndarray | bytes:
    """Return the pixels of an array or a PIL image, or the bytes of a file or an encoded image.

    Raises
    ------
    UnreadableImageError
        The item cannot be read.
    """
    if isinstance(item, memoryview) and item.ndim > 1:
        item = np.asarray(item)
    if isinstance(item, np.ndarray):
        check_unmasked(item)
        is_encoded = item.ndim == 1 and item.dtype == np.uint8  # as numpy.fromfile reads a file
        return item.tobytes() if is_encoded else item
    if isinstance(item, Image.Image):
        return pixels_of(item)
    return _content_of_file(item) if isinstance(item, (str, os.PathLike)) else bytes(item)


def check_unmasked(item: Any) -> None:
    """Check that an array has no masked values, below which is anything.

    Raises
    ------
    UnreadableImageError
        It has some.
    """
    if np.ma.is_masked(item):
        raise UnreadableImageError(
            "has masked values: pass image.filled(value), with a value of your choice"
        )


def digest_of_content(content: np.ndarray | bytes) -> bytes:
    """Return the digest of pixels or encoded bytes, after the checks that are cheap.

    Raises
    ------
    UnreadableImageError
        They are not an image.
    """
    if isinstance(content, np.ndarray):
        check_range(content)
        return digest_of_array(content)
    check_header(content)
    return digest_of(content)


def is_missing(item: Any) -> bool:
    """Tell whether an item is what a column of paths has where there is none.

    Examples
    --------
    >>> [is_missing(item) for item in (None, float("nan"), "a.jpg", 0.5)]
    [True, True, False, False]
    """
    if isinstance(item, Real):
        return item != item
    return item is None or type(item).__name__ in ("NAType", "NaTType")  # of pandas


def _absolute(path: str) -> str:
    # Another spelling of a path only means that the file is hashed once more.
    return path if path.startswith(os.sep) else os.path.abspath(path)


def _digest_of_file(file: _File, files: FileIndex) -> bytes:
    digest = digest_of_content(_content_of_file(file.path))
    files.add(file.state, digest, modified_s=file.changed_s)
    return digest


def _content_of_file(path: str | os.PathLike[str]) -> bytes:
    try:
        # A pipe must not even be opened: that wakes a process that waits to write into it.
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_ISREG(mode):
                    return file.readall()
    except (OSError, ValueError) as exc:
        raise UnreadableImageError(_why_not_opened(exc, path=os.fspath(path))) from exc
    raise UnreadableImageError(_why_not_read(mode))


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _why_not_opened(exc: Exception, *, path: str) -> str:
    if isinstance(exc, FileNotFoundError):
        return _why_no_file(path) if _URL.match(path) else "no such file"
    return getattr(exc, "strerror", None) or str(exc)


def _why_no_file(url: str) -> str:
    if url.startswith("data:"):
        return "a data URI, not a path; pass the decoded bytes"
    if url.startswith("file:"):
        return "a URL, not a path; leave file:// out"
    return "a URL, which featx does not open; pass the bytes, or the path of a copy"


def _why_not_read(mode: int) -> str:
    """Return why a file that is not a regular one was not read."""
    if stat.S_ISDIR(mode):
        return "a folder, not a file; load_image_folder(path).data lists the images in it"
    return f"a {kind_of(mode)}, not a file; nothing was read from it"
