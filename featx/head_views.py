"""Heads trained on all views of each sample, each a row of its own.

A head that chooses by cross-validation would be judged by a view of the very sample that it was
trained on. While it is fitted, it therefore gets splits of samples, or of groups of them, in place
of splits of rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, check_cv
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.multiclass import type_of_target

from featx.exceptions import InputError, ParameterError
from featx.head_fitting import as_head_input, fit_head

# They hand all rows to what is inside them, in their order.
_HANDING_ALL_ON = (Pipeline, OneVsRestClassifier, MultiOutputClassifier, MultiOutputRegressor)
_N_FOLDS = 5
_MANY_ROWS = 10_000  # from which on early_stopping="auto" holds rows out


def check_holds_whole_samples_out(
    head: BaseEstimator,
    y: np.ndarray,
    groups: np.ndarray | None,
    *,
    n_views: int,
) -> None:
    """Check, before any pass, that a head can hold out whole groups, or samples with all views.

    Parameters
    ----------
    head : estimator
        Not fitted.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    groups : ndarray of shape (n_samples,) or None
    n_views : int

    Raises
    ------
    ParameterError
        Some part of it would be judged by what it was trained on; all such are named.
    InputError
        There are too few samples or groups for its folds.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> head, y = MLPClassifier(early_stopping=True), np.array([0, 1] * 4)
    >>> check_holds_whole_samples_out(head, y, None, n_views=2)
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: head has early_stopping=True, which holds single rows out: \
views of one sample, or samples of one group, would part
    """
    if n_views == 1 and groups is None:
        return
    whole = set(_splitters(head))
    parts = [("", head), *head.get_params().items()]
    parting = [
        f"{prefix}{'__' if prefix else ''}{name}"
        for prefix, part in parts
        if isinstance(part, BaseEstimator)
        for name in _holding_rows_out(part, len(y) * n_views)
    ]
    parting += [
        f"{name}={value!r}"
        for name, value in head.get_params().items()
        if _is_splitter(name, value) and name not in whole
    ]
    if parting:
        raise ParameterError(
            f"head has {' and '.join(parting)}, which holds single rows out: views of one sample, "
            "or samples of one group, would part"
        )
    for name in whole:
        try:
            _split(head.get_params()[name], y, groups, n_views, is_classifier(head))
        except ValueError as exc:
            raise InputError(f"the folds of head__{name} cannot be made: {exc}") from exc


def _holding_rows_out(part: BaseEstimator, n_rows: int) -> Iterator[str]:
    """Say by which parameters an estimator holds out rows of its own choice."""
    params = part.get_params(deep=False)
    stops_early = params.get("early_stopping", False)
    if stops_early is True or (stops_early == "auto" and n_rows > _MANY_ROWS):
        yield f"early_stopping={stops_early!r}"
    n_iter = params.get("n_iter_no_change")
    if "early_stopping" not in params and "validation_fraction" in params and n_iter is not None:
        yield f"n_iter_no_change={n_iter!r}"  # of gradient boosting
    for name in ("oob_score", "probability"):  # SVC has its probabilities from folds
        if params.get(name) is True:
            yield f"{name}=True"


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
    with _splitting_samples(head, y, groups, n_views):
        fit_head(head, rows, labels, sample_weight=weights)


@contextlib.contextmanager
def _splitting_samples(
    head: BaseEstimator, y: np.ndarray, groups: np.ndarray | None, n_views: int
) -> Iterator[None]:
    """Let the parameters `cv` of a head be splits of samples for a while."""
    params = head.get_params()
    given = {name: params[name] for name in _splitters(head)}
    if n_views == 1 and groups is None:
        given = {}
    is_class = is_classifier(head)
    splits = {name: _split(cv, y, groups, n_views, is_class) for name, cv in given.items()}
    head.set_params(**splits)
    try:
        yield
    finally:
        head.set_params(**given)


def _splitters(head: BaseEstimator) -> Iterator[str]:
    """Name the parameters that split all rows."""
    for name, value in head.get_params(deep=False).items():
        if _is_splitter(name, value):
            yield name
        elif isinstance(head, _HANDING_ALL_ON) and isinstance(value, BaseEstimator):
            yield from (f"{name}__{inner}" for inner in _splitters(value))
    if isinstance(head, Pipeline):
        for step, part in head.steps:
            if isinstance(part, BaseEstimator):
                yield from (f"{step}__{inner}" for inner in _splitters(part))


def _is_splitter(name: str, value: Any) -> bool:
    return name.rpartition("__")[2] == "cv" and not isinstance(value, str)  # such as "prefit"


def _split(
    cv: Any, y: np.ndarray, groups: np.ndarray | None, n_views: int, is_class: bool
) -> list[tuple[np.ndarray, np.ndarray]]:
    if groups is not None and (cv is None or isinstance(cv, Integral)):
        n_folds = _N_FOLDS if cv is None else int(cv)
        one_class = is_class and type_of_target(y) in ("binary", "multiclass")
        cv = StratifiedGroupKFold(n_folds) if one_class else GroupKFold(n_folds)
    splitter = check_cv(cv, y, classifier=is_class)
    samples = np.zeros((len(y), 1))
    return [
        (_rows(train, n_views), _rows(test, n_views))
        for train, test in splitter.split(samples, y, groups)
    ]


def _rows(samples: np.ndarray, n_views: int) -> np.ndarray:
    """Return the rows of the views of samples."""
    samples = np.asarray(samples)
    if samples.dtype == bool:
        samples = np.flatnonzero(samples)
    return (samples[:, np.newaxis] * n_views + np.arange(n_views)).ravel()
