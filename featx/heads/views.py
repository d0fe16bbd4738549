"""Heads trained on all views of each sample, each a row of its own."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator

from featx.heads.fitting import as_head_input, fit_head
from featx.heads.folds import holding_whole_samples_out


def as_rows(views: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Turn views into rows for a head.

    Parameters
    ----------
    views : ndarray of shape (n_samples, n_views, n_features), float32
    *others : ndarray of shape (n_samples, ...)
        What belongs to the samples.

    Returns
    -------
    rows : ndarray of shape (n_samples * n_views, n_features)
        Of one sample after another.
    *others : ndarray of shape (n_samples * n_views, ...)

    Examples
    --------
    >>> rows, labels = as_rows(np.zeros((2, 3, 400), np.float32), np.array([0, 1]))
    >>> rows.shape, labels.tolist()
    ((6, 400), [0, 0, 0, 1, 1, 1])
    """
    n_samples, n_views, n_features = views.shape
    rows = as_head_input(views.reshape(n_samples * n_views, n_features))
    return rows, *(other if n_views == 1 else np.repeat(other, n_views, axis=0) for other in others)


def fit_on_views(
    head: BaseEstimator,
    views: np.ndarray,
    y: np.ndarray,
    *,
    sample_weight: np.ndarray | None,
    groups: np.ndarray | None,
) -> None:
    """Fit a head on all views of samples.

    Parameters
    ----------
    head : estimator
    views : ndarray of shape (n_samples, n_views, n_features), float32
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight, groups : ndarray of shape (n_samples,) or None
        Samples of one group never part where the head holds samples out.
    """
    n_views = views.shape[1]
    rows, labels = as_rows(views, y)
    weights = None if sample_weight is None else np.repeat(sample_weight, n_views)
    with holding_whole_samples_out(head, y, groups, n_views):
        fit_head(head, rows, labels, sample_weight=weights)
