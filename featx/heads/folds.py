"""SampleFolds: folds inside a head that consist of samples or groups instead of single rows.

A head that selects by cross-validation would otherwise be scored on augmented views of samples that
it was trained on. While it is fitted, its parameters `cv` are therefore replaced by folds that keep
all augmented views of a sample, and all samples of a group, together.
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

# Estimators that pass all rows, in order, to the estimators inside.
_PASSING_ALL_ROWS = (Pipeline, OneVsRestClassifier, MultiOutputClassifier, MultiOutputRegressor)
_N_FOLDS = 5
_MANY_ROWS = 10_000  # with more rows, early_stopping="auto" of scikit-learn holds rows out


def check_keeps_samples_together(
    head: BaseEstimator,
    y: np.ndarray,
    groups: np.ndarray | None,
    *,
    n_views: int,
) -> None:
    """Check, before any pass, that an unfitted head can hold out entire groups or samples.

    A ParameterError names the parts that would be scored on samples that they are trained on. An
    InputError is raised for too few samples or groups for the folds of the head.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> head, y = MLPClassifier(early_stopping=True), np.array([0, 1] * 4)
    >>> check_keeps_samples_together(head, y, None, n_views=2)
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: head has early_stopping=True, which holds single rows out: \
views of one sample, or samples of one group, would be separated
    """
    replaceable = set(_splitter_params(head))
    if n_views == 1 and groups is None:
        _check_head_folds(head, replaceable, y, groups, n_views)
        return
    parts = [("", head), *head.get_params().items()]
    splitting = [
        f"{prefix}{'__' if prefix else ''}{name}"
        for prefix, part in parts
        if isinstance(part, BaseEstimator)
        for name in _row_split_params(part, len(y) * n_views)
    ]
    splitting += [
        f"{name}={value!r}"
        for name, value in head.get_params().items()
        if _is_splitter_param(name, value) and name not in replaceable
    ]
    if splitting:
        raise ParameterError(
            f"head has {' and '.join(splitting)}, which holds single rows out: views of one "
            "sample, or samples of one group, would be separated"
        )
    _check_head_folds(head, replaceable, y, groups, n_views)


def _check_head_folds(
    head: BaseEstimator,
    splitters: Iterable[str],
    y: np.ndarray,
    groups: np.ndarray | None,
    n_views: int,
) -> None:
    """Check that splitters can make folds, and calibration too, from the samples of each class."""
    params, faults = head.get_params(), InputFaults()
    for name in splitters:
        with warnings.catch_warnings(action="ignore"):  # the head will give them
            try:
                _split_samples(params[name], y, groups, n_views, is_classifier(head))
            except ValueError as exc:
                faults.messages.append(f"the folds of head__{name} cannot be made: {exc}")
    if y.ndim == 1:
        faults.messages += _calibration_faults(head, y)
    faults.raise_any()


def _calibration_faults(head: BaseEstimator, y: np.ndarray) -> Iterator[str]:
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


def _row_split_params(part: BaseEstimator, n_rows: int) -> Iterator[str]:
    """Yield the parameters that make an estimator hold out single rows."""
    params = part.get_params(deep=False)
    stops_early = params.get("early_stopping", False)
    if stops_early is True or (stops_early == "auto" and n_rows > _MANY_ROWS):
        yield f"early_stopping={stops_early!r}"
    n_iter = params.get("n_iter_no_change")
    if "early_stopping" not in params and "validation_fraction" in params and n_iter is not None:
        yield f"n_iter_no_change={n_iter!r}"  # of gradient boosting
    for name in ("oob_score", "probability"):  # SVC gets its probabilities from folds
        if params.get(name) is True:
            yield f"{name}=True"


@contextlib.contextmanager
def keeping_samples_together(
    head: BaseEstimator, y: np.ndarray, groups: np.ndarray | None, n_views: int
) -> Iterator[None]:
    """Replace the parameters `cv` of a head by folds of samples or groups inside the context.

    The rows on which the head is fitted are augmented views, sample by sample.
    """
    params = head.get_params()
    given = {name: params[name] for name in _splitter_params(head)}
    # `set_params` is called only if needed, since some fitted heads refuse it.
    if not given or (n_views == 1 and groups is None):
        yield
        return
    is_class = is_classifier(head)
    splits = {name: _split_samples(cv, y, groups, n_views, is_class) for name, cv in given.items()}
    head.set_params(**splits)
    try:
        yield
    finally:
        head.set_params(**given)


def _splitter_params(head: BaseEstimator) -> Iterator[str]:
    """Yield the names of parameters that split all rows."""
    for name, value in head.get_params(deep=False).items():
        if _is_splitter_param(name, value) and not isinstance(
            value, float
        ):  # a fraction of the rows
            yield name
        elif isinstance(head, _PASSING_ALL_ROWS) and isinstance(value, BaseEstimator):
            yield from (f"{name}__{inner}" for inner in _splitter_params(value))
    if isinstance(head, Pipeline):
        for step, part in head.steps:
            if isinstance(part, BaseEstimator):
                yield from (f"{step}__{inner}" for inner in _splitter_params(part))


def _is_splitter_param(name: str, value: Any) -> bool:
    return name.rpartition("__")[2] == "cv" and not isinstance(value, str)  # such as "prefit"


class SampleFolds:
    """A splitter that yields given folds, as (train, test) row indices."""

    def __init__(self, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.folds = folds

    def split(
        self, X: Any = None, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the training and the test rows of each fold."""
        yield from self.folds

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of folds."""
        return len(self.folds)


def _split_samples(
    cv: Any, y: np.ndarray, groups: np.ndarray | None, n_views: int, is_class: bool
) -> SampleFolds:
    strata = _class_combinations(y) if is_class else None
    if cv is None or isinstance(cv, Integral):
        n_folds = _N_FOLDS if cv is None else int(cv)
        if groups is not None:
            n_groups = len(np.unique(groups))
            if n_groups < n_folds:  # scikit-learn 1.7 would make folds without samples
                raise InputError(f"{n_folds} folds need as many groups, but there are {n_groups}")
            cv = GroupKFold(n_folds) if strata is None else StratifiedGroupKFold(n_folds)
        elif y.ndim == 2:  # scikit-learn would not stratify it
            cv = KFold(n_folds) if strata is None else StratifiedKFold(n_folds)
            strata = strata if strata is None else _merge_rare(strata, n_folds)
    splitter = check_cv(cv, y, classifier=is_class)
    samples = np.zeros((len(y), 1))
    return SampleFolds(
        [
            (_rows_of_views(train, n_views), _rows_of_views(test, n_views))
            for train, test in splitter.split(samples, y if strata is None else strata, groups)
        ]
    )


def _class_combinations(y: np.ndarray) -> np.ndarray:
    """Return the index of the class, or combination of classes, of each sample."""
    return np.unique(y, axis=0, return_inverse=True)[1].reshape(len(y))


def _merge_rare(strata: np.ndarray, n_folds: int) -> np.ndarray:
    """Merge the strata with fewer samples than folds into one."""
    is_rare = np.bincount(strata)[strata] < n_folds
    return np.where(is_rare, strata.max() + 1, strata)


def _rows_of_views(samples: np.ndarray, n_views: int) -> np.ndarray:
    """Return the rows of the augmented views of samples."""
    samples = np.asarray(samples)
    if samples.dtype == bool:
        samples = np.flatnonzero(samples)
    return (samples[:, np.newaxis] * n_views + np.arange(n_views)).ravel()
