"""Targets as NumPy arrays: ``as_labels``, ``as_values``, ``as_groups``, ``as_weights``.

scikit-learn converts pandas' nullable integers to float64, in which 64-bit ids of different classes
become equal, and NumPy converts numbers in a list with strings to strings. Here every label is kept
as it is, or an error names the rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Set, ValuesView
from decimal import Decimal
from numbers import Number
from typing import Any

import numpy as np

from featx._text import counted
from featx.exceptions import InputError

_N_SHOWN = 10
_FAMILIES = {"O": "text", "U": "text", "M": "dates", "m": "durations"}  # others are numbers
_LISTS = ("tolist", "to_list", "to_pylist")  # pandas and torch, polars, pyarrow
MAX_EXACT_INT = 2**53  # beyond it, float64 does not hold all integers
_REFUSED = {"S": "bytes", "c": "complex numbers", "V": "records"}
_FIXES = {
    "bytes": "decode them, such as with numpy.char.decode",
    "complex numbers": "Complex data not supported",  # scikit-learn's words, which its tests match
}
_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool, np.bool_),
    "int": (int, np.integer),
    "float": (float, np.floating),
    "str": (str,),
    "bytes": (bytes,),
}
_PLAIN = {bool, int, float, str, bytes, type(None)}
_NUMBERS = {bool, int, float}  # arrays of these show missing entries as NaN


def as_labels(y: Any, *, name: str = "y", noun: str = "label") -> np.ndarray:
    """Return labels as an array of booleans, integers, floats, dates or strings, all unchanged.

    They may be a list, an array, a tensor, or a column of pandas, polars, pyarrow and others.
    `noun` is the word for one label in messages.

    Raises
    ------
    InputError
        Labels are missing, of several types, or of a type that scikit-learn does not take.

    Examples
    --------
    >>> import pandas as pd
    >>> as_labels(pd.Series([2**62, 2**62 + 1], dtype="Int64"))
    array([4611686018427387904, 4611686018427387905])
    >>> as_labels(pd.Series([True, False], dtype="boolean"))
    array([ True, False])
    >>> as_labels([1, "cat"])
    Traceback (most recent call last):
        ...
    featx.exceptions.InputError: y has labels of several types: int (row 0) and str (row 1): \
    expected one type
    """
    array = _target_array(y, name)
    if array.dtype == object:
        _check_targets_complete(array, name, noun)
        array = _with_common_type(array, name, keep_objects=_holds_objects(y))
    if array.dtype.kind in _REFUSED:
        _refuse_labels(_REFUSED[array.dtype.kind], name)
    _check_targets_complete(array, name, noun)
    return array


def comparable(**labels: np.ndarray) -> list[np.ndarray]:
    """Return arrays of labels, by their names in messages, with dtypes that compare exactly.

    NumPy compares int64 with uint64, and with floats, as float64 when it sorts or joins arrays.

    Raises
    ------
    InputError
        Labels of one array are text and those of another are not, or no dtype holds them all.

    Examples
    --------
    >>> ids = np.array([2**60, 2**60 + 1])
    >>> np.unique(np.concatenate(comparable(y_true=ids, y_pred=ids.astype(np.uint64)))).tolist()
    [1152921504606846976, 1152921504606846977]
    >>> comparable(y_true=np.array(["1", "2"]), y_pred=np.array([1, 2]))
    Traceback (most recent call last):
        ...
    featx.exceptions.InputError: y_true has labels of type str, such as '1', and y_pred of type \
    int, such as 1: expected one type. Pass y_true.astype(int), for example, or \
    classes_[i] for class indices i
    """
    arrays = list(labels.values())
    filled = {name: array.ravel() for name, array in labels.items() if array.size}
    families = {name: _FAMILIES.get(flat.dtype.kind, "numbers") for name, flat in filled.items()}
    if len(set(families.values())) > 1:
        first, *others = filled
        other = next(name for name in others if families[name] != families[first])
        types = {name: _label_type_kind(type(filled[name][0])) for name in (first, other)}
        raise InputError(
            f"{first} has labels of type {types[first]}, such as {filled[first].tolist()[0]!r}, "
            f"and {other} of type {types[other]}, such as {filled[other].tolist()[0]!r}: expected "
            f"one type. Pass {first}.astype({types[other]}), for example, or classes_[i] for class "
            "indices i"
        )
    if not _lose_integers([array.dtype for array in arrays]):
        return arrays
    joined = np.concatenate([array.ravel().astype(object) for array in arrays])
    common = _with_common_type(joined, " and ".join(labels), keep_objects=False).dtype
    return [array.astype(common) for array in arrays]


def as_values(y: Any, *, name: str = "y") -> np.ndarray:
    """Return values to predict, in any container, as an array of booleans, integers or floats.

    Examples
    --------
    >>> from decimal import Decimal
    >>> as_values([Decimal("0.5"), 2])
    array([0.5, 2. ])
    """
    array = _target_array(y, name)
    if array.dtype == object:
        _check_targets_complete(array, name, "value")
        if all(issubclass(each, (Number, np.bool_)) for each in _label_types(array)):
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                array = (
                    _labels_in_inferred_dtype(array)
                    if _are_integer_labels(array)
                    else array.astype(np.float64)
                )
    if array.dtype.kind not in "biuf":
        fix = _FIXES["complex numbers"] if array.dtype.kind == "c" else "a regressor needs numbers"
        raise InputError(f"{name} has dtype {array.dtype}: {fix}")
    _check_targets_complete(array, name, "value")
    return array


def as_groups(groups: Any, n_samples: int) -> np.ndarray:
    """Return the groups of samples, (n_samples,); raise :class:`InputError` if some are missing."""
    array = as_labels(groups, name="groups", noun="group")
    if array.shape != (n_samples,):
        raise InputError(
            f"groups.shape == {array.shape}, expected {(n_samples,)}: one for each sample"
        )
    return array


def as_weights(sample_weight: Any, n_samples: int, *, name: str = "sample_weight") -> np.ndarray:
    """Return the weights of samples, shape (n_samples,), float64.

    Raises
    ------
    InputError
        Weights are negative, missing or infinite, all are zero, or there is not one per sample.

    Examples
    --------
    >>> as_weights([1, 0, 2], 3)
    array([1., 0., 2.])
    """
    given = _target_array(sample_weight, name)
    if given.shape != (n_samples,):
        raise InputError(
            f"{name}.shape == {given.shape}, expected {(n_samples,)}: one for each sample"
        )
    if given.dtype == object:
        _check_targets_complete(given, name, "weight")
    if given.dtype.kind not in "biufO":
        raise InputError(f"{name} has dtype {given.dtype}: expected numbers")
    try:
        weights = given.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InputError(f"{name}: expected numbers: {exc}") from exc
    _check_targets_complete(weights, name, "weight")
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise InputError(
            f"{name} has {counted(len(negative), 'negative weight')} "
            f"{_target_rows_text(negative)[:-1]}, such as {weights[negative[0]]}): "
            "expected no weight below 0"
        )
    if n_samples and not weights.any():
        raise InputError(f"{name}: all are zero, so that there is nothing to learn from")
    with np.errstate(over="ignore"):
        if np.isinf(weights.sum()):
            raise InputError(f"{name}: their sum is infinite. Divide them by their largest")
    return weights


def _target_array(y: Any, name: str) -> np.ndarray:
    """Return an array, of dtype object where the types of the values are yet to be found."""
    if y is None or isinstance(y, (str, bytes, Mapping, Set)):
        raise InputError(
            f"{name} is {type(y).__name__}: Expected array-like (array or non-string sequence), "
            f"got {y if y is None else type(y)}"
        )
    values = _unpacked_targets(y)
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        array = values
    else:
        array = _labels_as_objects(values, name)
    if array.ndim == 0:
        raise InputError(f"{name} has shape (): expected one entry for each sample")
    if array.ndim > 2 or array.shape[1:] == (0,):
        raise InputError(
            f"{name} has shape {array.shape}: expected (n_samples,) or (n_samples, n_outputs)"
        )
    return array


def _unpacked_targets(y: Any) -> Any:
    """Return the array or list in a container of another library, without conversions."""
    if np.ma.isMaskedArray(y):
        return y.tolist()  # None where it is masked
    if isinstance(y, np.ndarray):
        # Variable-width strings have a dtype that few libraries know.
        return y.tolist() if y.dtype.kind == "T" else np.asarray(y)
    if isinstance(y, (list, tuple)):
        # Scalars of pyarrow: NumPy would take its strings for sequences of bytes.
        are_foreign = any(hasattr(kind, "as_py") for kind in set(map(type, y)))
        return list(map(_label_scalar, y)) if are_foreign else y
    if hasattr(y, "compute"):  # Dask
        return _unpacked_targets(y.compute())
    if hasattr(y, "toarray"):  # SciPy's sparse matrices
        return y.toarray()
    if hasattr(y, "num_columns") and hasattr(y, "to_pydict"):  # a table of pyarrow
        return list(zip(*y.to_pydict().values(), strict=True))
    if hasattr(y, "columns") and (hasattr(y, "itertuples") or hasattr(y, "rows")):  # a table
        return _target_table_rows(y)
    if not isinstance(getattr(y, "dtype", None), np.dtype):
        unpack = next((getattr(y, method) for method in _LISTS if hasattr(y, method)), None)
        if unpack is not None:
            return unpack()
        if hasattr(y, "numpy"):  # TensorFlow, whose strings are UTF-8 in bytes
            values = y.numpy()
            return _decoded_labels(values) if values.dtype == object else values
    return np.asarray(y) if hasattr(y, "__array__") else _listed_targets(y)


def _listed_targets(y: Any) -> Any:
    is_sequence = isinstance(y, (Iterator, ValuesView)) or hasattr(y, "__getitem__")
    return list(y) if is_sequence else np.asarray(y)


def _target_table_rows(table: Any) -> Any:
    dtypes = list(table.dtypes)
    are_plain = all(isinstance(dtype, np.dtype) and dtype.kind != "O" for dtype in dtypes)
    if are_plain and not _lose_integers(dtypes):
        return np.asarray(table)
    if hasattr(table, "itertuples"):
        return list(table.itertuples(index=False, name=None))
    return table.rows()


def _lose_integers(dtypes: list[np.dtype]) -> bool:
    """Return True if the dtype that columns have in common does not hold all their integers."""
    are_wide = any(dtype.kind in "iu" and dtype.itemsize == 8 for dtype in dtypes)
    return are_wide and len({dtype.kind for dtype in dtypes}) > 1


def _decoded_labels(values: np.ndarray) -> np.ndarray:
    texts = [each.decode() if isinstance(each, bytes) else each for each in values.ravel()]
    return np.array(texts, dtype=object).reshape(values.shape)


def _labels_as_objects(values: Any, name: str) -> np.ndarray:
    """Return an array of objects from an array or nested sequences of equal lengths."""
    try:
        array = np.array(values, dtype=object)
    except ValueError as exc:  # NumPy's, of rows of different lengths
        raise InputError(_ragged_labels_message(name)) from exc
    if _label_types(array) <= _PLAIN:
        return array
    for row, value in enumerate(array if array.ndim == 1 else ()):
        if isinstance(value, (list, tuple, Set)) or getattr(value, "ndim", 0) != 0:
            raise InputError(_ragged_labels_message(name, row, value))
    flat = [_label_scalar(value) for value in array.ravel()]
    scalars = np.empty(len(flat), dtype=object)
    scalars[:] = flat
    return scalars.reshape(array.shape)


def _label_scalar(value: Any) -> Any:
    """Return the value of a scalar or a tensor without dimensions, None where it is masked."""
    if hasattr(value, "as_py"):  # pyarrow
        return value.as_py()
    if isinstance(value, (str, np.generic)) or np.ndim(value) != 0 or np.ma.is_masked(value):
        return None if value is np.ma.masked else value
    if not hasattr(value, "__array__"):
        return value
    plain = value.numpy() if hasattr(value, "numpy") else np.asarray(value)[()]
    return plain.decode() if isinstance(plain, bytes) else plain


def _ragged_labels_message(name: str, row: int | None = None, value: Any = None) -> str:
    shown = "" if row is None else f" (row {row}: {str(value)[:60]})"
    return (
        f"{name} has lists of different lengths, or sets, as labels{shown}: expected one label, or "
        "as many outputs, for each sample. Turn several tags into columns of 0 and 1 with "
        f"sklearn.preprocessing.MultiLabelBinarizer().fit_transform({name})"
    )


def _with_common_type(array: np.ndarray, name: str, *, keep_objects: bool) -> np.ndarray:
    """Return labels of dtype object with the dtype of their common type."""
    found = {_label_type_kind(each) for each in _label_types(array)}
    if found <= {"bool", "int"}:
        return _integer_labels(array, name)
    if found <= {"bool", "int", "float"}:
        integers = [v for v in array.ravel().tolist() if not isinstance(v, (float, np.floating))]
        if any(abs(int(v)) > MAX_EXACT_INT for v in integers):
            raise InputError(
                f"{name} has floats beside integers above 2**53, which floats do not hold exactly: "
                "pass only integers, or strings"
            )
        return _labels_in_inferred_dtype(array)
    if len(found) > 1:
        raise InputError(
            f"{name} has labels of several types: {_label_types_by_row(array)}: expected one type"
        )
    if found == {"str"}:
        # Fixed-width strings lose NULs at their end, so that two labels could become one.
        is_exact = not any(value.endswith("\0") for value in array.ravel().tolist())
        return array if keep_objects or not is_exact else _labels_in_inferred_dtype(array)
    _refuse_labels(found.pop(), name)
    return array


def _integer_labels(array: np.ndarray, name: str) -> np.ndarray:
    converted = _labels_in_inferred_dtype(array)
    if converted.dtype.kind in "biu" or not array.size:
        return converted
    values = [int(value) for value in array.ravel()]
    if min(values) < 0 or max(values) >= 2**64:
        large = max(values, key=abs)
        raise InputError(
            f"{name} has integers that no 64-bit dtype holds together, such as {large}: pass them "
            "as strings"
        )
    return np.array(values, dtype=np.uint64).reshape(array.shape)


def _label_types_by_row(array: np.ndarray) -> str:
    """Return the types of labels as text, each with the first row that has it."""
    rows: dict[str, int] = {}
    for row, values in enumerate(array.reshape(len(array), -1).tolist()):
        for value in values:
            rows.setdefault(_label_type_kind(type(value)), row)
    return " and ".join(f"{kind} (row {row})" for kind, row in rows.items())


def _label_types(array: np.ndarray) -> set[type]:
    return set(map(type, array.ravel().tolist()))


def _label_type_kind(of: type) -> str:
    return next((kind for kind, types in _KINDS.items() if issubclass(of, types)), of.__name__)


def _are_integer_labels(array: np.ndarray) -> bool:
    """Return True if all objects are integers or booleans that 64 bits hold."""
    values = array.ravel()
    are_ints = {_label_type_kind(each) for each in _label_types(array)} <= {"bool", "int"}
    return are_ints and all(-(2**63) <= int(value) < 2**63 for value in values)


def _labels_in_inferred_dtype(array: np.ndarray) -> np.ndarray:
    """Return objects as an array of the dtype that NumPy infers."""
    return np.array(array.tolist()) if array.size else array.astype(np.float64)


def _holds_objects(y: Any) -> bool:
    dtype = getattr(y, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind == "O"


def _refuse_labels(what: str, name: str) -> None:
    fix = _FIXES.get(what, "pass str(label) of each, for example")
    raise InputError(f"{name} has labels that are {what}: expected numbers or strings; {fix}")


def _check_targets_complete(array: np.ndarray, name: str, noun: str) -> None:
    """Check that no entry is missing or infinite."""
    masks = {}
    types = _label_types(array) if array.dtype.kind == "O" else _NUMBERS
    if not (types <= _NUMBERS or types == {str}):
        flat = [_is_missing_target(value) for value in array.ravel()]
        masks["missing"] = np.array(flat, dtype=bool).reshape(array.shape)
    elif array.dtype.kind == "f":
        masks = {"missing": np.isnan(array), "infinite": np.isinf(array)}
    elif array.dtype.kind in "Mm":
        masks["missing"] = np.isnat(array)
    for word, mask in masks.items():
        if mask.any():
            rows = np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1))
            n_entries = counted(int(np.count_nonzero(mask)), f"{word} {noun}")
            example = str(array[mask][0]).replace("nan", "NaN")
            raise InputError(
                f"{name} has {n_entries} {_target_rows_text(rows)}, such as {example}: leave these "
                "samples out"
            )


def _is_missing_target(value: Any) -> bool:
    # pandas.NA is equal to nothing and has no truth value; NaN and NaT are not equal to themselves.
    if value is None or type(value).__name__ == "NAType":
        return True
    if isinstance(value, (float, np.floating, Decimal, np.datetime64, np.timedelta64)):
        return bool(value != value)
    return type(value).__name__ == "NaTType"


def _target_rows_text(rows: np.ndarray) -> str:
    more = ", ..." if len(rows) > _N_SHOWN else ""
    return f"(rows [{', '.join(map(str, rows[:_N_SHOWN].tolist()))}{more}])"
