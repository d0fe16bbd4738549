"""Operations on rows in NumPy arrays, in arrays of other libraries, and in lazy arrays.

Arrays of another library, such as torch tensors on a GPU, are those that scikit-learn's Array API
dispatch accepts (``array_api_dispatch=True``). Products of rows are computed where the rows are;
decompositions and searches, which are small, by NumPy.

Lazy arrays (:meth:`EmbeddingCache.open`) are read block by block, as often as needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.cache.lazy_array import LazyRows
from featx.exceptions import InputError

MAX_GPU_ELEMENTS = 2**27  # in the rows of a block and in the results computed from them
_ROWS_AT_ONCE = 8192
_CHUNK = 64  # columns whose largest value is found before columns are sorted


def is_array_api(X: Any) -> bool:
    """Return True for an array of another library than NumPy, if dispatch is enabled."""
    if isinstance(X, np.ndarray) or not sklearn.get_config()["array_api_dispatch"]:
        return False
    import array_api_compat

    return array_api_compat.is_array_api_obj(X) and not array_api_compat.is_numpy_array(X)


def is_lazy(X: Any) -> bool:
    """Return True for rows that are read when they are sliced."""
    return isinstance(X, LazyRows)


def namespace(X: Any) -> Any:
    """Return the Array API functions for an array."""
    if isinstance(X, np.ndarray):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(X)


def float_dtypes(X: Any) -> list[Any]:
    """Return double and single precision of the library of an array."""
    xp = namespace(X) if is_array_api(X) else np
    return [xp.float64, xp.float32]


def float_dtype(X: Any) -> np.dtype:
    """Return the dtype of an array of floats as NumPy's float32 or float64."""
    if isinstance(X.dtype, np.dtype):
        return X.dtype
    is_single = X.dtype == namespace(X).float32
    return np.dtype(np.float32 if is_single else np.float64)


def cast_floats(array: Any, dtype: np.dtype) -> Any:
    """Convert to float32 or float64, without a copy if it has that dtype already."""
    if isinstance(array, np.ndarray):
        return array.astype(dtype, copy=False)
    xp = namespace(array)
    return xp.astype(array, getattr(xp, dtype.name), copy=False)


def as_array_like(array: np.ndarray, X: Any, dtype: np.dtype | None = None) -> Any:
    """Move a NumPy array to the library and device of `X`; dtype None keeps its own."""
    array = array if dtype is None else array.astype(dtype, copy=False)
    if isinstance(X.dtype, np.dtype):
        return array
    import array_api_compat

    # torch shares their memory, and rejects read-only memory and negative strides.
    owned = np.require(array, requirements=["C", "W"])
    return namespace(X).asarray(owned, device=array_api_compat.device(X))


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array from any device to NumPy; a NumPy array is returned unchanged."""
    if isinstance(array, np.ndarray):
        return array
    import array_api_compat

    if array_api_compat.is_torch_array(array):  # not all versions export to another device
        return array.detach().cpu().numpy()
    # Older versions of NumPy make even copies read-only.
    return np.require(np.from_dlpack(array, device="cpu", copy=True), requirements="W")


def numpy_if_array_api(values: Any) -> Any:
    """Copy labels, weights or groups to NumPy if they are an array of another library."""
    return to_numpy(values) if is_array_api(values) else values


def to_same_device(array: Any, X: Any) -> Any:
    """Move a NumPy array of numbers to the device of `X`; strings and scalars cannot be moved."""
    is_movable = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
    return as_array_like(array, X) if is_movable and is_array_api(X) else array


def without_gradients(X: Any) -> Any:
    """Return an array without the gradients of torch."""
    if not is_array_api(X):
        return X
    import array_api_compat

    return X.detach() if array_api_compat.is_torch_array(X) else X


def in_memory(X: Any) -> Any:
    """Read all rows of a lazy array; other arrays are returned unchanged."""
    return np.asarray(X) if is_lazy(X) else X


def take_rows(X: Any, rows: np.ndarray) -> Any:
    """Return rows of an array in memory by their indices."""
    if isinstance(X, np.ndarray):
        return X[rows]
    return namespace(X).take(X, as_array_like(rows, X), axis=0)


def inner_products(rows: Any, others: Any) -> Any:
    """Return the products of rows (n, d) and others (k, d), (n, k), in the higher precision."""
    if not isinstance(rows, np.ndarray):
        xp = namespace(rows)
        dtype = xp.result_type(rows, others)  # not all libraries multiply arrays of two dtypes
        rows, others = (xp.astype(each, dtype, copy=False) for each in (rows, others))
    return rows @ others.T


def largest_of_each_row(values: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns of the largest values of each row, and these, in decreasing order."""
    if not isinstance(values, np.ndarray):
        xp = namespace(values)  # without partition, all are sorted
        places = xp.argsort(values, axis=1, descending=True)[:, :count]
        return to_numpy(places), to_numpy(xp.take_along_axis(values, places, axis=1))
    if values.shape[1] < 2 * count * _CHUNK:
        return _largest_by_partition(values, count)
    columns = _columns_of_largest_chunks(values, count)
    places, largest = _largest_by_partition(np.take_along_axis(values, columns, 1), count)
    return np.take_along_axis(columns, places, 1), largest


def _largest_by_partition(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    places = np.argpartition(-values, count - 1)[:, :count]
    largest = np.take_along_axis(values, places, 1)
    order = np.argsort(-largest, axis=1, kind="stable")
    return np.take_along_axis(places, order, 1), np.take_along_axis(largest, order, 1)


def _columns_of_largest_chunks(values: np.ndarray, count: int) -> np.ndarray:
    """Return some columns for each row, among which are those of its largest values.

    A chunk of columns that holds one of the largest values has one of the largest maxima.
    """
    n_rows, n_columns = values.shape
    in_chunks = n_columns - n_columns % _CHUNK
    maxima = values[:, :in_chunks].reshape(n_rows, -1, _CHUNK).max(axis=2)
    chunks = np.argpartition(-maxima, count - 1)[:, :count]
    columns = (chunks[:, :, np.newaxis] * _CHUNK + np.arange(_CHUNK)).reshape(n_rows, -1)
    rest = np.broadcast_to(np.arange(in_chunks, n_columns), (n_rows, n_columns - in_chunks))
    return np.hstack([columns, rest])


def in_blocks(X: Any) -> Iterator[tuple[slice, Any]]:
    """Yield all rows, a few thousand at a time, each block after its slice; check lazy ones."""
    for part, rows in unchecked_blocks(X):
        if is_lazy(X) and not np.isfinite(rows).all():
            raise InputError("X holds NaN or infinite values")
        yield part, rows


def unchecked_blocks(X: Any) -> Iterator[tuple[slice, Any]]:
    """Yield all rows, a few thousand at a time, each block after its slice."""
    for start in range(0, X.shape[0], _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, X.shape[0]))
        yield part, X[part, :] if is_array_api(X) else np.asarray(X[part])


def weighted_mean(X: Any, weights: np.ndarray) -> np.ndarray:
    """Return the mean of rows, (n_features,), float64, with float64 weights (n_samples,)."""
    if is_array_api(X):
        total = to_numpy(as_array_like(weights, X, float_dtype(X)) @ X).astype(np.float64)
    elif is_lazy(X):
        total = np.zeros(X.shape[1])
        for part, rows in in_blocks(X):
            total += weights[part] @ rows
    else:
        total = weights.astype(X.dtype) @ X
    return total / weights.sum()


def validate_rows(estimator: BaseEstimator, X: Any) -> Any:
    """Return validated rows, in memory, for a method of a fitted estimator."""
    check_is_fitted(estimator)
    X = without_gradients(in_memory(X))
    return validate_data(estimator, X, reset=False, dtype=float_dtypes(X))


def apply_in_blocks(estimator: BaseEstimator, X: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function to validated rows, block by block if they are lazy."""
    if not is_lazy(X) or not len(X):
        return function(validate_rows(estimator, X))
    return np.concatenate([function(validate_rows(estimator, rows)) for _, rows in in_blocks(X)])
