"""Rows that are arrays of another library, such as torch tensors on a GPU.

They are what scikit-learn's Array API dispatch lets through (``array_api_dispatch=True``). What
multiplies rows is computed where they are; what is small, decompositions and searches, by numpy.

Rows that do not fit in memory: read block by block, as often as they are needed.

A view of the cache (:meth:`EmbeddingCache.open`) is such rows. One of up to 256 MiB is read once,
and is then an array like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from featx._targets import as_labels, as_values
from featx.cache.lazy_array import LazyRows
from featx.exceptions import InputError, ParameterError

NUMBERS_AT_ONCE = 2**27  # on a GPU: rows, and what is made of them


def is_foreign(X: Any) -> bool:
    """Tell whether an array is of another library than numpy, and is to stay so."""
    if isinstance(X, np.ndarray) or not sklearn.get_config()["array_api_dispatch"]:
        return False
    import array_api_compat

    return array_api_compat.is_array_api_obj(X) and not array_api_compat.is_numpy_array(X)


def namespace(X: Any) -> Any:
    """Return the functions of the Array API for an array."""
    if isinstance(X, np.ndarray):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(X)


def float_dtypes(X: Any) -> list[Any]:
    """Return double and single precision, as the library of an array calls them."""
    xp = namespace(X) if is_foreign(X) else np
    return [xp.float64, xp.float32]


def precision(X: Any) -> np.dtype:
    """Return the dtype of floats in numpy's words, float32 or float64."""
    if isinstance(X.dtype, np.dtype):
        return X.dtype
    is_single = X.dtype == namespace(X).float32
    return np.dtype(np.float32 if is_single else np.float64)


def cast(array: Any, dtype: np.dtype) -> Any:
    """Convert to float32 or float64, in numpy's words; what is of that dtype is not copied."""
    if isinstance(array, np.ndarray):
        return array.astype(dtype, copy=False)
    xp = namespace(array)
    return xp.astype(array, getattr(xp, dtype.name), copy=False)


def like(array: np.ndarray, X: Any, dtype: np.dtype | None = None) -> Any:
    """Move an array of numpy's to the library and the device of another.

    Parameters
    ----------
    array : ndarray
    X : array or view
    dtype : dtype, default=None
        Of what is returned, in numpy's words; None keeps it.
    """
    array = array if dtype is None else array.astype(dtype, copy=False)
    if isinstance(X.dtype, np.dtype):
        return array
    import array_api_compat

    # torch shares their memory, and takes none that is read-only or goes backwards.
    owned = np.require(array, requirements=["C", "W"])
    return namespace(X).asarray(owned, device=array_api_compat.device(X))


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array to numpy, from whatever device; one of numpy's is returned as it is."""
    if isinstance(array, np.ndarray):
        return array
    import array_api_compat

    if array_api_compat.is_torch_array(array):  # not all versions hand them to another device
        return array.detach().cpu().numpy()
    # Older versions of numpy make even copies read-only.
    return np.require(np.from_dlpack(array, device="cpu", copy=True), requirements="W")


def without_gradients(X: Any) -> Any:
    """Return an array that is not part of a computation that torch is to differentiate."""
    if not is_foreign(X):
        return X
    import array_api_compat

    return X.detach() if array_api_compat.is_torch_array(X) else X


def numpy_if_foreign(values: Any) -> Any:
    """Copy labels, weights or groups to numpy if they are an array of another library."""
    return to_numpy(values) if is_foreign(values) else values


def to_same_device(array: Any, X: Any) -> Any:
    """Move what numpy has to where the rows are; words, and single numbers, cannot go there."""
    is_movable = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
    return like(array, X) if is_movable and is_foreign(X) else array


def take(X: Any, rows: np.ndarray) -> Any:
    """Return some rows of an array."""
    if isinstance(X, np.ndarray):
        return X[rows]
    return namespace(X).take(X, like(rows, X), axis=0)


def inner_products(rows: Any, others: Any) -> Any:
    """Multiply each row (n, d) with each other (k, d): (n, k), in the higher precision of both."""
    if not isinstance(rows, np.ndarray):
        xp = namespace(rows)
        dtype = xp.result_type(rows, others)  # not all libraries multiply what differs in it
        rows, others = (xp.astype(each, dtype, copy=False) for each in (rows, others))
    return rows @ others.T


class ArrayApiMixin:
    """A probe that takes rows of other libraries than numpy, as scikit-learn is told."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.array_api_support = True
        return tags


def check_same_place(estimator: Any, X: Any, fitted: Any, method: str) -> None:
    """Check that rows are of the library, and on the device, of those that were fitted.

    Parameters
    ----------
    estimator : estimator
    X : array
    fitted : array
        Something that was fitted.
    method : str
        What is called.

    Raises
    ------
    InputError
        They are not.
    """
    if isinstance(X, np.ndarray) and isinstance(fitted, np.ndarray):
        return
    import array_api_compat

    place, own = [
        (namespace(each).__name__.removeprefix("array_api_compat."), array_api_compat.device(each))
        for each in (X, fitted)
    ]
    if place != own:
        raise InputError(
            f"X is of {place[0]} on {place[1]}, what was fitted of {own[0]} on {own[1]}: inputs of "
            f"{type(estimator).__name__}.{method}() must use the same namespace and device"
        )


_MAX_BYTES_READ_ONCE = 256 * 2**20
_ROWS_AT_ONCE = 8192


def validated(estimator: BaseEstimator, X: Any, y: Any, **checks: Any) -> tuple[Any, np.ndarray]:
    """Validate what an estimator is fitted on, as scikit-learn does; views are not read for it.

    Parameters
    ----------
    estimator : estimator
        Gets `n_features_in_`.
    X : array-like or view of shape (n_samples, n_features)
    y : array-like
    **checks
        Passed to ``validate_data``.

    Returns
    -------
    X : ndarray, array of another library, or a view that is too large to be read at once
    y : ndarray

    Raises
    ------
    ValueError
        Lengths differ, numbers are missing, and so on.
    """
    if y is not None:
        y = (as_values if checks.get("y_numeric") else as_labels)(numpy_if_foreign(y))
    if is_foreign(X):
        X = validate_data(estimator, without_gradients(X), dtype=float_dtypes(X))
        y = validate_data(estimator, y=y, **checks)
        check_consistent_length(X, y)
        return X, y
    if not is_streamed(X):
        X, y = validate_data(estimator, X, y, dtype=[np.float64, np.float32], **checks)
        return X, y
    n_samples, n_features = X.shape
    if n_samples <= n_features or X.nbytes <= _MAX_BYTES_READ_ONCE:
        return validated(estimator, np.asarray(X), y, **checks)
    validate_data(estimator, X[:1], dtype=[np.float32])
    y = validate_data(estimator, y=y, **checks)
    check_consistent_length(X, y)
    return X, y


def rows_for(estimator: BaseEstimator, X: Any) -> Any:
    """Return rows, validated, for a method of a fitted estimator.

    Parameters
    ----------
    estimator : estimator
    X : array-like or view of shape (n_samples, n_features)
    """
    check_is_fitted(estimator)
    X = without_gradients(in_memory(X))
    return validate_data(estimator, X, reset=False, dtype=float_dtypes(X))


def in_memory(X: Any) -> Any:
    """Return all rows of a view at once; what is none stays as it is."""
    return np.asarray(X) if is_streamed(X) else X


def is_streamed(X: Any) -> bool:
    """Tell whether rows are read when they are sliced."""
    return isinstance(X, LazyRows)


def check_own_score(X: Any, scoring: Any) -> None:
    """Check that folds of rows that are streamed need not be handed to a scorer.

    Raises
    ------
    ParameterError
        They would have to be, and each be in memory.
    """
    if is_streamed(X) and scoring is not None:
        raise ParameterError(
            f"scoring={scoring!r}: expected None for rows that do not fit in memory"
        )


def in_blocks(X: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield all rows, a few thousand at a time, and where they are.

    Raises
    ------
    InputError
        Some number is missing or infinite.
    """
    for start in range(0, X.shape[0], _ROWS_AT_ONCE):
        part = slice(start, min(start + _ROWS_AT_ONCE, X.shape[0]))
        rows = X[part, :] if is_foreign(X) else np.asarray(X[part])
        if is_streamed(X) and not np.isfinite(rows).all():
            raise InputError("X holds NaN, or numbers that are infinite")
        yield part, rows


def weighted_mean(X: Any, weights: np.ndarray) -> np.ndarray:
    """Return the mean of rows, (n_features,), float64.

    Parameters
    ----------
    X : array or view of shape (n_samples, n_features)
    weights : ndarray of shape (n_samples,), float64
    """
    if is_foreign(X):
        return to_numpy(like(weights, X, precision(X)) @ X).astype(np.float64) / weights.sum()
    if not is_streamed(X):
        return weights.astype(X.dtype) @ X / weights.sum()
    total = np.zeros(X.shape[1])
    for part, rows in in_blocks(X):
        total += weights[part] @ rows
    return total / weights.sum()


def apply_in_blocks(estimator: BaseEstimator, X: Any, function: Callable[[Any], Any]) -> Any:
    """Return what a fitted estimator computes from rows, one after another.

    Parameters
    ----------
    estimator : estimator
    X : array-like or view of shape (n_samples, n_features)
    function : callable
        From validated rows to an array of as many.
    """
    if not is_streamed(X) or not len(X):
        return function(rows_for(estimator, X))
    return np.concatenate([function(rows_for(estimator, rows)) for _, rows in in_blocks(X)])
