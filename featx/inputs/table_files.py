"""``open_table``: tables in files and frames; ParquetColumn: encoded images in a Parquet file."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TextIO

import numpy as np

from featx._text import one_line
from featx._urls import folder_of, is_url, joined_path, local_path, shown_url, suffix_of
from featx._validation import ParameterFaults
from featx.exceptions import InputError, MissingExtraError
from featx.inputs.containers import type_name
from featx.inputs.items import as_item
from featx.inputs.places import opened_file, opened_url, place_of

_ENCODING, _ERRORS = "utf-8-sig", "surrogateescape"  # file names may be any bytes
_DELIMITERS = (",", ";", "\t")
_QUOTED = re.compile('"[^"]*"')
_MAX_LINE_CHARS = 2**20


class Table(Protocol):
    """A table of named columns; `folder` is that of its file, empty for a frame.

    `loader` is the function that loads it, for messages.
    """

    loader: str
    name: str
    folder: str
    columns: list[str]
    has_types: bool  # False if all cells are text

    def read(self, names: Sequence[str], *, lazy: str) -> dict[str, Any]:
        """Return some columns, each a list or an array; images of `lazy` may be read later."""
        ...

    def describe(self, column: str) -> str:
        """Return the name of the table and of one of its columns, for messages."""
        ...


def open_table(table: Any) -> Table:
    """Open the file of a table, or a frame of pandas, polars or pyarrow."""
    if hasattr(table, "collect") and hasattr(table, "lazy"):
        raise InputError(f"the {type_name(table)} holds no rows yet: pass its .collect()")
    if hasattr(table, "columns") and hasattr(type(table), "__getitem__"):
        return _Frame(table)
    if not isinstance(table, str | os.PathLike):
        faults = ParameterFaults("load_table")
        faults.add("table", table, "the path of a file, or a frame of pandas, polars or pyarrow.")
        faults.raise_any()
    path = _path_of(table)
    kind = _FILES.get(suffix_of(path))
    if kind is None:
        endings = ", ".join(sorted(_FILES))
        raise InputError(f"{shown_url(path)!r} does not end in {endings}: expected a table")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(f"{os.fspath(table)!r} is no regular file: expected a table")
    with errors_of_file(repr(shown_url(path))):
        return kind(path)


def _path_of(table: str | os.PathLike[str]) -> str:
    """Return the URL of a table, or its path with the home directory in place of ``~``."""
    path = os.fspath(table)
    return (local_path(path) or path) if is_url(path) else os.path.expanduser(path)


def _opened_text(path: str, *, errors: str = "strict") -> TextIO:
    """Open a file of text, given by its path or URL, with line ends as they are."""
    return io.TextIOWrapper(opened_file(path), encoding=_ENCODING, errors=errors, newline="")


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return True for the name of a table, unless a folder has it."""
    place = _path_of(path)
    return suffix_of(place) in TABLE_SUFFIXES and not os.path.isdir(place)


@contextlib.contextmanager
def errors_of_file(name: str) -> Iterator[None]:
    """Raise what goes wrong while a file is read as an InputError that names it."""
    try:
        yield
    except (MissingExtraError, InputError):
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except (OSError, ValueError, EOFError, csv.Error, tarfile.TarError, RecursionError) as exc:
        reason = getattr(exc, "strerror", None) or one_line(exc)
        raise InputError(f"{name} cannot be read: {reason}") from exc


class _OpenedFile:
    """A file with columns."""

    loader = "load_table"
    columns: list[str]
    has_types = True

    def __init__(self, path: str) -> None:
        self.path, self.name = path, repr(shown_url(path))
        self.folder = folder_of(path)

    def describe(self, column: str) -> str:
        """Return the name of the file and of one of its columns."""
        return f"{self.name}, column {column!r}"


class _TextFile(_OpenedFile):
    """A file of comma-, semicolon- or tab-separated values, whose first line names the columns."""

    has_types = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        with _opened_text(path, errors=_ERRORS) as file:
            first = _QUOTED.sub("", file.readline(_MAX_LINE_CHARS))
            if "\0" in first:
                raise InputError(f"{self.name} is not UTF-8: save it as CSV in UTF-8")
            is_tsv = suffix_of(path) == ".tsv"
            self._delimiter = "\t" if is_tsv else max(_DELIMITERS, key=first.count)
            file.seek(0)
            self.columns = next(self._rows(file), [])

    def _rows(self, file: Any) -> Any:
        return csv.reader(file, delimiter=self._delimiter, strict=True)

    def read(self, names: Sequence[str], *, lazy: str) -> dict[str, list[str]]:
        """Return some columns as text."""
        with _opened_text(self.path, errors=_ERRORS) as file:
            # One after another: texts of two columns side by side are freed only together.
            return {name: self._column(file, self.columns.index(name)) for name in names}

    def _column(self, file: Any, place: int) -> list[str]:
        file.seek(0)
        rows = self._rows(file)
        cells: list[str] = []
        line = 0
        try:
            for number, row in enumerate(rows):
                line = rows.line_num
                if number and row:  # neither the names nor an empty line
                    self._check_width(row, line)
                    cells.append(row[place] if place < len(row) else "")
        except csv.Error as exc:
            reason = "a quote is not closed" if "unexpected end" in str(exc) else str(exc)
            raise InputError(f"{self.name} cannot be read after line {line}: {reason}") from exc
        return cells

    def _check_width(self, row: Sequence[str], line: int) -> None:
        if len(row) > len(self.columns):
            raise InputError(
                f"{self.name} has {len(row)} cells on line {line}, but {len(self.columns)} "
                f"columns: put cells that contain {self._delimiter!r} in quotes"
            )


class _JsonLines(_OpenedFile):
    """A file with a JSON object on each line; empty lines are left out."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._rows: list[dict[str, Any]] = []
        with _opened_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    self._rows.append(self._object_in(line, number))
        self.columns = list(dict.fromkeys(name for row in self._rows for name in row))

    def _object_in(self, line: str, number: int) -> dict[str, Any]:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise InputError(f"{self.name} has no JSON on line {number}: {exc}") from exc
        if not isinstance(found, dict):
            raise InputError(f"{self.name} has no JSON object on line {number}")
        return found

    def read(self, names: Sequence[str], *, lazy: str) -> dict[str, list[Any]]:
        """Return some columns, None where a row lacks the name."""
        return {name: [row.get(name) for row in self._rows] for name in names}


class _ParquetFile(_OpenedFile):
    """A Parquet file, whose encoded images are left in it until they are needed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._parquet = _opened_parquet(path)
        self.columns = list(self._parquet.schema_arrow.names)

    def read(self, names: Sequence[str], *, lazy: str) -> dict[str, Any]:
        """Return some columns as lists; encoded images are read when they are indexed."""
        is_lazy = _holds_bytes(self._parquet.schema_arrow.field(lazy).type)
        others = [name for name in names if not (is_lazy and name == lazy)]
        light = self._parquet.read(others)
        columns: dict[str, Any] = {name: light[name].to_pylist() for name in others}
        return {**columns, lazy: ParquetColumn(self.path, lazy)} if is_lazy else columns


def _opened_parquet(path: str) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:
        raise MissingExtraError(
            f"{shown_url(path)!r}: Parquet files need pyarrow: pip install 'featx[parquet]', or "
            "pass the table as .csv or .jsonl"
        ) from exc
    return ParquetFile(opened_url(path) if is_url(path) else path)


def _holds_bytes(kind: Any) -> bool:
    """Return True for a type of pyarrow that holds encoded images, alone or beside their paths."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


class ParquetColumn(Sequence):
    """A column of a Parquet file, of which one row group is in memory at a time.

    In another process, the file is opened again. InputError is raised if it was changed. `folder`
    is that of relative paths, which records may hold in place of bytes.
    """

    def __init__(self, path: str, name: str, folder: str = "", state: bytes | None = None) -> None:
        self._path = path if is_url(path) else os.path.abspath(path)
        self._name, self.folder = name, folder
        with errors_of_file(repr(shown_url(path))):
            self._place = place_of(self._path)
            self._state = state or self._place.state(self._path).key
            self._parquet = _opened_parquet(self._path)
            self._check_unchanged()
        groups = (self._parquet.metadata.row_group(n) for n in range(self._parquet.num_row_groups))
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])
        self._group: int = -1
        self._values: Any = None  # of that group
        self._reading = threading.Lock()  # pyarrow's reader is not for several threads

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._reading:
            if group != self._group:
                try:
                    values = self._parquet.read_row_group(group, [self._name])[self._name]
                finally:
                    self._check_unchanged()  # a change may be why it cannot be read
                self._values, self._group = values, group
            item = as_item(self._values[row - int(self._starts[group])])
        return joined_path(self.folder, item) if isinstance(item, str) else item

    def _check_unchanged(self) -> None:
        if self._place.state(self._path).key != self._state:
            raise InputError(
                f"{shown_url(self._path)!r} was changed after it was loaded: load it again"
            )

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self._path, self._name, self.folder, self._state)


class _Frame:
    """A table in memory."""

    loader = "load_table"
    folder = ""
    has_types = True

    def __init__(self, frame: Any) -> None:
        self._frame, self.name = frame, f"the {type_name(frame)}"
        names = getattr(frame, "column_names", None)
        self.columns = list(frame.columns if names is None else names)

    def read(self, names: Sequence[str], *, lazy: str) -> dict[str, Any]:
        """Return some columns."""
        return {name: self._frame[name] for name in names}

    def describe(self, column: str) -> str:
        """Return the kind of the frame and the name of one of its columns."""
        return f"{self.name}, column {column!r}"


_FILES: dict[str, Callable[[str], Table]] = {
    ".csv": _TextFile,
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
    ".parquet": _ParquetFile,
    ".tsv": _TextFile,
}
TABLE_SUFFIXES = frozenset(_FILES)
