"""``load_table``: samples, targets and groups from the columns of a file or a data frame."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sklearn.preprocessing import MultiLabelBinarizer

from featx._targets import as_labels
from featx._text import one_line
from featx._validation import InputFaults, ParameterFaults, did_you_mean
from featx.exceptions import InputError, MissingExtraError
from featx.inputs.containers import type_name, unwrapped_container
from featx.inputs.items import as_item, is_missing
from featx.inputs.labeled import LabeledSamples

_ENCODING, _ERRORS = "utf-8-sig", "surrogateescape"  # file names may be any bytes
_DELIMITERS = (",", ";", "\t")
_LABEL_SEPARATOR = ";"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_MAX_CELL_CHARS = 2**20
_N_SHOWN = 10


def load_table(
    table: Any,
    *,
    sample: str = "path",
    target: str | Sequence[str] | None = "label",
    groups: str | None = None,
    base: str | os.PathLike[str] | None = None,
) -> LabeledSamples:
    r"""Load samples, targets and groups from the columns of a table.

    No image is opened. Files are ``.csv`` (also with semicolons or tabs), ``.tsv``, JSON lines
    (``.jsonl``, ``.ndjson``) and ``.parquet``.

    Parameters
    ----------
    table : str, Path, or frame of pandas, polars or pyarrow
        Path of the file, or the table itself.
    sample : str, default="path"
        Name of the column of samples: paths, or encoded images as bytes, also in the form of
        Hugging Face (``{"bytes": ..., "path": ...}``). Encoded images in a Parquet file are read
        when they are needed, one group of rows at a time.
    target : str, sequence of str or None, default="label"
        Name of the column of targets; several names give as many outputs for each sample. None
        leaves the targets out.
    groups : str, default=None
        Name of a column whose equal values keep samples together, such as a patient.
    base : str or Path, default=None
        Folder of relative paths. By default, that of the file; for a frame, the working directory.

    Returns
    -------
    LabeledSamples
        A Bunch, which notebooks show with some of its images. ``data``: samples, an ndarray of
        shape (n_samples,) for paths; ``target``: ndarray of shape (n_samples,) or (n_samples,
        n_outputs), or None; ``target_names``: list of the classes, or of the outputs, empty for
        values; ``groups``: ndarray of shape (n_samples,), or None.

    Raises
    ------
    InputError
        The file cannot be read, has no rows, or has rows without a value in a column. The message
        lists all faults.
    ParameterError
        A parameter is of another type, or the table has no such column, or two of that name.
    MissingExtraError
        The file is a ``.parquet`` file, and pyarrow is not installed.

    See Also
    --------
    load_image_folder : Images in one folder for each class.
    FeatureExtractor : Extractor that takes the samples.

    Notes
    -----
    Text files have no types: a column of targets becomes integers if all its cells are integers as
    Python writes them, else floats if all are numbers, else text, so that ``007`` stays as it is.

    If a target is a list, or text with semicolons as in ``"cat;dog"``, a sample may have several
    labels: ``target`` has a column of 0 and 1 for each of ``target_names``, and an empty cell
    means that there is no label.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from featx import load_table
    >>> file = Path(tempfile.mkdtemp()) / "scans.csv"
    >>> _ = file.write_text("file,finding,patient\n1.png,mass,A\n2.png,none,A\n3.png,none,B\n")
    >>> scans = load_table(file, sample="file", target="finding", groups="patient")
    >>> scans
    3 images of 2 classes in 2 groups
    >>> scans.target.tolist(), [Path(path).name for path in scans.data]
    (['mass', 'none', 'none'], ['1.png', '2.png', '3.png'])
    """
    names = [] if target is None else [target] if isinstance(target, str) else target
    _check_names(sample, names, groups)
    opened = _open_table(table)
    by_param = {"sample": [sample], "target": names, "groups": [] if groups is None else [groups]}
    _check_columns(opened, by_param)
    wanted = list(dict.fromkeys(name for group in by_param.values() for name in group))
    with _errors_of_file(opened.name):
        columns = opened.read(wanted)
    if not len(columns[sample]):
        raise InputError(f"{opened.name} has no rows")
    faults = InputFaults()
    folder = opened.folder if base is None else os.fspath(base)
    data = faults.check(_samples_of_column, columns[sample], folder, opened.describe(sample))
    found = [
        faults.check(
            _target_of_column,
            columns[name],
            opened.describe(name),
            are_written=isinstance(opened, _TextFile),
        )
        for name in names
    ]
    of_samples = groups and faults.check(_checked_column, columns[groups], opened.describe(groups))
    faults.raise_any()
    values, classes = _joined_targets(found, list(names))
    return LabeledSamples(data=data, target=values, target_names=classes, groups=of_samples)


def _check_names(sample: Any, targets: Any, groups: Any) -> None:
    faults = ParameterFaults("load_table")
    are_names = isinstance(targets, Sequence) and all(isinstance(name, str) for name in targets)
    if not isinstance(sample, str):
        faults.add("sample", sample, "the name of a column.")
    if not are_names:
        faults.add("target", targets, "the name of a column, several of them, or None.")
    if not (groups is None or isinstance(groups, str)):
        faults.add("groups", groups, "the name of a column, or None.")
    faults.raise_any()


class _Table(Protocol):
    """A table of named columns; `folder` is that of its file, empty for a frame."""

    name: str
    folder: str
    columns: list[str]

    def read(self, names: Sequence[str]) -> dict[str, Any]:
        """Return some columns, each a list or an array."""
        ...

    def describe(self, column: str) -> str:
        """Return the name of the table and of one of its columns, for messages."""
        ...


class _OpenedFile:
    """A file with columns."""

    columns: list[str]

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, repr(os.fspath(path))
        self.folder = os.path.dirname(os.fspath(path))

    def describe(self, column: str) -> str:
        """Return the name of the file and of one of its columns."""
        return f"{self.name}, column {column!r}"


class _TextFile(_OpenedFile):
    """A file of comma-, semicolon- or tab-separated values, whose first line names the columns."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open(newline="", encoding=_ENCODING, errors=_ERRORS) as file:
            first = file.readline(_MAX_CELL_CHARS)
            self._delimiter = max(_DELIMITERS, key=first.count)
            file.seek(0)
            self.columns = next(csv.reader(file, delimiter=self._delimiter), [])

    def read(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return some columns as text."""
        places = [self.columns.index(name) for name in names]
        cells: list[list[str]] = [[] for _ in names]
        with self.path.open(newline="", encoding=_ENCODING, errors=_ERRORS) as file:
            rows = csv.reader(file, delimiter=self._delimiter)
            next(rows, None)
            for row in rows:
                if not row:  # an empty line
                    continue
                if len(row) > len(self.columns):
                    raise InputError(
                        f"{self.name} has {len(row)} cells on line {rows.line_num}, but "
                        f"{len(self.columns)} columns: put cells that contain "
                        f"{self._delimiter!r} in quotes"
                    )
                for column, place in zip(cells, places, strict=True):
                    column.append(row[place] if place < len(row) else "")
        return dict(zip(names, cells, strict=True))


class _JsonLines(_OpenedFile):
    """A file with a JSON object on each line; empty lines are left out."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._rows: list[dict[str, Any]] = []
        with path.open(encoding=_ENCODING) as file:
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

    def read(self, names: Sequence[str]) -> dict[str, list[Any]]:
        """Return some columns, None where a row lacks the name."""
        return {name: [row.get(name) for row in self._rows] for name in names}


class _ParquetFile(_OpenedFile):
    """A Parquet file, whose encoded images are left in it until they are needed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._parquet = _opened_parquet(path)
        self.columns = list(self._parquet.schema_arrow.names)

    def read(self, names: Sequence[str]) -> dict[str, Any]:
        """Return some columns as lists; those of bytes are read when they are indexed."""
        schema = self._parquet.schema_arrow
        heavy = [name for name in names if _holds_bytes(schema.field(name).type)]
        light = self._parquet.read([name for name in names if name not in heavy])
        columns: dict[str, Any] = {name: light[name].to_pylist() for name in light.column_names}
        return columns | {name: ParquetColumn(self.path, name) for name in heavy}


def _opened_parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as exc:
        raise MissingExtraError(
            f"{os.fspath(path)!r}: Parquet files need pyarrow: pip install 'featx[parquet]', or "
            "pass the table as .csv or .jsonl"
        ) from exc
    return ParquetFile(path)


def _holds_bytes(kind: Any) -> bool:
    """Return True for a type of pyarrow that holds encoded images, alone or beside their paths."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(_holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


class ParquetColumn(Sequence):
    """A column of a Parquet file, of which one group of rows is in memory at a time."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = Path(path).absolute(), name
        self._parquet = _opened_parquet(self._path)
        groups = (self._parquet.metadata.row_group(n) for n in range(self._parquet.num_row_groups))
        self._starts = np.cumsum([0, *(group.num_rows for group in groups)])
        self._group: int = -1
        self._values: Any = None  # of that group

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group:
            self._values = self._parquet.read_row_group(group, [self._name])[self._name]
            self._group = group
        return as_item(self._values[row - int(self._starts[group])])

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        return type(self), (self._path, self._name)


class _Frame:
    """A table in memory."""

    folder = ""

    def __init__(self, frame: Any) -> None:
        self._frame, self.name = frame, f"the {type_name(frame)}"
        names = getattr(frame, "column_names", None)
        self.columns = list(frame.columns if names is None else names)

    def read(self, names: Sequence[str]) -> dict[str, Any]:
        """Return some columns."""
        return {name: self._frame[name] for name in names}

    def describe(self, column: str) -> str:
        """Return the kind of the frame and the name of one of its columns."""
        return f"{self.name}, column {column!r}"


_FILES: dict[str, Callable[[Path], _Table]] = {
    ".csv": _TextFile,
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
    ".parquet": _ParquetFile,
    ".tsv": _TextFile,
}
TABLE_SUFFIXES = frozenset(_FILES)


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return True for the name of a table, unless a folder has it."""
    is_named_so = Path(path).suffix.lower() in TABLE_SUFFIXES
    return is_named_so and not os.path.isdir(os.path.expanduser(path))


def _open_table(table: Any) -> _Table:
    if hasattr(table, "columns") and hasattr(type(table), "__getitem__"):
        return _Frame(table)
    if not isinstance(table, str | os.PathLike):
        expected = "the path of a file, or a frame of pandas, polars or pyarrow."
        faults = ParameterFaults("load_table")
        faults.add("table", table, expected)
        faults.raise_any()
    path = Path(table).expanduser()
    kind = _FILES.get(path.suffix.lower())
    if kind is None:
        raise InputError(
            f"{os.fspath(table)!r} does not end in {', '.join(sorted(_FILES))}: expected a table"
        )
    with _errors_of_file(repr(os.fspath(path))):
        return kind(path)


@contextlib.contextmanager
def _errors_of_file(name: str) -> Iterator[None]:
    """Raise what goes wrong while a file is read as an InputError that names it."""
    try:
        yield
    except (MissingExtraError, InputError):
        raise
    except FileNotFoundError:
        raise InputError(f"{name}: no such file") from None
    except (OSError, ValueError, csv.Error, RecursionError) as exc:
        reason = getattr(exc, "strerror", None) or one_line(exc)
        raise InputError(f"{name} cannot be read: {reason}") from exc


def _check_columns(table: _Table, wanted: Mapping[str, Sequence[str]]) -> None:
    """Check that a table has the columns that each parameter names, each once."""
    faults = ParameterFaults("load_table")
    shown = ", ".join(map(one_line, table.columns[:_N_SHOWN])) or "none"
    for param, names in wanted.items():
        for name in names:
            n_found = table.columns.count(name)
            hint = did_you_mean(name, map(str, table.columns))
            if not n_found:
                faults.add(param, name, f"a column of {table.name}.{hint} Its columns: {shown}.")
            elif n_found > 1:
                faults.add(param, name, f"one column of {table.name}, which has {n_found}.")
    faults.raise_any()


def _samples_of_column(column: Any, folder: str, where: str) -> Any:
    """Return samples; relative paths are those of a folder."""
    if isinstance(column, ParquetColumn):
        return column
    items = list(map(_plain_item, _checked_column(column, where)))
    if not all(isinstance(item, str | os.PathLike) for item in items):
        return items
    return np.array([os.path.join(folder, item) for item in items])


def _plain_item(item: Any) -> Any:
    return as_item(item) if isinstance(item, Mapping) else item


def _checked_column(column: Any, where: str) -> Any:
    """Return the values of a column, and check that none is missing."""
    values = unwrapped_container(column)
    missing = [row for row, value in enumerate(values) if is_missing(value) or _is_empty(value)]
    if missing:
        more = f" and {len(missing) - _N_SHOWN} more" if len(missing) > _N_SHOWN else ""
        shown = ", ".join(map(str, missing[:_N_SHOWN]))
        raise InputError(
            f"{where}: no value in {len(missing)} of {len(values)} rows: {shown}{more} (the first "
            "row is 0)"
        )
    return _as_array(values)


def _as_array(values: Any) -> Any:
    """Return text as an array, since a list of it may also be data of another kind."""
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return np.array(values)
    return values


def _is_empty(value: Any) -> bool:
    return isinstance(value, str) and not value


def _target_of_column(
    column: Any, where: str, *, are_written: bool
) -> tuple[np.ndarray, list[Any]]:
    """Return targets, and their classes, which are empty for values.

    Values in a text file, `are_written`, are numbers if all of them look like numbers.
    """
    values = unwrapped_container(column)
    if any(map(_has_several_labels, values)):
        binarizer = MultiLabelBinarizer()
        indicators = binarizer.fit_transform(list(map(_label_set, values)))
        return indicators, list(binarizer.classes_)
    checked = _checked_column(column, where)
    found = as_labels(_parsed_numbers(checked) if are_written else checked, name=where)
    classes = [] if found.dtype.kind == "f" else np.unique(found).tolist()
    return found, classes


def _has_several_labels(value: Any) -> bool:
    if isinstance(value, str):
        return _LABEL_SEPARATOR in value
    return isinstance(value, list | tuple | set | np.ndarray)


def _label_set(value: Any) -> list[Any]:
    """Return the labels of one sample; a missing value means that it has none."""
    if isinstance(value, str):
        parts = (part.strip() for part in value.split(_LABEL_SEPARATOR))
        return [part for part in parts if part]
    return [] if is_missing(value) else list(value)


def _parsed_numbers(values: np.ndarray) -> np.ndarray:
    """Return text as integers or floats if all of it is written as Python writes these."""
    texts = values.tolist()
    if all(map(_INTEGER.fullmatch, texts)):
        return np.array(texts, np.int64)
    if all(map(_NUMBER.fullmatch, texts)):
        return np.array(texts, np.float64)
    return values


def _joined_targets(
    found: Sequence[tuple[np.ndarray, list[Any]]], names: list[str]
) -> tuple[np.ndarray | None, list[Any]]:
    """Return the targets of all columns side by side."""
    if not found:
        return None, []
    if len(found) == 1:
        return found[0]
    if any(values.ndim > 1 for values, _ in found):
        raise InputError("one of several target columns holds lists of labels: name it alone")
    return as_labels(list(zip(*(values.tolist() for values, _ in found), strict=True))), names
