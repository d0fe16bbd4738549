"""``as_numpy``: arrays, columns and frames of other libraries as NumPy arrays or lists.

They are recognized by their methods, so that none of these libraries is imported.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from featx.exceptions import InputError

_EXPECTED_SEQUENCE = "expected samples of a known number and in a fixed order"


def as_numpy(array: Any) -> np.ndarray:
    """Return an array or tensor of another library as a numpy array, without a copy if possible.

    InputError is raised if it cannot be converted.
    """
    if hasattr(array, "detach") and hasattr(array, "cpu"):  # torch
        array = array.detach().cpu()
        array = array.float() if str(array.dtype) == "torch.bfloat16" else array
    try:
        converted = np.asarray(array)
    except (TypeError, ValueError, RuntimeError, AttributeError, BufferError) as exc:
        reason = str(exc).rstrip(".")
        raise InputError(
            f"a {type_name(array)} cannot be converted to a numpy array: {reason}. Pass a numpy "
            "array"
        ) from exc
    if converted.dtype.kind == "O" and hasattr(array, "dtype") and hasattr(array, "numpy"):
        return _strings_of_tensor(converted, array)
    if converted.dtype.kind == "V" and converted.dtype.names is None:  # bfloat16 and the like
        with contextlib.suppress(TypeError, ValueError):
            return converted.astype(np.float32)
    return converted


def _strings_of_tensor(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Return the strings of a TensorFlow tensor, as text or as bytes.

    TensorFlow keeps text as bytes. The strings are taken for paths if all of them decode to text
    without zero bytes, which no encoded image does.
    """
    if not all(isinstance(value, bytes) for value in values.flat):
        raise InputError(
            f"a {type_name(tensor)} cannot be converted to a numpy array: its rows differ in "
            "length, or it is sparse. Pass a numpy array"
        )
    try:
        texts = [value.decode() for value in values.flat]
    except UnicodeDecodeError:
        return values
    if any("\0" in text for text in texts):
        return values
    return np.array(texts, object).reshape(values.shape)


def type_name(value: Any) -> str:
    """Return the name of a value's library, unless it is Python's, and of its type.

    Examples
    --------
    >>> type_name(np.ma.masked_array([1]))
    'numpy MaskedArray'
    """
    library = type(value).__module__.partition(".")[0]
    return type(value).__name__ if library == "builtins" else f"{library} {type(value).__name__}"


def is_numeric(array: Any) -> bool:
    """Return True for an array of real numbers, or an object that is sliced like one."""
    dtype = getattr(array, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


def unwrapped_container(X: Any) -> Any:
    """Return the contents of a container of another library, and anything else unchanged.

    Contents are an array, a list, or an object with numpy's ``dtype``, ``shape`` and slices; those
    of a frame are its only column, or the matrix of its numbers. InputError is raised if `X` has
    several columns, masked values, named fields or a dtype that cannot be used.
    """
    if hasattr(X, "__dask_graph__"):
        is_masked = isinstance(getattr(X, "_meta", None), np.ma.MaskedArray)
        if is_masked or not (is_numeric(X) and X.shape[0] == X.shape[0]):
            X = X.compute()
    if hasattr(X, "num_columns") and hasattr(X, "column"):  # a table of pyarrow
        X = _only_column(X, X.column_names, X.column)
    elif hasattr(X, "iloc") and hasattr(X, "columns"):
        X = _only_column(X, list(X.columns), lambda number: X.iloc[:, number])
    elif hasattr(X, "to_series") and hasattr(X, "columns"):  # a frame of polars
        X = _only_column(X, list(X.columns), lambda number: X.to_series(number))
    if hasattr(X, "combine_chunks") or hasattr(X, "to_pylist"):
        X = _values_of_arrow(X)
    elif str(getattr(X, "dtype", "")).startswith(("List(", "Struct(")):  # polars
        X = X.to_list()
    elif hasattr(X, "to_numpy") and not (is_numeric(X) and len(X.shape) > 2):
        X = _numbers_with_nan(X) if _has_numbers(X) else X.to_numpy()
    elif hasattr(X, "asstr") and X.dtype.kind in "OS":
        X = _strings_of_hdf5(X)
    elif not _is_like_numpy(X) and (isinstance(X, memoryview) or _is_array(X)):
        X = as_numpy(X)
    return _unmasked_array(X) if hasattr(X, "dtype") and hasattr(X, "shape") else X


def check_is_sequence(X: Any) -> None:
    """Raise :class:`InputError` for streams, tables on a cluster, sets and open files."""
    name = type_name(X)
    if hasattr(X, "toPandas"):
        raise InputError(
            f"X is a {name}, whose rows are on a cluster: expected samples in this process. Pass a "
            "column of paths, as in X.select('path').toPandas()['path']"
        )
    if hasattr(X, "element_spec"):
        raise InputError(
            f"X is a {name} of TensorFlow, a stream: {_EXPECTED_SEQUENCE}. Pass the paths or "
            "arrays it was made from, or, if it gives (x, y) batches, "
            "np.concatenate([x for x, y in X])"
        )
    if hasattr(X, "dataset") and hasattr(X, "batch_size"):
        raise InputError(
            f"X is a {name}, which gives batches: {_EXPECTED_SEQUENCE}. Pass X.dataset, if its "
            "items are images; featx makes batches itself"
        )
    if hasattr(X, "collect") and hasattr(X, "lazy"):
        raise InputError(f"X is a {name}, which holds no rows yet: pass X.collect()")
    if isinstance(X, (set, frozenset)):
        raise InputError(f"X is a {name}, which has no order: pass a list, as in sorted(X)")
    if hasattr(X, "readline"):
        raise InputError(f"X is a {name}, an open file: pass [X.read()] for the image in it")
    if hasattr(X, "__next__") or _is_array(X):
        return
    is_stream = hasattr(X, "__iter__") or hasattr(X, "__getitem__")
    if is_stream and not _has_length(X):
        raise InputError(
            f"X is a {name}, a stream without length: {_EXPECTED_SEQUENCE}. Pass list(X)"
        )


def _has_length(X: Any) -> bool:
    try:
        len(X)
    except (TypeError, NotImplementedError):
        return False
    return True


def _only_column(frame: Any, names: list[Any], column: Any) -> Any:
    """Return the only column of a frame, or the matrix of a frame of numbers."""
    columns = [column(number) for number in range(len(names))]
    are_numbers = [_has_numbers(one) for one in columns]
    if len(columns) == 1 and not are_numbers[0]:
        return columns[0]
    if not all(are_numbers):
        matrix = frame.to_numpy() if hasattr(frame, "to_numpy") else None
        if matrix is not None and matrix.dtype.kind == "O" and _are_numbers(matrix):
            return matrix
        raise InputError(
            f"X is a {type_name(frame)} with {len(names)} columns {names[:5]}: expected one column "
            "of paths or images. Select it, or use ColumnTransformer."
        )
    if hasattr(frame, "to_numpy") and not any(map(_is_nullable, columns)):
        return frame.to_numpy()
    return np.column_stack([_numbers_with_nan(one) for one in columns])


def _has_numbers(column: Any) -> bool:
    """Return True for a column of numbers or booleans, missing ones included."""
    if hasattr(column, "to_pylist"):
        return str(column.type).startswith(("int", "uint", "float", "halffloat", "double", "bool"))
    dtype: Any = getattr(column, "dtype", None)  # tensors of pyarrow have none
    if hasattr(dtype, "is_numeric"):  # polars
        return dtype.is_numeric() or str(dtype) == "Boolean"
    if getattr(dtype, "categories", None) is not None:
        return False
    return getattr(dtype, "kind", "O") in "biuf"


def _is_nullable(column: Any) -> bool:
    return not isinstance(getattr(column, "dtype", None), np.dtype)


def _numbers_with_nan(column: Any) -> np.ndarray:
    """Return a column of numbers, NaN where one is missing."""
    if not _is_nullable(column):
        return np.asarray(column)
    if hasattr(column, "to_pylist"):
        return (
            np.asarray(column.to_numpy(), np.float64)
            if column.null_count
            else _column_as_numpy(column)
        )
    if not hasattr(column, "iloc"):  # polars, whose integers become floats where one is missing
        return column.to_numpy()
    if column.isna().any():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(column.to_numpy(dtype=getattr(column.dtype, "numpy_dtype", None)))


def _column_as_numpy(column: Any) -> np.ndarray:
    if hasattr(column, "combine_chunks"):
        return np.asarray(column.to_numpy())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _values_of_arrow(column: Any) -> Any:
    """Return the values of a pyarrow array: numbers and images as an array, others as a list."""
    if hasattr(column, "to_numpy_ndarray"):
        return _images_of_tensors(column)
    if _has_numbers(column):
        return _numbers_with_nan(column)
    if hasattr(column, "combine_chunks"):
        return [value for chunk in column.chunks for value in _values_of_arrow(chunk)]
    return column.to_pylist()


def _images_of_tensors(column: Any) -> Any:
    """Return tensors of one shape as an array; as a list with None where some are missing."""
    if column.storage.flatten().null_count:
        raise InputError(
            "X is an array of tensors of pyarrow with missing numbers: fill them in, or leave "
            "these tensors out"
        )
    if not column.null_count:
        return column.to_numpy_ndarray()
    return [tensor.to_numpy() if tensor.is_valid else None for tensor in column]


def _strings_of_hdf5(dataset: Any) -> np.ndarray:
    try:
        return np.asarray(dataset.asstr()[...])
    except UnicodeDecodeError as exc:
        raise InputError(
            f"X is an HDF5 dataset of bytes that are not text ({exc}): pass encoded images as a "
            "list, as in [bytes(item) for item in X[...]]"
        ) from exc
    except TypeError:  # no strings: arrays of different lengths, or opaque bytes
        return np.asarray(dataset[...])


def _is_array(X: Any) -> bool:
    return hasattr(X, "__array__") or (hasattr(X, "dtype") and hasattr(X, "shape"))


def _is_like_numpy(X: Any) -> bool:
    """Return True for an array, or an object that is read in blocks like one."""
    if isinstance(X, np.ndarray):
        return X.dtype.kind != "V"
    if hasattr(X, "__cuda_array_interface__"):
        return False
    return isinstance(getattr(X, "dtype", None), np.dtype) and X.dtype.kind not in "OTUV"


def _unmasked_array(X: Any) -> Any:
    """Return an array without mask, with NaN for missing numbers."""
    if isinstance(X, np.ma.MaskedArray):
        if X.dtype.kind in "biufc" and np.ma.is_masked(X):
            raise InputError(
                "X is a masked array with masked values: expected pixels or numbers. Pass "
                "X.filled(value), with a value of your choice"
            )
        masked, X = np.ma.getmaskarray(X), X.data
        if masked.any():
            X = X.astype(object)
            X[masked] = None
    if getattr(X.dtype, "names", None):
        fields = ", ".join(map(repr, X.dtype.names[:5]))
        raise InputError(
            f"X is a structured array with the fields {fields}: expected one of them, as in "
            f"X[{X.dtype.names[0]!r}]"
        )
    if X.dtype.kind == "O" and X.ndim in (2, 3, 4) and _are_numbers(X):
        return np.array([np.nan if x is None else x for x in X.flat], np.float64).reshape(X.shape)
    return X


def _are_numbers(X: np.ndarray) -> bool:
    """Return True for an array of objects that are numbers or, some of them, None."""
    kinds = {type(x) for x in X.flat}
    numbers = {kind for kind in kinds if issubclass(kind, (int, float, np.number, np.bool_))}
    return bool(numbers) and all(kind is type(None) for kind in kinds - numbers)
