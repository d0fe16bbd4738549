"""``encode_classes``, ``split_folds``, ``last_best``: classes, folds and selection of a probe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv
from sklearn.utils.multiclass import check_classification_targets

from featx._targets import as_groups, as_weights
from featx._validation import ParameterFaults
from featx.exceptions import InputError
from featx.probes._arrays import namespace, numpy_if_array_api

Fold = tuple[np.ndarray, np.ndarray]

# Means of the same scores in another order differ by less.
_ROUNDING = 1e-12


def check_strengths(faults: ParameterFaults, name: str, values: Any) -> np.ndarray:
    """Return strengths of regularization in increasing order, float64, or add a fault."""
    if values is None:
        return np.logspace(-6, 5, 45)
    strengths = np.asarray(values)
    is_list = strengths.ndim == 1 and len(strengths) and strengths.dtype.kind in "iuf"
    if not is_list or not (np.isfinite(strengths) & (strengths > 0)).all():
        faults.add(name, values, "a list of numbers above 0, or None for 45 from 1e-6 to 1e5.")
        return np.empty(0)
    return np.sort(strengths.astype(np.float64))


def encode_classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted classes of labels (n_samples,), and the class index of each, int64.

    Examples
    --------
    >>> encode_classes(np.array(["b", "a", "b"]))
    (array(['a', 'b'], dtype='<U1'), array([1, 0, 1]))
    """
    check_classification_targets(y)
    classes, class_indices = np.unique(y, return_inverse=True)
    check_two_classes(classes, y)
    return classes, class_indices


def check_two_classes(classes: np.ndarray, y: np.ndarray) -> None:
    """Raise an InputError if labels have only one class."""
    if len(classes) < 2:
        raise InputError(f"y has one class only, {y.tolist()[0]!r}: expected 2 or more")


def predict_class_indices(scores: Any) -> Any:
    """Return the indices (n,) of the classes with the largest scores.

    Scores have the shape (n, n_classes), or (n,) or (n, 1) for two classes.

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


def check_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return the weights of samples, (n_samples,), float64; None gives all the same weight."""
    if sample_weight is None:
        return np.ones(n_samples)
    return as_weights(numpy_if_array_api(sample_weight), n_samples)


def split_folds(cv: Any, X: Any, y: np.ndarray, groups: Any, *, stratified: bool) -> list[Fold]:
    """Return the folds of a splitter, five if it is None, as (train, test) row indices from 0 on.

    If `stratified`, each fold gets the same fraction of each class.
    """
    groups = None if groups is None else as_groups(numpy_if_array_api(groups), len(y))
    splitter = check_cv(cv, y, classifier=stratified)
    folds = [
        (_row_indices(train, len(y)), _row_indices(test, len(y)))
        for train, test in splitter.split(X, y, groups)
    ]
    if not folds:
        raise InputError(f"cv={cv!r} holds nothing out: expected one fold or more")
    return folds


def _row_indices(rows: Any, n_rows: int) -> np.ndarray:
    """Return indices from 0 on for rows given as a mask or as indices that may be negative."""
    rows = np.asarray(rows)
    return np.flatnonzero(rows) if rows.dtype == bool else np.where(rows < 0, rows + n_rows, rows)


def check_fold_weights(
    folds: Sequence[Fold], weights: np.ndarray, score_weights: np.ndarray | None
) -> None:
    """Raise an InputError that names the folds in which all weights (n_samples,) are zero."""
    faults = [
        f"the {part} part of fold {number}"
        for number, fold in enumerate(folds)
        for part, rows, own in zip(
            ("training", "test"), fold, (weights, score_weights), strict=True
        )
        if not len(rows) or (own is not None and not own[rows].any())
    ]
    if faults:
        raise InputError(f"all weights are zero in {', '.join(faults)}")


def last_best(means: np.ndarray) -> int:
    """Return the index of the best mean score, the last one of equals; NaN is the worst.

    Examples
    --------
    >>> last_best(np.array([0.5, 0.8, 0.8, 0.7]))
    2
    """
    means = np.nan_to_num(means, nan=-np.inf)
    return int(np.flatnonzero(means >= means.max() - _ROUNDING)[-1])
