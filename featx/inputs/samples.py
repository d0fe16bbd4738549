"""Samples in order, with identity and pixels.

There are three kinds: images in one array (in memory, memory-mapped or HDF5; read in blocks, never
whole), numbers that are no pixels in one array, and items of a sequence (``items.py``).

Identity is a hash of content, never of a path. Pixel values mean 0..255 in every dtype; a sample
that was hashed was also checked as far as that is cheap, so that most faults are known before the
backbone runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np

from featx._threads import Prefetcher, run_ahead
from featx.digests.hashing import digests_of_rows
from featx.digests.key_table import KEY_DTYPE, NO_KEY, keys_from
from featx.exceptions import BadSampleError, InputError, SampleFault, UnreadableImageError
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import NOT_FINITE, as_values, kind_of
from featx.inputs.pixels import check_range, float_range


class Identified(NamedTuple):
    """Some of the samples, identified.

    Attributes
    ----------
    rows : slice
    keys : ndarray of shape (m,), dtype S16
    faults : list of SampleFault
    """

    rows: slice
    keys: np.ndarray
    faults: list[SampleFault]


class Identities:
    """What is known of samples so far.

    Parameters
    ----------
    n_samples : int

    Attributes
    ----------
    keys : ndarray of shape (n_samples,), dtype S16
        All zero where there is a fault, and where nothing is known yet.
    faults : list of SampleFault
    n_known : int
        Samples from the first on that are identified.

    Examples
    --------
    >>> identities = Identities(n_samples=3)
    >>> identities.add(Identified(slice(0, 2), np.array([b"a" * 16, b"b" * 16]), []))
    >>> identities.n_known, identities.keys[1].decode()
    (2, 'bbbbbbbbbbbbbbbb')
    """

    def __init__(self, n_samples: int) -> None:
        self.keys = np.zeros(n_samples, KEY_DTYPE)
        self.faults: list[SampleFault] = []
        self.n_known = 0

    def add(self, block: Identified) -> None:
        """Take the next samples."""
        self.keys[block.rows] = block.keys
        self.keys[[fault.position for fault in block.faults]] = NO_KEY
        self.faults += block.faults
        self.n_known = block.rows.stop


_MAX_THREADS = 4  # that identify; more wait for the interpreter's lock (16 cores, 2026-11)
_BLOCK_BYTES = 16 * 2**20  # which a thread identifies
_DTYPES = (np.uint8, np.float32)  # which the network takes as they are
_ALL_PIXELS = (np.bool_, np.uint8)  # of which any value is a pixel

_Result = TypeVar("_Result")


class ReadBlock(NamedTuple):
    """Some of the samples, identified and loaded in one pass.

    Attributes
    ----------
    identified : Identified
    loaded : ndarray of shape (k,), int64
        Rows whose inputs were wanted and could be made.
    inputs : ndarray of shape (k, ...), uint8 or float32
        Inputs of these rows.
    """

    identified: Identified
    loaded: np.ndarray
    inputs: np.ndarray


class Samples(ABC):
    """Samples in the order that they were passed.

    Attributes
    ----------
    array_shape : tuple of int or None
        Shape that all samples share, without their number; None for files and mixed sequences.
    given : object
        The `X` from which they were made, None if there was none.
    """

    array_shape: tuple[int, ...] | None = None
    given: Any = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return these samples as a backbone takes them whose inputs have this shape.

        Raises
        ------
        InputError
            They are nothing that it could take.
        """

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of floating-point pixels: see :func:`featx.inputs.pixels.float_range`.

        Raises
        ------
        InputError
            They seem to be scaled to 0..1.
        """
        return None

    def check_values(self) -> None:  # noqa: B027
        """Check that numbers that are no pixels are finite; of others, there is nothing to check.

        Raises
        ------
        BadSampleError
            Some are not; all of them are listed.
        """

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

    def start_identifying(self, files: FileIndex) -> Prefetcher[Identified] | None:
        """Identify samples in threads, block by block, for a pass that does not wait for all.

        Parameters
        ----------
        files : FileIndex
            As for :meth:`keys`.

        Returns
        -------
        Prefetcher or None
            None where :meth:`keys` takes no time, or will find something wrong.
        """
        return None

    def read(
        self, shape: tuple[int, ...], *, is_wanted: Callable[[bytes], bool], n_jobs: int | None
    ) -> Iterator[ReadBlock] | None:
        """Identify and load samples in one pass, if each is to be read only once.

        Parameters
        ----------
        shape : tuple of int
            Shape of one input of the backbone.
        is_wanted : callable
            Function that returns True for the key of a sample whose input is needed; called in
            threads.
        n_jobs : int or None
            Threads that decode and resize what was read; None is one per core.

        Returns
        -------
        iterator of ReadBlock, or None
            All samples in order; None where :meth:`keys` and :meth:`batch` do this in two passes.
        """
        return None

    def is_ready(self, shape: tuple[int, ...]) -> bool:
        """Tell whether loading consecutive samples only slices an array in memory.

        Parameters
        ----------
        shape : tuple of int
            Of one input of the backbone.
        """
        return False

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

    array_shape: tuple[int, ...]

    def __init__(self, array: Any) -> None:
        self.array = array
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
        """Say the shape and dtype of an image."""
        return f"array {self.array_shape} {self.array.dtype}"

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of the array."""
        return _take(self.array, rows)

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples in threads; numbers are checked on the way."""
        identities = Identities(len(self))
        for block in self._each_block(self._identify):
            identities.add(block)
        return identities.keys, identities.faults

    def start_identifying(self, files: FileIndex) -> Prefetcher[Identified] | None:
        """Identify rows in threads, if every value of their dtype is a valid pixel."""
        blocks = list(self._blocks())
        if self.array.dtype not in _ALL_PIXELS or len(blocks) < 2:
            return None
        return Prefetcher(self._identify, blocks, n_threads=_n_threads())

    def is_ready(self, shape: tuple[int, ...]) -> bool:
        """Tell whether this is an array of the right shape and dtype."""
        in_memory = isinstance(self.array, np.ndarray) and not isinstance(self.array, np.memmap)
        return in_memory and self.array_shape == shape and self.array.dtype in _DTYPES

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load images; those that have the right shape are only sliced."""
        images = _take(self.array, rows)
        if images.shape[1:] == shape and images.dtype in _DTYPES:
            return rows, images, []
        read = dict(zip(rows.tolist(), images, strict=True)).__getitem__
        return load_rows(self, rows, read, shape)

    def _each_block(self, function: Callable[[slice], _Result]) -> Iterable[_Result]:
        """Call a function with the rows of one block after another, in threads."""
        return run_ahead(function, self._blocks(), n_threads=_n_threads())

    def _blocks(self) -> Iterator[slice]:
        row_bytes = max(1, int(np.prod(self.array.shape[1:])) * self.array.dtype.itemsize)
        n_rows = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, len(self), n_rows):
            yield slice(start, min(start + n_rows, len(self)))

    def _identify(self, rows: slice) -> Identified:
        images = np.asarray(self.array[rows])
        faults = []
        checked = () if images.dtype in _ALL_PIXELS else images
        for row, image in enumerate(checked, rows.start):
            try:
                check_range(image)
            except UnreadableImageError as exc:
                faults.append(self.fault(row, exc))
        return Identified(rows, _keys_of(images), faults)


class ValueSamples(ArraySamples):
    """Rows of an array whose numbers are no pixels: vectors ``(n, p)``, signals ``(n, t, c)``."""

    def float_range(self) -> None:
        """Return None, since the numbers are not pixels."""

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself, if its rows have that very shape."""
        if self.array_shape == shape:
            return self
        got = (
            f"X has {self.array_shape[0]} features"
            if len(self.array_shape) == 1
            else f"X has samples of shape {self.array_shape}"
        )
        raise InputError(
            f"{got}, but the backbone takes inputs of shape {shape}. Images are passed as "
            "(n, h, w) or (n, h, w, c) arrays or as paths."
        )

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load rows as float32."""
        return rows, as_values(_take(self.array, rows)), []

    def is_ready(self, shape: tuple[int, ...]) -> bool:
        """Tell that rows are converted."""
        return False

    def check_values(self) -> None:
        """Check that all numbers are finite."""
        blocks = self._each_block(lambda rows: self._faults_of(np.asarray(self.array[rows]), rows))
        faults = [fault for found in blocks for fault in found]
        if faults:
            raise BadSampleError(faults, len(self))

    def _identify(self, rows: slice) -> Identified:
        block = np.asarray(self.array[rows])
        return Identified(rows, _keys_of(block), self._faults_of(block, rows))

    def _faults_of(self, block: np.ndarray, rows: slice) -> list[SampleFault]:
        finite = np.isfinite(as_values(block)).reshape(len(block), -1).all(axis=1)
        bad = (rows.start + np.flatnonzero(~finite)).tolist()
        return [self.fault(row, NOT_FINITE) for row in bad]


def check_several(n_samples: int, shape: tuple[int, ...] | None) -> None:
    """Check that samples of a shape are images, and not the rows of a single one.

    Raises
    ------
    InputError
        They are as wide as an image has channels.
    """
    if shape is not None and len(shape) == 2 and shape[1] in (1, 3, 4):
        raise InputError(
            f"X has shape {(n_samples, *shape)}, which looks like one image in colour where "
            "several are expected: pass X[np.newaxis], or [X]"
        )


def _n_threads() -> int:
    return min(_MAX_THREADS, joblib.cpu_count())


def _keys_of(block: np.ndarray) -> np.ndarray:
    return keys_from(digests_of_rows(block), count=len(block))


def _take(array: Any, rows: np.ndarray) -> np.ndarray:
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first == len(rows):
        return np.asarray(array[first:last])
    return np.asarray(array[rows])


def load_rows(
    samples: Samples,
    rows: np.ndarray,
    read: Callable[[int], np.ndarray | bytes],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
    """Make inputs of what `read` returns for each row: see :meth:`Samples.batch`."""
    kind = kind_of(shape)
    good, inputs, faults = [], [], []
    for row in rows.tolist():
        try:
            inputs.append(kind.load(read(row), shape))
            good.append(row)
        except UnreadableImageError as exc:
            faults.append(samples.fault(row, exc))
    # Images of both dtypes in one batch are stacked as floats, which changes no number.
    stacked = np.stack(inputs) if inputs else np.empty((0, *shape), np.uint8)
    return np.array(good, np.int64), stacked, faults
