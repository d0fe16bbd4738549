"""LazySamples: samples of a lazy sequence, which makes an item each time it is indexed.

A PyTorch ``Dataset`` or a column of Hugging Face's ``datasets`` opens and decodes an image when it
is indexed. So items are read in order, once per pass, by one thread at a time. Only the digest of
an item is kept and, if the network needs it, its input.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from featx._threads import n_threads_for, run_ahead
from featx.digests.hashing import digest_of
from featx.digests.key_table import KEY_DTYPE, NO_KEY, keys_from
from featx.exceptions import InputError, SampleFault, UnreadableImageError
from featx.inputs.file_index import FileIndex
from featx.inputs.items import as_item, content_of_item, is_missing, is_sample, name_of_item
from featx.inputs.kinds import IMAGE, InputForm, InputKind, kind_of
from featx.inputs.pixels import UNIT_PEAK, check_scale
from featx.inputs.reader import Reader
from featx.inputs.samples import IdentifiedBlock, ReadBlock, Samples, check_several

_GROUP_SIZE = 64  # items in a block
_NO_FORM = InputForm(())  # where no input is made
# Errors of decoders. Anything else is a fault of the sequence, not of a sample.
_READ_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class _TakenItem(NamedTuple):
    """The content of an item, or the error that was raised instead."""

    row: int
    name: str
    content: np.ndarray | bytes | UnreadableImageError


class _ReadItem(NamedTuple):
    """An item after reading: `peak` is its largest float, `inputs` is None if not needed."""

    row: int
    key: bytes
    peak: float = -np.inf
    inputs: np.ndarray | None = None
    fault: SampleFault | None = None


class LazySamples(Samples):
    """Samples of a sequence that makes its items when it is indexed.

    Items are PIL images, arrays, paths or encoded images, in any mixture. The `first` was read to
    recognize the sequence; the first pass uses it. `array_shape` is the shape of all items read so
    far; None if they are not arrays of one shape.
    """

    def __init__(self, items: Any, first: Any) -> None:
        self.items = items
        self._first = [first]
        self.array_shape = first.shape if isinstance(first, np.ndarray) else None
        self._keys = np.zeros(len(items), KEY_DTYPE)
        self._faults: list[SampleFault] = []
        self._n_known = 0
        self._peak = -np.inf  # of the floating-point pixels read so far
        self._kind: InputKind = IMAGE
        self._reading = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def read_by(self, reader: Reader | None) -> Samples:
        """Return the same sequence, read by another reader; check that it takes the first item."""
        if reader is None and self.reader is None:
            return self
        first = self._first[0] if self._first else None
        if reader and is_sample(first) and (fault := reader.why_not_taken(first)):
            raise InputError(f"X[0] is {fault}")
        other = LazySamples(self.items, first)
        other._first, other.given, other.reader = self._first, self.given, reader
        return other

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself if the backbone takes samples like the first item."""
        self._kind = kind_of(shape)
        if self.reader is not None:
            return self
        if self._kind.is_resized:
            check_several(len(self), self.array_shape)
        elif self.array_shape != shape:
            got = f"arrays of shape {self.array_shape}" if self.array_shape else "images"
            raise InputError(f"X holds {got}, but the backbone takes inputs of shape {shape}")
        return self

    def float_range(self) -> tuple[float, float] | None:
        """Return the range of the items read so far; raise if all were read and seem scaled."""
        peak = max([self._peak, *map(self._kind.peak, self._first)])
        if self._n_known == len(self):
            check_scale(peak)
        return (0.0, 255.0) if peak > UNIT_PEAK else None

    def name(self, row: int) -> str:
        """Return the index expression of a sample, without reading it."""
        return f"{type(self.items).__name__}[{row}]"

    def take(self, rows: np.ndarray) -> Sequence[Any]:
        """Return some of the samples as a lazy sequence."""
        return _Part(self.items, rows)

    def content(self, row: int) -> np.ndarray | bytes:
        """Read one item, when no other thread reads."""
        with self._reading:
            content = self._take(row).content
        if isinstance(content, UnreadableImageError):
            raise content
        if self.reader is not None:
            return self.reader.picture_of(self.reader(bytes(content)))
        return content

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples; read them unless a pass has done so."""
        if self._n_known < len(self):
            for _ in self.read(_NO_FORM, files, is_wanted=lambda _: False, n_jobs=None):
                pass
        return self._keys, list(self._faults)

    def read(
        self,
        form: InputForm,
        files: FileIndex,
        *,
        is_wanted: Callable[[bytes], bool],
        n_jobs: int | None,
    ) -> Iterator[ReadBlock]:
        """Read all samples in order, each once; a thread prefetches a few items."""
        n_threads = n_threads_for(n_jobs)
        make = partial(self._make, form=form, is_wanted=is_wanted)
        groups = (
            range(start, min(start + _GROUP_SIZE, len(self)))
            for start in range(0, len(self), _GROUP_SIZE)
        )
        read = partial(self._read, make=make, n_threads=n_threads)
        self._n_known, self._faults = 0, []
        for made in run_ahead(read, groups, n_threads=1):
            rows = slice(made[0].row, made[-1].row + 1)
            self._keys[rows] = keys_from((one.key for one in made), count=len(made))
            faults = [one.fault for one in made if one.fault]
            self._faults += faults
            self._n_known = rows.stop
            self._peak = max(self._peak, *(one.peak for one in made))
            yield ReadBlock(IdentifiedBlock(rows, self._keys[rows], faults), *_loaded_items(made))

    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Read samples again, and check that their content is unchanged."""
        make = partial(self._make, form=form, is_wanted=lambda _: True)
        made = self._read(rows.tolist(), make=make, n_threads=1)
        return *_loaded_items(made), [one.fault for one in made if one.fault]

    def _read(
        self, rows: Sequence[int], make: Callable[[_TakenItem], _ReadItem], n_threads: int
    ) -> list[_ReadItem]:
        with self._reading:  # few sequences can be read by several threads at once
            return list(run_ahead(make, map(self._take, rows), n_threads=n_threads))

    def _take(self, row: int) -> _TakenItem:
        """Read an item, and copy its content before the next one is read.

        The next item may be the same object with other pixels, or come from the same open file.
        """
        try:
            is_first = row == 0 and self._first
            item = self._first.pop() if is_first else item_at(self.items, row, len(self))
        except _READ_ERRORS as exc:
            item = exc
        name = self.name(row)
        try:
            item = _checked_item(item)
            name = name_of_item(item)
            content = self._content_of(item)
        except UnreadableImageError as exc:
            return _TakenItem(row, name, exc)
        if isinstance(item, np.ndarray):
            self.array_shape = item.shape if item.shape == self.array_shape else None
            content = item.copy() if content is item else content
        return _TakenItem(row, name, content)

    def _make(
        self, taken: _TakenItem, form: InputForm, is_wanted: Callable[[bytes], bool]
    ) -> _ReadItem:
        row, name, content = taken
        key, peak = NO_KEY, -np.inf
        try:
            if isinstance(content, UnreadableImageError):
                raise content
            key = self._digest_of(content)
            _check_item_unchanged(key, self._keys[row].ljust(len(key), NO_KEY[:1]))
            peak = self._kind.peak(content)
            inputs = self._load(content, form) if is_wanted(key) else None
        except UnreadableImageError as exc:
            return _ReadItem(row, key, peak, fault=SampleFault(row, name, str(exc)))
        return _ReadItem(row, key, peak, inputs)

    def _content_of(self, item: Any) -> np.ndarray | bytes:
        if self.reader is None:
            return self._kind.content_of(item)
        if fault := self.reader.why_not_taken(item):
            raise UnreadableImageError(fault)
        return content_of_item(item)

    def _digest_of(self, content: np.ndarray | bytes) -> bytes:
        return self._kind.digest_of(content) if self.reader is None else digest_of(content)

    def _load(self, content: np.ndarray | bytes, form: InputForm) -> np.ndarray:
        if self.reader is None:
            return self._kind.load(content, form)
        return self.reader.input_of(self.reader(bytes(content)), form)


def _loaded_items(made: Sequence[_ReadItem]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and inputs of the items that have inputs."""
    good = [(one.row, one.inputs) for one in made if one.inputs is not None]
    if not good:
        return np.empty(0, np.int64), np.empty(0, np.uint8)
    rows, inputs = zip(*good, strict=True)
    return np.array(rows, np.int64), np.stack(inputs)


def _checked_item(item: Any) -> Any:
    """Return an item as a sample; raise if it is not a sample, or the error of reading it."""
    if isinstance(item, Exception):
        raise UnreadableImageError(f"{type(item).__name__}: {item}") from item
    item = as_item(item)
    if is_missing(item):
        raise UnreadableImageError("missing value (None or NaN)")
    if not is_sample(item):
        raise UnreadableImageError(f"a {type(item).__name__}, which is not an image")
    return item


def item_at(items: Any, row: int, n_items: int) -> Any:
    """Return an item; raise :class:`InputError` if the sequence is shorter than its length."""
    try:
        return items[row]
    except IndexError as exc:
        raise InputError(
            f"X, a {type(items).__name__}, has {n_items} samples by its length, but X[{row}] "
            f"raises IndexError: {exc}"
        ) from exc


def _check_item_unchanged(key: bytes, known: bytes) -> None:
    if known not in (NO_KEY, key):
        raise UnreadableImageError(
            "has other pixels than when it was read before: a sequence must give the same item "
            "each time. Remove random transforms, and pass augment= instead"
        )


class _Part(Sequence):
    """Some items of a lazy sequence, read when indexed; pickled as a list of the items."""

    def __init__(self, items: Any, rows: np.ndarray) -> None:
        self._items, self._rows = items, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Part(self._items, self._rows[index])
        return self._items[int(self._rows[index])]

    def __reduce__(self) -> tuple[type, tuple[list[Any]]]:
        return list, (list(self),)
