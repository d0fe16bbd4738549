"""Rows that do not fit in memory: read block by block, as often as they are needed.

A view of the cache (:meth:`EmbeddingCache.open`) is such rows. One of up to 256 MiB is read once,
and is then an array like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.exceptions import InputError, ParameterError
from featx.probes.arrays import (
    float_dtypes,
    is_foreign,
    like,
    numpy_if_foreign,
    precision,
    to_numpy,
    without_gradients,
)
from featx.storage.views import RowView
from featx.targets import as_labels, as_values

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
    return isinstance(X, RowView)


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
