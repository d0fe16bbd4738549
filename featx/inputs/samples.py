"""Samples (ArraySamples, ValueSamples): samples in order, their keys, and their inputs.

Here are the base class :class:`Samples` and samples in one array (in memory, memory-mapped or HDF5;
read in blocks). Items of sequences are in ``sequence.py`` and ``lazy.py``.

The key of a sample is a digest of its content, never of a path. The checks that are cheap are done
when a sample is hashed, so that most faults are known before the backbone runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import joblib
import numpy as np

from featx._threads import Prefetcher, run_ahead
from featx.digests.hashing import digests_of_rows
from featx.digests.key_table import KEY_DTYPE, NO_KEY, keys_from
from featx.exceptions import BadSampleError, InputError, SampleFault, UnreadableImageError
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import NOT_FINITE, InputForm, as_float32_values, kind_of
from featx.inputs.pixels import check_range, float_range

if TYPE_CHECKING:
    from featx.inputs.reader import Reader

_MAX_THREADS = 4  # more of them wait for the interpreter's lock (16 cores, 2026-11)
_BLOCK_BYTES = 16 * 2**20
_INPUT_DTYPES = (np.uint8, np.float32)  # dtypes that the network takes without conversion
_ALL_PIXELS = (np.bool_, np.uint8)  # dtypes in which every value is a valid pixel

_Result = TypeVar("_Result")


class IdentifiedBlock(NamedTuple):
    """The keys, (m,) S16, and the faults of some consecutive samples."""

    rows: slice
    keys: np.ndarray
    faults: list[SampleFault]


class Identities:
    """The keys and faults of the first `n_known` samples, which were identified so far.

    Keys, (n_samples,) S16, are all zero for samples with a fault or not identified yet.

    Examples
    --------
    >>> identities = Identities(n_samples=3)
    >>> identities.add(IdentifiedBlock(slice(0, 2), np.array([b"a" * 16, b"b" * 16]), []))
    >>> identities.n_known, identities.keys[1].decode()
    (2, 'bbbbbbbbbbbbbbbb')
    """

    def __init__(self, n_samples: int) -> None:
        self.keys = np.zeros(n_samples, KEY_DTYPE)
        self.faults: list[SampleFault] = []
        self.n_known = 0

    def add(self, block: IdentifiedBlock) -> None:
        """Add the next samples."""
        self.keys[block.rows] = block.keys
        self.keys[[fault.position for fault in block.faults]] = NO_KEY
        self.faults += block.faults
        self.n_known = block.rows.stop


class ReadBlock(NamedTuple):
    """Some consecutive samples, identified and loaded in one pass.

    `loaded`, int64, are the wanted rows that could be read; `inputs`, uint8 or float32, are theirs.
    """

    identified: IdentifiedBlock
    loaded: np.ndarray
    inputs: np.ndarray


class Samples(ABC):
    """Samples in the order that they were passed.

    `array_shape` is the shape of each sample; None for files, and for samples of several shapes.
    `given` is `X` as the caller passed it; None if it was not passed. The `reader` turns files and
    encoded content into arrays; None is featx' decoder of images.
    """

    array_shape: tuple[int, ...] | None = None
    given: Any = None
    reader: Reader | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return these samples for a backbone whose inputs have this shape.

        InputError is raised if the backbone does not take such samples.
        """

    def read_by(self, reader: Reader | None) -> Samples:
        """Return these samples as a reader turns their files into arrays; None is featx' decoder.

        InputError is raised if they are not files or encoded content.
        """
        if reader is None:
            return self
        raise InputError(
            f"X holds arrays of shape {self.array_shape}, and read={reader.label} reads files: "
            "pass paths or bytes, or read=None"
        )

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of floating-point pixels: see :func:`featx.inputs.pixels.float_range`.

        For a lazy sequence, it is the range of the samples read so far.
        """
        return None

    def check_finite(self) -> None:  # noqa: B027
        """Raise :class:`BadSampleError` if vectors or signals are not finite."""

    @abstractmethod
    def name(self, row: int) -> str:
        """Return the path of a sample, or the kind of object that it is."""

    def path(self, row: int) -> str | None:
        """Return the path of a file; None for another sample."""
        return None

    @abstractmethod
    def take(self, rows: np.ndarray) -> Any:
        """Return the samples in increasing rows, as a caller would pass them as `X`."""

    @abstractmethod
    def content(self, row: int) -> np.ndarray | bytes:
        """Return the pixels or numbers of a sample, or the bytes of a file or an encoded image.

        Pictures are made of it. Where there is a reader, it is what the reader returns, in a range
        that can be shown. Several threads may call it. UnreadableImageError is raised for what
        cannot be read.
        """

    @abstractmethod
    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples; `files` holds the digests of files that were hashed before.

        Return keys, (n_samples,) S16, all zero for samples with a fault, and the faults that are
        found without decoding.
        """

    def start_identifying(self, files: FileIndex) -> Prefetcher[IdentifiedBlock] | None:
        """Identify samples block by block in threads, so that a pass need not wait for all.

        Return None where :meth:`keys` takes no time, or is sure to find a fault.
        """
        return None

    def faults_before_reading(self) -> list[SampleFault]:
        """Return the faults that are known before samples are read."""
        return []

    def read(
        self,
        form: InputForm,
        files: FileIndex,
        *,
        is_wanted: Callable[[bytes], bool],
        n_jobs: int | None,
    ) -> Iterator[ReadBlock] | None:
        """Identify and load all samples in one pass, in order, each read only once.

        Return None for samples that :meth:`keys` and :meth:`batch` read in two passes. `is_wanted`
        returns True for the key of a sample whose input, of this form, is needed; it is called in
        threads. `n_jobs` threads decode and resize; None is one per core.
        """
        return None

    def is_ready(self, shape: tuple[int, ...]) -> bool:
        """Return True if loading consecutive samples only slices an array in memory."""
        return False

    @abstractmethod
    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load samples in increasing rows as inputs of the backbone, of this form.

        Return the rows that could be read, their inputs, (k, *form.shape) uint8 or float32, and the
        faults of the other rows.
        """

    def fault(self, row: int, reason: object) -> SampleFault:
        """Return a fault of a sample."""
        return SampleFault(int(row), self.name(row), str(reason))


def identify(samples: Samples, files: FileIndex) -> np.ndarray:
    """Return the keys of samples, (n_samples,) S16.

    If samples are missing or unreadable, BadSampleError is raised, which lists all of them.
    """
    keys, faults = samples.keys(files)
    if faults:
        raise BadSampleError(faults, len(samples))
    return keys


class ArraySamples(Samples):
    """Rows of an array, memmap or h5py dataset of images, ``(n, h, w)`` or ``(n, h, w, c)``.

    `block_bytes` are read and identified at a time by one thread.
    """

    array_shape: tuple[int, ...]

    def __init__(self, array: Any, *, block_bytes: int = _BLOCK_BYTES) -> None:
        self.array = array
        self._block_bytes = block_bytes
        self.array_shape = tuple(array.shape[1:])

    def __len__(self) -> int:
        return int(self.array.shape[0])

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself for images, :class:`ValueSamples` for other inputs of the same shape."""
        if not kind_of(shape).is_resized:
            return ValueSamples(self.array).for_inputs(shape)
        check_several(len(self), self.array_shape)
        return self

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of floating-point pixels; the first block usually suffices."""
        if self.array.dtype.kind != "f":
            return None
        return float_range(np.asarray(self.array[rows]) for rows in self._blocks())

    def name(self, row: int) -> str:
        """Return the shape and dtype of an image."""
        return f"array {self.array_shape} {self.array.dtype}"

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of the array."""
        return _rows_of_array(self.array, rows)

    def content(self, row: int) -> np.ndarray:
        """Return one row of the array."""
        return np.asarray(self.array[row])

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify and check all samples in threads."""
        identities = Identities(len(self))
        for block in self._each_block(self._identify):
            identities.add(block)
        return identities.keys, identities.faults

    def start_identifying(self, files: FileIndex) -> Prefetcher[IdentifiedBlock] | None:
        """Identify rows in threads, if every value of their dtype is a valid pixel."""
        blocks = list(self._blocks())
        if self.array.dtype not in _ALL_PIXELS or len(blocks) < 2:
            return None
        return Prefetcher(self._identify, blocks, n_threads=_n_threads())

    def is_ready(self, shape: tuple[int, ...]) -> bool:
        """Return True for an array in memory of the right shape and dtype."""
        in_memory = isinstance(self.array, np.ndarray) and not isinstance(self.array, np.memmap)
        return in_memory and self.array_shape == shape and self.array.dtype in _INPUT_DTYPES

    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load images; slice the array if it has the right shape and dtype."""
        images = _rows_of_array(self.array, rows)
        if images.shape[1:] == form.shape and images.dtype in _INPUT_DTYPES:
            return rows, images, []
        by_row = dict(zip(rows.tolist(), images, strict=True))
        return load_rows(self, rows, lambda row: form.kind.load(by_row[row], form), form)

    def _each_block(self, function: Callable[[slice], _Result]) -> Iterable[_Result]:
        """Call a function with the rows of one block after another, in threads."""
        return run_ahead(function, self._blocks(), n_threads=_n_threads())

    def _blocks(self) -> Iterator[slice]:
        row_bytes = max(1, int(np.prod(self.array.shape[1:])) * self.array.dtype.itemsize)
        n_rows = max(1, self._block_bytes // row_bytes)
        for start in range(0, len(self), n_rows):
            yield slice(start, min(start + n_rows, len(self)))

    def _identify(self, rows: slice) -> IdentifiedBlock:
        images = np.asarray(self.array[rows])
        faults = []
        checked = () if images.dtype in _ALL_PIXELS else images
        for row, image in enumerate(checked, rows.start):
            try:
                check_range(image)
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
        return IdentifiedBlock(rows, _keys_of_rows(images), faults)


class ValueSamples(ArraySamples):
    """Rows of an array of numbers that are not pixels: vectors (n, p) or signals (n, t, c)."""

    def float_range(self) -> None:
        """Return None, since the numbers are not pixels."""

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself if its rows have this shape."""
        if self.array_shape == shape:
            return self
        got = f"samples of shape {self.array_shape}"
        if len(self.array_shape) == 1:
            got = f"{self.array_shape[0]} features"
        raise InputError(
            f"X has {got}, but the backbone takes inputs of shape {shape}. Images are passed as "
            "(n, h, w) or (n, h, w, c) arrays or as paths."
        )

    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load rows as float32, except for texts that have no embedding."""
        values = as_float32_values(_rows_of_array(self.array, rows))
        reasons = form.faults_of_texts(values)
        if not reasons:
            return rows, values, []
        faults = [self.fault(int(rows[at]), reason) for at, reason in reasons.items()]
        bad = list(reasons)
        return np.delete(rows, bad), np.delete(values, bad, axis=0), faults

    def is_ready(self, shape: tuple[int, ...]) -> bool:
        """Return False, since rows are converted."""
        return False

    def check_finite(self) -> None:
        """Check that all numbers are finite."""
        blocks = self._each_block(lambda rows: self._faults_of(np.asarray(self.array[rows]), rows))
        faults = [fault for found in blocks for fault in found]
        if faults:
            raise BadSampleError(faults, len(self))

    def _identify(self, rows: slice) -> IdentifiedBlock:
        block = np.asarray(self.array[rows])
        return IdentifiedBlock(rows, _keys_of_rows(block), self._faults_of(block, rows))

    def _faults_of(self, block: np.ndarray, rows: slice) -> list[SampleFault]:
        finite = np.isfinite(as_float32_values(block)).reshape(len(block), -1).all(axis=1)
        bad = (rows.start + np.flatnonzero(~finite)).tolist()
        return [self.fault(row, NOT_FINITE) for row in bad]


def check_several(n_samples: int, shape: tuple[int, ...] | None) -> None:
    """Raise :class:`InputError` if `X` looks like one image in color instead of several images."""
    if shape is not None and len(shape) == 2 and shape[1] in (1, 3, 4):
        raise InputError(
            f"X has shape {(n_samples, *shape)}, which looks like one image in color where "
            "several are expected: pass X[np.newaxis], or [X]"
        )


def _n_threads() -> int:
    return min(_MAX_THREADS, joblib.cpu_count())


def _keys_of_rows(block: np.ndarray) -> np.ndarray:
    return keys_from(digests_of_rows(block), count=len(block))


def _rows_of_array(array: Any, rows: np.ndarray) -> np.ndarray:
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first == len(rows):
        return np.asarray(array[first:last])
    return np.asarray(array[rows])


def load_rows(
    samples: Samples,
    rows: np.ndarray,
    load: Callable[[int], np.ndarray],
    form: InputForm,
) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
    """Stack the inputs that `load` returns for each row: see :meth:`Samples.batch`."""
    good, inputs, faults = [], [], []
    for row in rows.tolist():
        try:
            inputs.append(load(row))
            good.append(row)
        except UnreadableImageError as exc:
            faults.append(samples.fault(row, exc))
    # uint8 and float32 images in one batch are stacked as float32, which changes no value.
    stacked = np.stack(inputs) if inputs else np.empty((0, *form.shape), np.uint8)
    return np.array(good, np.int64), stacked, faults
