"""``as_item``: an item of a sequence is a path, an encoded image, a PIL image or an array.

:func:`as_item` converts objects of other libraries to one of these, and :func:`content_of_item`
reads it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from featx._files import describe_file_type
from featx._urls import is_url, shown_path, shown_url
from featx.digests.hashing import digest_of_stream
from featx.exceptions import InputError, UnreadableImageError
from featx.inputs.containers import as_numpy
from featx.inputs.images import pixels_of
from featx.readers.parts import Part

ONE_SAMPLE = (str, bytes, bytearray, os.PathLike, Image.Image)
_CHUNK_BYTES = 2**22
_ITEMS = (*ONE_SAMPLE, memoryview, np.ndarray)
_NO_PATH = re.compile(r"data:|[A-Za-z][A-Za-z0-9+.-]+:/")


def is_sample(item: Any) -> bool:
    """Return True for a path, an encoded image, a PIL image or an array without objects."""
    if isinstance(item, np.ndarray):
        return not (item.dtype.hasobject or _is_foreign_dtype(item))
    return isinstance(item, _ITEMS)


def is_encoded_record(item: Any) -> bool:
    """Return True for an image as Hugging Face's ``datasets`` stores it, as bytes or a path."""
    return isinstance(item, Mapping) and bool(item) and item.keys() <= {"bytes", "path"}


def _is_foreign_dtype(array: np.ndarray) -> bool:
    """Return True for bfloat16 and the like, dtypes that other packages add to numpy."""
    return array.dtype.kind == "V" and array.dtype.names is None


def as_item(item: Any) -> Any:
    """Return a tensor, scalar or record of another library as an array or a Python object.

    UnreadableImageError is raised if a tensor cannot be converted to a numpy array.

    Examples
    --------
    >>> as_item(np.array("a.png")), as_item("b.png")
    ('a.png', 'b.png')
    """
    if isinstance(item, (str, bytes)) or item is None:
        return item
    if hasattr(item, "as_py"):  # pyarrow
        return as_item(item.as_py())
    if is_encoded_record(item):
        return item.get("path") if item.get("bytes") is None else item["bytes"]
    is_array = isinstance(item, np.ndarray) and not _is_foreign_dtype(item)
    if not is_array and hasattr(item, "__array__"):
        try:
            item = as_numpy(item)
        except InputError as exc:
            raise UnreadableImageError(str(exc)) from exc
    if isinstance(item, np.ndarray) and item.ndim == 0:
        return item.item()
    if isinstance(item, np.ndarray) and item.dtype.hasobject:
        return _dense_item_array(item)
    return item


def _dense_item_array(nested: np.ndarray) -> np.ndarray:
    """Convert an array of arrays, as in a column of nested lists, to one array of numbers."""
    if not nested.dtype.hasobject or not len(nested):
        return nested
    try:
        parts = [
            _dense_item_array(part) if isinstance(part, np.ndarray) else part for part in nested
        ]
        return np.asarray(parts)
    except ValueError as exc:
        raise UnreadableImageError(f"an array of objects that is not an image: {exc}") from exc


def name_of_item(item: Any) -> str:
    """Return the path of a file, or the kind of another sample.

    Examples
    --------
    >>> name_of_item("a.png"), name_of_item(b"abc"), name_of_item(np.zeros((4, 4), np.uint8))
    ('a.png', '3 bytes', 'array (4, 4) uint8')
    """
    if is_url(item):
        return shown_url(item)
    if isinstance(item, (str, os.PathLike)):
        return shown_path(str(item)) if isinstance(item, Part) else os.fspath(item)
    if isinstance(item, np.ndarray):
        return f"array {item.shape} {item.dtype}"
    if isinstance(item, (bytes, bytearray, memoryview)):
        return f"{len(item)} bytes"
    if is_missing(item):
        return str(item)
    return type(item).__name__


def content_of_item(item: Any) -> np.ndarray | bytes:
    """Return the pixels of an array or a PIL image, or the bytes of a file or an encoded image."""
    if isinstance(item, memoryview) and item.ndim > 1:
        item = np.asarray(item)
    if isinstance(item, np.ndarray):
        check_unmasked(item)
        is_encoded = item.ndim == 1 and item.dtype == np.uint8  # as numpy.fromfile reads a file
        return item.tobytes() if is_encoded else item
    if isinstance(item, Image.Image):
        return pixels_of(item)
    if is_url(item):
        from featx.inputs.places import place_of  # which needs this module

        return place_of(item).read(item)
    return content_of_file(item) if isinstance(item, (str, os.PathLike)) else bytes(item)


def digest_of_file(path: str | os.PathLike[str]) -> bytes:
    """Return the digest of the content of a file, of which little is in memory at a time."""
    with _opened_file(path) as file:
        return digest_of_stream(iter(partial(file.read, _CHUNK_BYTES), b""))


def check_unmasked(item: Any) -> None:
    """Raise :class:`UnreadableImageError` if an array has masked values."""
    if np.ma.is_masked(item):
        raise UnreadableImageError(
            "has masked values: pass image.filled(value), with a value of your choice"
        )


def is_missing(item: Any) -> bool:
    """Return True for a missing value, as in a column of paths.

    Examples
    --------
    >>> [is_missing(item) for item in (None, float("nan"), "a.jpg", 0.5)]
    [True, True, False, False]
    """
    if isinstance(item, Real):
        return item != item
    return item is None or type(item).__name__ in ("NAType", "NaTType")  # of pandas


def file_status(path: str | os.PathLike[str]) -> os.stat_result:
    """Return the status of a regular file; raise UnreadableImageError for others."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as exc:
        raise UnreadableImageError(_why_not_opened(exc, path=os.fspath(path))) from exc
    _check_regular_item_file(status.st_mode)
    return status


def content_of_file(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a regular file; raise UnreadableImageError for others."""
    with _opened_file(path) as file:
        return file.readall()


@contextlib.contextmanager
def _opened_file(path: str | os.PathLike[str]) -> Iterator[io.FileIO]:
    """Open a regular file; OSErrors become UnreadableImageErrors, also while it is read."""
    file_status(path)  # before opening, which would wake a process that waits to write into a pipe
    try:
        with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
            _check_regular_item_file(os.fstat(file.fileno()).st_mode)
            yield file
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as exc:
        raise UnreadableImageError(_why_not_opened(exc, path=os.fspath(path))) from exc


def _check_regular_item_file(mode: int) -> None:
    """Raise if a file is not a regular one."""
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise UnreadableImageError(
            "a folder, not a file; load_image_folder(path).data lists the images in it"
        )
    raise UnreadableImageError(
        f"a {describe_file_type(mode)}, not a file; nothing was read from it"
    )


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _why_not_opened(exc: Exception, *, path: str) -> str:
    if isinstance(exc, FileNotFoundError):
        if not path:
            return "an empty path"
        return _why_no_file(path) if _NO_PATH.match(path) else "no such file"
    return getattr(exc, "strerror", None) or str(exc)


def _why_no_file(path: str) -> str:
    if path.startswith("data:"):
        return "a data URI, not a path; pass the decoded bytes"
    return "no such file; pass a URL as str, since a Path drops one of its slashes"
