"""How a probe holds samples out, and which of its candidates it chooses by what they scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets

from featx._targets import as_groups, as_weights
from featx.exceptions import InputError
from featx.probes._arrays import namespace, numpy_if_foreign


def predict_class_indices(scores: Any) -> Any:
    """Return the numbers of the classes with the largest scores, (n,).

    Parameters
    ----------
    scores : array of shape (n, k), or (n,) or (n, 1) for two classes

    Examples
    --------
    >>> predict_class_indices(np.array([-1.0, 2.0]))
    array([0, 1])
    >>> predict_class_indices(np.array([[0.1, 0.7, 0.2]]))
    array([1])
    """
    xp = namespace(scores)
    if scores.ndim == 2 and scores.shape[1] > 1:
        return xp.argmax(scores, axis=1)
    return xp.astype(xp.reshape(scores, (-1,)) > 0, xp.int64)


def encode_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each class of samples a number, in order.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    numbers : ndarray of shape (n_samples,), int64

    Raises
    ------
    ValueError
        There is one class only, or `y` holds no classes.

    Examples
    --------
    >>> encode_classes(np.array(["b", "a", "b"]))
    (array(['a', 'b'], dtype='<U1'), array([1, 0, 1]))
    """
    check_classification_targets(y)
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y holds one class only, {y.tolist()[0]!r}: expected 2 or more")
    return classes, numbers


Fold = tuple[np.ndarray, np.ndarray]

# Means of the same scores in another order differ by this much.
_ROUNDING = 1e-12


def split_folds(cv: Any, X: np.ndarray, y: np.ndarray, groups: Any, *, classes: bool) -> list[Fold]:
    """Hold samples out as scikit-learn does.

    Parameters
    ----------
    cv : int, splitter, iterable of (train, test) or None
        None is five folds.
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    groups : array-like of shape (n_samples,) or None
    classes : bool
        Whether `y` holds classes, of which each fold then gets its share.

    Returns
    -------
    list of (train, test)
        Row numbers from 0 on.

    Raises
    ------
    InputError
        There are no folds.
    """
    groups = None if groups is None else as_groups(groups, len(y))
    splitter = check_cv(cv, y, classifier=classes)
    folds = [
        (_row_numbers(train, len(y)), _row_numbers(test, len(y)))
        for train, test in splitter.split(X, y, groups)
    ]
    if not folds:
        raise InputError(f"cv={cv!r} holds nothing out: expected one fold or more")
    return folds


def _row_numbers(rows: Any, n_rows: int) -> np.ndarray:
    """Return the rows of a fold as numbers, which may be a mask, or count from the end."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else np.where(rows < 0, rows + n_rows, rows)


def last_of_best(means: np.ndarray) -> int:
    """Return the number of the best mean score; of equals the last. NaN is the worst.

    Examples
    --------
    >>> last_of_best(np.array([0.5, 0.8, 0.8, 0.7]))
    2
    """
    means = np.nan_to_num(means, nan=-np.inf)
    return int(np.flatnonzero(means >= means.max() - _ROUNDING)[-1])


def checked_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return the weights of samples, (n_samples,) float64, or raise; None weighs all the same."""
    if sample_weight is None:
        return np.ones(n_samples)
    return as_weights(numpy_if_foreign(sample_weight), n_samples)


def check_weights_of_folds(
    folds: Sequence[Fold], weights: np.ndarray, scored_by: np.ndarray | None
) -> None:
    """Check that every fold has something to train on and to be scored by.

    Parameters
    ----------
    folds : sequence of (train, test)
    weights : ndarray of shape (n_samples,)
        For the training.
    scored_by : ndarray of shape (n_samples,) or None
        For the scores; None weighs all the same.

    Raises
    ------
    InputError
        All weights are zero in some; all of these are named.
    """
    faults = [
        f"what fold {number} {part}"
        for number, fold in enumerate(folds)
        for part, rows, theirs in zip(
            ("trains on", "is scored by"), fold, (weights, scored_by), strict=True
        )
        if not len(rows) or (theirs is not None and not theirs[rows].any())
    ]
    if faults:
        raise InputError(f"all weights are zero in {', '.join(faults)}")
