"""UrlSamples: files of archives, buckets and servers, beside local files and other items.

Files whose state is known from the file index are not downloaded. If there are others, each file is
downloaded once in a pass, ahead and in threads: identified, looked up and decoded at once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from featx._threads import n_threads_for, run_ahead
from featx._urls import is_url
from featx.digests.key_table import NO_KEY, bytes_from_keys, keys_from
from featx.exceptions import InputError, SampleFault, UnreadableImageError
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import InputForm
from featx.inputs.places import N_REQUESTS, FileState, Place, Places
from featx.inputs.reader import Reader
from featx.inputs.samples import IdentifiedBlock, ReadBlock, Samples, load_rows
from featx.inputs.sequence import ItemSamples, part_of, with_part

_GROUP_SIZE = 64  # files in a block
_REQUESTS_OF_GROUP = 8  # at once, by each thread that decodes
_FLUSH_EVERY_S = 5.0
_NO_FORM = InputForm(())  # where no input is made
_NO_INPUTS = np.empty(0, np.uint8)


class _FetchedRow(NamedTuple):
    """A row and its content, or why there is none; None if it is not needed."""

    row: int
    content: np.ndarray | bytes | UnreadableImageError | None


class _ReadRow(NamedTuple):
    """A row and its input, None if it is not needed; `reason` is why it cannot be read."""

    row: int
    inputs: np.ndarray | None
    reason: str | None


class UrlSamples(ItemSamples):
    """A sequence of items of which some are URLs: see :func:`featx._urls.is_url`.

    The states of all files are asked for once. A file that has another state when it is read is a
    fault.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        super().__init__(items)
        is_file = (isinstance(item, str | os.PathLike) for item in items)
        self._files = {row: os.fspath(items[row]) for row, is_one in enumerate(is_file) if is_one}
        self._places = Places()
        self._states: dict[int, FileState] | None = None
        self._digests: dict[int, bytes] = {}  # of rows that are identified
        self._reasons: dict[int, str] = {}  # why rows cannot be read, as far as it is known
        self._asking = threading.Lock()

    def read_by(self, reader: Reader | None) -> Samples:
        """Return the same items, read by another reader; check that it can take URLs."""
        if reader is not None and reader.takes == "path":
            row = next(row for row, file in self._files.items() if is_url(file))
            raise InputError(
                f"X[{row}] is a URL, {self.name(row)!r}, and read={reader.label} takes paths: pass "
                "local copies, or a reader of bytes"
            )
        return super().read_by(reader)

    def path(self, row: int) -> str | None:
        """Return the path or URL of a file, without secrets; None for another sample."""
        return self.name(row) if row in self._files else None

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all samples; files that the index does not know are downloaded."""
        self._ask_for_states(files)
        unknown = [row for row in range(len(self)) if not self._is_identified(row)]
        with contextlib.closing(self._read_ahead(unknown, files, _NO_FORM, _nothing, None)) as made:
            for _ in made:
                pass
        self._keys = self._keys_of(range(len(self)))
        return self._keys, self.faults_before_reading()

    def start_identifying(self, files: FileIndex) -> None:
        """Return None, since :meth:`read` identifies files while others are downloaded."""

    def faults_before_reading(self) -> list[SampleFault]:
        """Return the faults that are known so far."""
        return [self.fault(row, reason) for row, reason in sorted(self._reasons.items())]

    def read(
        self,
        form: InputForm,
        files: FileIndex,
        *,
        is_wanted: Callable[[bytes], bool],
        n_jobs: int | None,
    ) -> Iterator[ReadBlock] | None:
        """Read all samples in one pass, in order, unless all files are known."""
        self._ask_for_states(files)
        if all(map(self._is_identified, range(len(self)))):
            return None
        return self._read_once(form, files, is_wanted, n_jobs)

    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Download, decode and resize images."""
        read = run_ahead(self._content_or_reason, rows.tolist(), n_threads=_REQUESTS_OF_GROUP)
        return load_rows(
            self, rows, lambda row: self._input_of(row, _content_in(next(read)), form), form
        )

    def _is_identified(self, row: int) -> bool:
        return row in self._digests or row in self._reasons

    def _keys_of(self, rows: Sequence[int]) -> np.ndarray:
        sound = (b"" if row in self._reasons else self._digests[row] for row in rows)
        return keys_from(sound, count=len(rows))

    def _read_item(self, row: int) -> np.ndarray | bytes:
        file = self._files.get(row)
        if file is None:
            return super()._read_item(row)
        return self._places.of(file).read(file, (self._states or {}).get(row))

    def _content_or_reason(self, row: int) -> np.ndarray | bytes | UnreadableImageError:
        try:
            return self._content_of(row)
        except UnreadableImageError as exc:
            return exc

    def _ask_for_states(self, files: FileIndex) -> None:
        """Ask for the states of all files, and look up their digests."""
        with self._asking:
            if self._states is not None:
                return
            by_place = self._rows_by_place()
            states: dict[int, FileState] = {}
            for place, rows in by_place.items():
                for row, state in zip(rows, place.states(self._files_of(rows)), strict=True):
                    if isinstance(state, UnreadableImageError):
                        self._reasons[row] = str(state)
                    else:
                        states[row] = state
            self._find_digests(states, files)
            for place, rows in by_place.items():
                self._find_absent(place, [row for row in rows if not self._is_identified(row)])
            self._states = states

    def _rows_by_place(self) -> dict[Place, list[int]]:
        """Return the rows of files by their places; a place that cannot be opened is a reason."""
        by_place: dict[Place, list[int]] = defaultdict(list)
        for row, file in self._files.items():
            try:
                by_place[self._places.of(file)].append(row)
            except UnreadableImageError as exc:
                self._reasons[row] = str(exc)
        return by_place

    def _find_absent(self, place: Place, rows: Sequence[int]) -> None:
        absent = place.absent(self._files_of(rows)) if rows else {}
        found = {row: absent.get(self._files[row]) for row in rows}
        self._reasons |= {row: str(reason) for row, reason in found.items() if reason}

    def _files_of(self, rows: Sequence[int]) -> list[str]:
        return [self._files[row] for row in rows]

    def _find_digests(self, states: Mapping[int, FileState], files: FileIndex) -> None:
        keys = {row: state.key for row, state in states.items() if state.key is not None}
        found = bytes_from_keys(files.find(keys_from(keys.values(), count=len(keys))))
        known = zip(keys, found, strict=True)
        for row, digest in known:
            if digest != NO_KEY:
                self._digests[row] = with_part(self.items[row], digest)

    def _read_once(
        self,
        form: InputForm,
        files: FileIndex,
        is_wanted: Callable[[bytes], bool],
        n_jobs: int | None,
    ) -> Iterator[ReadBlock]:
        rows = range(len(self))
        with contextlib.closing(self._read_ahead(rows, files, form, is_wanted, n_jobs)) as made:
            for start in rows[::_GROUP_SIZE]:
                group = list(itertools.islice(made, _GROUP_SIZE))
                some = slice(start, start + len(group))
                self._keys[some] = self._keys_of(rows[some])
                faults = [self.fault(one.row, one.reason) for one in group if one.reason]
                identified = IdentifiedBlock(some, self._keys[some], faults)
                good = {one.row: one.inputs for one in group if one.inputs is not None}
                inputs = np.stack(list(good.values())) if good else _NO_INPUTS
                yield ReadBlock(identified, np.array(list(good), np.int64), inputs)

    def _read_ahead(
        self,
        rows: Sequence[int],
        files: FileIndex,
        form: InputForm,
        is_wanted: Callable[[bytes], bool],
        n_jobs: int | None,
    ) -> Generator[_ReadRow]:
        """Yield rows in order, after downloading, identifying and, if needed, decoding them."""
        n_threads = n_threads_for(n_jobs)
        firsts = self._first_rows()
        fetch = partial(self._fetch, firsts=firsts, is_wanted=is_wanted)
        make = partial(self._make, files=files, form=form, is_wanted=is_wanted)
        last_s = time.monotonic()
        fetched = run_ahead(fetch, rows, n_threads=N_REQUESTS)
        made = run_ahead(make, fetched, n_threads=n_threads)
        with contextlib.ExitStack() as stack:
            stack.callback(files.flush_or_warn)
            stack.enter_context(contextlib.closing(fetched))
            stack.enter_context(contextlib.closing(made))
            for one in made:
                if (first := firsts.get(one.row, one.row)) != one.row:
                    self._copy_identity(first, one.row)
                    one = one._replace(reason=self._reasons.get(one.row))
                if time.monotonic() - last_s >= _FLUSH_EVERY_S:
                    files.flush_or_warn()
                    last_s = time.monotonic()
                yield one

    def _first_rows(self) -> dict[int, int]:
        """Return, for each file or part of one, the first row that has it."""
        first: dict[Any, int] = {}
        items = ((row, part_of(self.items[row]) or file) for row, file in self._files.items())
        return {row: first.setdefault(item, row) for row, item in items}

    def _copy_identity(self, row: int, repeated: int) -> None:
        if row in self._digests:
            self._digests[repeated] = self._digests[row]
        if row in self._reasons:
            self._reasons[repeated] = self._reasons[row]

    def _fetch(
        self, row: int, *, firsts: Mapping[int, int], is_wanted: Callable[[bytes], bool]
    ) -> _FetchedRow:
        """Read or download a file, unless it is known and not needed."""
        digest = self._digests.get(row)
        is_known = row in self._reasons or (digest is not None and not is_wanted(digest))
        if is_known or firsts.get(row, row) != row:
            return _FetchedRow(row, None)
        return _FetchedRow(row, self._content_or_reason(row))

    def _make(
        self,
        fetched: _FetchedRow,
        *,
        files: FileIndex,
        form: InputForm,
        is_wanted: Callable[[bytes], bool],
    ) -> _ReadRow:
        """Identify a row, and decode it if its input is needed."""
        row, content = fetched
        if content is None:
            return _ReadRow(row, None, self._reasons.get(row))
        try:
            if isinstance(content, UnreadableImageError):
                raise content
            self._identify_content(row, content, files)
        except UnreadableImageError as exc:
            self._reasons[row] = str(exc)
            return _ReadRow(row, None, str(exc))
        try:
            is_needed = is_wanted(self._digests[row])
            return _ReadRow(row, self._input_of(row, content, form) if is_needed else None, None)
        except UnreadableImageError as exc:
            return _ReadRow(row, None, str(exc))

    def _input_of(self, row: int, content: np.ndarray | bytes, form: InputForm) -> np.ndarray:
        if self.reader is None:
            return form.kind.load(content, form)
        array = self.reader(bytes(content), part_of(self.items[row]))
        return self.reader.input_of(array, form)

    def _read_array(self, row: int, reader: Reader) -> np.ndarray:
        return reader(bytes(self._content_of(row)), part_of(self.items[row]))

    def _identify_content(self, row: int, content: np.ndarray | bytes, files: FileIndex) -> None:
        """Set the digest of a row, and remember it by the state of its file."""
        digest_of_file = self._digest_of(content)
        digest = with_part(self.items[row], digest_of_file)
        known, state = self._digests.get(row), (self._states or {}).get(row)
        if state is not None and state.key is not None:
            files.add(state.key, digest_of_file, modified_s=state.changed_s)
        if known not in (None, digest):
            raise UnreadableImageError(
                "has other content than when it was hashed, though the same state: repeat the call"
            )
        self._digests[row] = digest


def _content_in(content: np.ndarray | bytes | UnreadableImageError) -> np.ndarray | bytes:
    if isinstance(content, UnreadableImageError):
        raise content
    return content


def _nothing(digest: bytes) -> bool:
    """Return False, since identifying needs no input."""
    return False
