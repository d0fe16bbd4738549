"""``load_table``: samples, targets and groups from the columns of a file or a data frame."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.preprocessing import MultiLabelBinarizer

from featx._targets import as_groups, as_labels
from featx._text import one_line
from featx._urls import joined_path
from featx._validation import InputFaults, ParameterFaults, did_you_mean
from featx.exceptions import InputError
from featx.inputs.containers import unwrapped_container
from featx.inputs.items import as_item, is_missing
from featx.inputs.labeled import LabeledSamples
from featx.inputs.places import folder_or_archive
from featx.inputs.table_files import ParquetColumn, Table, errors_of_file, open_table

_LABEL_SEPARATOR = ";"
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_MAX_EXACT = 2**53  # beyond it, floats do not hold all integers
_MAX_LABEL_CHARS = 10_000
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

    It opens no image. Files are ``.csv`` (separated by commas, semicolons or tabs), ``.tsv``, JSON
    lines (``.jsonl``, ``.ndjson``) and ``.parquet``.

    Parameters
    ----------
    table : str, Path, or frame of pandas, polars or pyarrow
        Path or URL of the file, or the table itself.
    sample : str, default="path"
        Name of the column of samples: paths, or encoded images as bytes, also in the form of
        Hugging Face (``{"bytes": ..., "path": ...}``). Encoded images in a Parquet file are read
        when they are needed, one row group at a time.
    target : str, sequence of str or None, default="label"
        Name of the column of targets, or names of several columns, one for each output. None leaves
        the targets out.
    groups : str, default=None
        Name of the column of groups, such as patients. Samples with the same value are one group.
    base : str or Path, default=None
        Folder, archive or URL from which relative paths start. By default, the folder of the file;
        for a frame, the working directory.

    Returns
    -------
    LabeledSamples
        A Bunch, which notebooks show with some of its images. ``data``: samples, an ndarray of
        shape (n_samples,), dtype object, for paths; ``target``: ndarray of shape (n_samples,) or
        (n_samples, n_outputs), or None; ``target_names``: list of the classes, or of the outputs,
        empty for one column of values; ``groups``: ndarray of shape (n_samples,), or None.

    Raises
    ------
    InputError
        The file cannot be read, has no rows, or has rows without a value in a column. The message
        lists all faults.
    ParameterError
        A parameter has the wrong type, or the table lacks the column or has two of that name.
    MissingExtraError
        The package that reads a ``.parquet`` file, or opens the URL, is not installed.

    See Also
    --------
    load_image_folder : Images in one folder for each class.
    load_webdataset : Samples in the tar files of a WebDataset.
    FeatureExtractor : Extractor that takes the samples.

    Notes
    -----
    Text files have no types. A column of targets becomes integers if all its cells are integers as
    Python writes them, floats if all are numbers, and text otherwise. So ``007`` stays text.

    If a target is a list, or text with semicolons as in ``"cat;dog"``, a sample may have several
    labels. Then ``target`` has a column of 0 and 1 for each of ``target_names``, and the sample of
    an empty cell has no label.

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
    names = target_names(target)
    check_column_names("load_table", sample, names, groups)
    opened = open_table(table)
    folder = opened.folder if base is None else folder_or_archive(base)
    return labeled_columns(opened, sample, names, groups, folder=folder)


def target_names(target: str | Sequence[str] | None) -> Sequence[str]:
    """Return the names of the columns of targets."""
    return [] if target is None else [target] if isinstance(target, str) else target


def labeled_columns(
    opened: Table, sample: str, targets: Sequence[str], groups: str | None, *, folder: str
) -> LabeledSamples:
    """Return samples, targets and groups from columns; relative paths are those of a folder."""
    by_param = {"sample": [sample], "target": targets, "groups": [] if groups is None else [groups]}
    _check_columns(opened, by_param)
    wanted = list(dict.fromkeys(name for group in by_param.values() for name in group))
    with errors_of_file(opened.name):
        columns = opened.read(wanted, lazy=sample)
    if not len(columns[sample]):
        raise InputError(f"{opened.name} has no rows")
    faults = InputFaults()
    data = faults.check(_samples_of_column, columns[sample], folder, opened.describe(sample))
    found = [
        faults.check(
            _target_of_column,
            columns[name],
            opened.describe(name),
            are_written=not opened.has_types,
        )
        for name in targets
    ]
    of_samples = groups and faults.check(_groups_of_column, columns[groups], opened, groups)
    faults.raise_any()
    values, classes = _joined_targets(found, list(targets))
    return LabeledSamples(data=data, target=values, target_names=classes, groups=of_samples)


def check_column_names(loader: str, sample: Any, targets: Any, groups: Any) -> None:
    """Raise ParameterError, which names the function, unless parameters name columns."""
    faults = ParameterFaults(loader)
    are_names = isinstance(targets, Sequence) and all(isinstance(name, str) for name in targets)
    if not isinstance(sample, str):
        faults.add("sample", sample, "the name of a column.")
    if not are_names:
        faults.add("target", targets, "the name of a column, several of them, or None.")
    if not (groups is None or isinstance(groups, str)):
        faults.add("groups", groups, "the name of a column, or None.")
    faults.raise_any()


def _check_columns(table: Table, wanted: Mapping[str, Sequence[str]]) -> None:
    """Check that a table has the columns that each parameter names, each once."""
    faults = ParameterFaults(table.loader)
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
        column.folder = folder
        if not (len(column) and isinstance(column[0], str)):
            return column
        return _as_array(list(column))
    items = [as_item(item) for item in _checked_column(column, where)]
    return _as_array(
        [
            joined_path(folder, os.fspath(item)) if isinstance(item, (str, os.PathLike)) else item
            for item in items
        ]
    )


def _groups_of_column(column: Any, table: Table, name: str) -> np.ndarray:
    values = _checked_column(column, table.describe(name))
    try:
        return as_groups(values, len(values))
    except InputError as exc:
        raise InputError(f"{table.describe(name)}: {exc}") from exc


def _checked_column(column: Any, where: str) -> Any:
    """Return the values of a column, and check that none is missing."""
    values = unwrapped_container(column)
    missing = [row for row, value in enumerate(values) if _is_blank(value)]
    if missing:
        more = f" and {len(missing) - _N_SHOWN} more" if len(missing) > _N_SHOWN else ""
        shown = ", ".join(map(str, missing[:_N_SHOWN]))
        raise InputError(
            f"{where}: no value in {len(missing)} of {len(values)} rows: {shown}{more} (the first "
            "row is 0)"
        )
    return values


def _as_array(values: list[Any]) -> Any:
    """Return a list of text as an array of objects, which share the text; others unchanged."""
    are_texts = all(isinstance(value, str) for value in values)
    return np.array(values, object) if are_texts else values


def _is_blank(value: Any) -> bool:
    return not value if isinstance(value, str) else is_missing(value)


def _target_of_column(
    column: Any, where: str, *, are_written: bool
) -> tuple[np.ndarray, list[Any]]:
    """Return targets, and their classes, which are empty for values.

    Values in a text file, `are_written`, are numbers if all of them look like numbers.
    """
    values = unwrapped_container(column)
    _check_texts(values, where)
    if any(map(_has_several_labels, values)):
        return _several_labels(values, where)
    checked = _checked_column(column, where)
    found = as_labels(_parsed_numbers(checked) if are_written else checked, name=where)
    return found, [] if found.dtype.kind == "f" else np.unique(found).tolist()


def _check_texts(values: Any, where: str) -> None:
    """Check that texts are no longer than labels are, and UTF-8."""
    for row, value in enumerate(values):
        if not isinstance(value, str):
            continue
        if len(value) > _MAX_LABEL_CHARS:
            raise InputError(
                f"{where}: row {row} has {len(value):,} characters: is a quote missing?"
            )
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise InputError(
                f"{where}: row {row} is not UTF-8 ({one_line(value, max_chars=40)}): save the "
                "table in UTF-8"
            )


def _several_labels(values: Any, where: str) -> tuple[np.ndarray, list[Any]]:
    """Return a column of 0 and 1 for each label, and the labels."""
    sets = [_label_set(value, row, where) for row, value in enumerate(values)]
    kinds = {type(label) for labels in sets for label in labels}
    if not kinds:
        raise InputError(f"{where}: no row has a label")
    if len(kinds) > 1 or not kinds <= {str, int, bool}:
        shown = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(
            f"{where}: lists of {shown}: expected lists of text, or of integers. For several "
            "values, name a column for each"
        )
    binarizer = MultiLabelBinarizer()
    return binarizer.fit_transform(sets), list(binarizer.classes_)


def _has_several_labels(value: Any) -> bool:
    if isinstance(value, str):
        return _LABEL_SEPARATOR in value
    return isinstance(value, list | tuple | set | np.ndarray)


def _label_set(value: Any, row: int, where: str) -> list[Any]:
    """Return the labels of one sample; a missing value means that it has none."""
    if isinstance(value, str):
        parts = (part.strip() for part in value.split(_LABEL_SEPARATOR))
        return [part for part in parts if part]
    if is_missing(value):
        return []
    if not isinstance(value, list | tuple | set | np.ndarray):
        raise InputError(f"{where}: row {row} has {value!r}, beside rows with lists of labels")
    labels = list(value.tolist() if isinstance(value, np.ndarray) else value)
    if any(map(is_missing, labels)):
        raise InputError(f"{where}: row {row} has a missing value among its labels")
    return labels


def _parsed_numbers(texts: Sequence[str]) -> Any:
    """Return text as integers or floats if all of it is written as Python writes these.

    Integers that floats would not hold exactly stay text beside floats, and so do all integers that
    have more than 64 bits.
    """
    if all(map(_INTEGER.fullmatch, texts)):
        integers = list(map(int, texts))
        low, high = min(integers), max(integers)
        for dtype in (np.int64, np.uint64):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return np.array(integers, dtype)
        return texts
    if not all(map(_NUMBER.fullmatch, texts)):
        return texts
    is_exact = all(abs(int(text)) <= _MAX_EXACT for text in texts if _INTEGER.fullmatch(text))
    return np.array(texts, np.float64) if is_exact else texts


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
    rows = list(zip(*(values.tolist() for values, _ in found), strict=True))
    return as_labels(rows, name=f"target ({', '.join(names)})"), names
