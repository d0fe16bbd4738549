"""How a probe holds samples out, and which of its candidates it chooses by what they scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from featx.exceptions import InputError
from featx.targets import as_groups

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
