"""Samples in order, with identity and pixels.

There are three kinds: rows of one image array (in memory, memory-mapped or HDF5; read in blocks,
never whole), items of a sequence (paths, encoded bytes, PIL images, single arrays), and rows of a
matrix of features.

Identity is a hash of content, never of a path. Pixel values mean 0..255 in every dtype; a sample
that was hashed was also checked as far as that is cheap, so that most faults are known before the
backbone runs.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from featx._hashing import digest_of, digest_of_array
from featx.exceptions import BadSampleError, InputError, SampleFault, UnreadableImageError
from featx.file_index import FileIndex, file_key
from featx.images import check_header, conform, decode, from_pil
from featx.key_table import KEY_DTYPE, keys_from

_BLOCK_BYTES = 32 * 2**20
_MISSING = b"\0" * 16


class Samples(ABC):
    """Samples in the order that they were passed.

    Attributes
    ----------
    array_shape : tuple of int or None
        Shape that all samples share, without their number; None for files and mixed sequences.
    """

    array_shape: tuple[int, ...] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def name(self, row: int) -> str:
        """Say what a sample is: its path, or the kind of object."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> Any:
        """Return some of the samples as a person would pass them; `rows` are increasing."""

    @abstractmethod
    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples.

        Parameters
        ----------
        files : FileIndex
            Digests of files that were hashed before.

        Returns
        -------
        keys : ndarray of shape (n_samples,), dtype S16
            All zero where there is a fault.
        faults : list of SampleFault
            Those that are known without decoding.
        """

    @abstractmethod
    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load samples as the backbone takes them.

        Parameters
        ----------
        rows : ndarray of shape (m,), int64, increasing
        shape : tuple of int
            Of one input of the backbone.

        Returns
        -------
        rows : ndarray of shape (k,)
            Those that could be read.
        inputs : ndarray of shape (k, *shape), uint8 or float32
        faults : list of SampleFault
            The others.
        """

    def fault(self, row: int, reason: object) -> SampleFault:
        """Describe what is wrong with a sample."""
        return SampleFault(int(row), self.name(row), str(reason))


def identify(samples: Samples, files: FileIndex) -> np.ndarray:
    """Return the keys of samples that all have to be there, shape (n_samples,), dtype ``S16``.

    Raises
    ------
    BadSampleError
        Some are missing or unreadable; all of them are listed.
    """
    keys, faults = samples.keys(files)
    if faults:
        raise BadSampleError(faults, len(samples))
    return keys


class ArraySamples(Samples):
    """Rows of one array of images, ``(n, h, w)`` or ``(n, h, w, c)``.

    Parameters
    ----------
    array : ndarray, memmap or h5py.Dataset
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.array_shape = tuple(array.shape[1:])

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def name(self, row: int) -> str:
        """Say the shape and dtype of an image."""
        return f"array {self.array_shape} {self.array.dtype}"

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of the array."""
        return _take(self.array, rows)

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples; floats are checked for NaN and for their scale on the way."""
        keys = np.zeros(len(self), KEY_DTYPE)
        faults: list[SampleFault] = []
        largest = -np.inf
        for start, block in self._blocks():
            if block.dtype.kind == "f":
                finite = np.isfinite(block).reshape(len(block), -1).all(axis=1)
                bad = (start + np.flatnonzero(~finite)).tolist()
                faults += [self.fault(row, "has NaN or infinite pixels") for row in bad]
                largest = max(largest, block[finite].max(initial=largest))
            digests = (digest_of_array(image) for image in block)
            keys[start : start + len(block)] = keys_from(digests, count=len(block))
        _check_scale(self.array.dtype, largest)
        return keys, faults

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load images; those that have the right shape are only sliced."""
        images = _take(self.array, rows)
        if images.shape[1:] == shape and images.dtype in (np.uint8, np.float32):
            return rows, images, []
        return _conformed(self, rows, images, shape)

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        row_bytes = max(1, int(np.prod(self.array.shape[1:])) * self.array.dtype.itemsize)
        n_rows = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, len(self), n_rows):
            yield start, np.asarray(self.array[start : start + n_rows])


class VectorSamples(ArraySamples):
    """Rows of a matrix ``(n, p)``, for a backbone that takes vectors."""

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load rows as float32."""
        vectors = _take(self.array, rows)
        if vectors.shape[1:] != shape:
            raise InputError(
                f"X has {vectors.shape[1]} features, but the backbone takes inputs of shape "
                f"{shape}. Images are passed as (n, h, w) or (n, h, w, c) arrays or as paths."
            )
        return rows, vectors.astype(np.float32), []

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all rows."""
        matrix = np.asarray(self.array)
        finite = np.isfinite(matrix).all(axis=1)
        faults = [
            self.fault(row, "has NaN or infinite values")
            for row in np.flatnonzero(~finite).tolist()
        ]
        return keys_from(map(digest_of_array, matrix), count=len(self)), faults


class ItemSamples(Samples):
    """A sequence of paths, encoded images, PIL images and single arrays, in any mixture.

    Parameters
    ----------
    items : sequence of str, Path, bytes, PIL.Image.Image or ndarray
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items
        shapes = {item.shape if isinstance(item, np.ndarray) else None for item in items}
        self.array_shape = shapes.pop() if len(shapes) == 1 else None

    def __len__(self) -> int:
        return len(self.items)

    def name(self, row: int) -> str:
        """Say the path of a file, or what kind of object a sample is."""
        item = self.items[row]
        if isinstance(item, (str, os.PathLike)):
            return os.fspath(item)
        if isinstance(item, np.ndarray):
            return f"array {item.shape} {item.dtype}"
        if isinstance(item, (bytes, bytearray, memoryview)):
            return f"{len(item)} bytes"
        return type(item).__name__

    def take(self, rows: np.ndarray) -> list[Any]:
        """Return some of the items."""
        return [self.items[row] for row in rows.tolist()]

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples; what is read for it is checked to be an image."""
        digests: list[bytes] = [_MISSING] * len(self)
        faults: list[SampleFault] = []
        paths: list[tuple[int, str]] = []
        largest, any_floats = -np.inf, False
        for row, item in enumerate(self.items):
            if isinstance(item, (str, os.PathLike)):
                path = os.fspath(item)
                # Another spelling of a path only means that the file is hashed once more.
                paths.append((row, path if os.path.isabs(path) else os.path.abspath(path)))
                continue
            try:
                digests[row] = _digest_of_item(item)
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
                continue
            if isinstance(item, np.ndarray) and item.dtype.kind == "f":
                any_floats, largest = True, max(largest, item.max(initial=-np.inf))
        _check_scale(np.dtype(float) if any_floats else np.dtype(np.uint8), largest)
        faults += self._add_files(paths, digests, files)
        return keys_from(digests, count=len(digests)), faults

    def _add_files(
        self, paths: list[tuple[int, str]], digests: list[bytes], files: FileIndex
    ) -> list[SampleFault]:
        """Fill in the digests of files; only those that the index does not know are read."""
        faults, known_rows, states = [], [], []
        for row, path in paths:
            try:
                status = os.stat(path)
            except (OSError, ValueError) as exc:
                faults.append(self.fault(row, _why_not_opened(exc)))
                continue
            known_rows.append((row, path, status))
            states.append(file_key(path, status))
        for (row, path, status), state, known in zip(
            known_rows, states, files.find(states), strict=True
        ):
            try:
                digests[row] = known or _digest_of_file(path)
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
                continue
            if known is None:
                modified_s = max(status.st_mtime, status.st_ctime)
                files.add(state, digests[row], modified_s=modified_s)
        return faults

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Decode and resize images."""
        return _conformed(self, rows, (self.items[row] for row in rows.tolist()), shape)


def _digest_of_item(item: Any) -> bytes:
    if isinstance(item, np.ndarray):
        if item.dtype.kind == "f" and not np.isfinite(item).all():
            raise UnreadableImageError("has NaN or infinite pixels")
        return digest_of_array(item)
    if isinstance(item, Image.Image):
        return digest_of_array(from_pil(item))
    data = bytes(item)
    check_header(data)
    return digest_of(data)


def _digest_of_file(path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise UnreadableImageError(_why_not_opened(exc)) from exc
    check_header(data)
    return digest_of(data)


def _why_not_opened(exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "no such file"
    if isinstance(exc, IsADirectoryError):
        return "a folder, not a file; load_image_folder(path).data lists the images in it"
    return getattr(exc, "strerror", None) or str(exc)


def _check_scale(dtype: np.dtype, largest: float) -> None:
    if dtype.kind == "f" and -np.inf < largest <= 1:
        raise InputError(
            f"X has floating-point pixels that never exceed {largest:.3g}: expected values from 0 "
            "to 255. Pass X * 255 if they were scaled to 0..1."
        )


def _take(array: Any, rows: np.ndarray) -> np.ndarray:
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first == len(rows):
        return np.asarray(array[first:last])
    return np.asarray(array[rows])


def _pixels_of(item: Any) -> np.ndarray:
    if isinstance(item, np.ndarray):
        return item
    if isinstance(item, Image.Image):
        return from_pil(item)
    if isinstance(item, (str, os.PathLike)):
        try:
            item = Path(item).read_bytes()
        except OSError as exc:
            raise UnreadableImageError(_why_not_opened(exc)) from exc
    return decode(bytes(item))


def _conformed(
    samples: Samples, rows: np.ndarray, items: Any, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
    if len(shape) != 3:
        raise InputError(f"X holds images, but the backbone takes inputs of shape {shape}")
    good, images, faults = [], [], []
    for row, item in zip(rows.tolist(), items, strict=True):
        try:
            images.append(conform(_pixels_of(item), shape))
            good.append(row)
        except UnreadableImageError as exc:
            faults.append(samples.fault(row, exc))
    # Images of both dtypes in one batch are stacked as floats, which changes no number.
    inputs = np.stack(images) if images else np.empty((0, *shape), np.uint8)
    return np.array(good, np.int64), inputs, faults
