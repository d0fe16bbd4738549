"""Folds that heads make inside: of whole samples, or of groups of them, instead of rows.

A head that chooses by cross-validation would be judged by a view of the very sample that it was
trained on. While it is fitted, its parameters `cv` are therefore other ones.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    check_cv,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline

from featx._validation import InputFaults
from featx.exceptions import InputError, ParameterError

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
    whole = set(_splitters(head))
    if n_views == 1 and groups is None:
        _check_folds(head, whole, y, groups, n_views)
        return
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
    _check_folds(head, whole, y, groups, n_views)


def _check_folds(
    head: BaseEstimator,
    splitters: Iterable[str],
    y: np.ndarray,
    groups: np.ndarray | None,
    n_views: int,
) -> None:
    """Check that splitters can make their folds, and that calibration has enough of each class."""
    params, faults = head.get_params(), InputFaults()
    for name in splitters:
        with warnings.catch_warnings(action="ignore"):  # the head itself gives them
            try:
                _split(params[name], y, groups, n_views, is_classifier(head))
            except ValueError as exc:
                faults.messages.append(f"the folds of head__{name} cannot be made: {exc}")
    if y.ndim == 1:
        faults.messages += _faults_of_calibration(head, y)
    faults.raise_any()


def _faults_of_calibration(head: BaseEstimator, y: np.ndarray) -> Iterator[str]:
    """Yield a message for each part that calibrates in more folds than a class has samples."""
    labels, counts = np.unique(y, return_counts=True)
    for name, part in {"": head, **head.get_params()}.items():
        if not isinstance(part, CalibratedClassifierCV):
            continue
        n_folds = _N_FOLDS if part.cv is None else part.cv
        if not isinstance(n_folds, Integral):
            continue
        rare = counts < int(n_folds)
        if rare.any():
            pairs = zip(labels[rare].tolist(), counts[rare].tolist(), strict=True)
            shown = ", ".join(f"{label!r} ({count})" for label, count in pairs)
            yield (
                f"head{'__' if name else ''}{name} calibrates in {n_folds} folds: expected "
                f"{n_folds} or more samples of each class, but got fewer of {shown}"
            )


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


@contextlib.contextmanager
def holding_whole_samples_out(
    head: BaseEstimator, y: np.ndarray, groups: np.ndarray | None, n_views: int
) -> Iterator[None]:
    """Let the parameters `cv` of a head be folds of whole samples or groups for a while.

    Parameters
    ----------
    head : estimator
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    groups : ndarray of shape (n_samples,) or None
    n_views : int
        The rows on which the head is fitted are the views of one sample after another.
    """
    params = head.get_params()
    given = {name: params[name] for name in _splitters(head)}
    # Without a reason set_params is not called: some heads refuse it once they are fitted.
    if not given or (n_views == 1 and groups is None):
        yield
        return
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
        if _is_splitter(name, value) and not isinstance(value, float):  # a share of the rows
            yield name
        elif isinstance(head, _HANDING_ALL_ON) and isinstance(value, BaseEstimator):
            yield from (f"{name}__{inner}" for inner in _splitters(value))
    if isinstance(head, Pipeline):
        for step, part in head.steps:
            if isinstance(part, BaseEstimator):
                yield from (f"{step}__{inner}" for inner in _splitters(part))


def _is_splitter(name: str, value: Any) -> bool:
    return name.rpartition("__")[2] == "cv" and not isinstance(value, str)  # such as "prefit"


class SampleFolds:
    """Folds of rows that were made beforehand, as a splitter of scikit-learn.

    Parameters
    ----------
    folds : sequence of (train, test)
        Row numbers.
    """

    def __init__(self, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.folds = folds

    def split(
        self, X: Any = None, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the rows to train on and to be judged by."""
        yield from self.folds

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return how many folds there are."""
        return len(self.folds)


def _split(
    cv: Any, y: np.ndarray, groups: np.ndarray | None, n_views: int, is_class: bool
) -> SampleFolds:
    kinds = _kinds(y) if is_class else None
    if cv is None or isinstance(cv, Integral):
        n_folds = _N_FOLDS if cv is None else int(cv)
        if groups is not None:
            n_groups = len(np.unique(groups))
            if n_groups < n_folds:  # of which scikit-learn 1.7 makes folds without samples
                raise InputError(f"{n_folds} folds need as many groups, but there are {n_groups}")
            cv = GroupKFold(n_folds) if kinds is None else StratifiedGroupKFold(n_folds)
        elif y.ndim == 2:  # which scikit-learn would split in order
            cv = KFold(n_folds) if kinds is None else StratifiedKFold(n_folds)
            kinds = kinds if kinds is None else _common(kinds, n_folds)
    splitter = check_cv(cv, y, classifier=is_class)
    samples = np.zeros((len(y), 1))
    return SampleFolds(
        [
            (_rows(train, n_views), _rows(test, n_views))
            for train, test in splitter.split(samples, y if kinds is None else kinds, groups)
        ]
    )


def _kinds(y: np.ndarray) -> np.ndarray:
    """Return a number for each class, or combination of classes, of the samples."""
    return np.unique(y, axis=0, return_inverse=True)[1].reshape(len(y))


def _common(kinds: np.ndarray, n_folds: int) -> np.ndarray:
    """Make one kind of all that are too rare to be in each fold."""
    is_rare = np.bincount(kinds)[kinds] < n_folds
    return np.where(is_rare, kinds.max() + 1, kinds)


def _rows(samples: np.ndarray, n_views: int) -> np.ndarray:
    """Return the rows of the views of samples."""
    samples = np.asarray(samples)
    if samples.dtype == bool:
        samples = np.flatnonzero(samples)
    return (samples[:, np.newaxis] * n_views + np.arange(n_views)).ravel()
