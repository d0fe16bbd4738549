"""Heads by name or as given: made, seeded, and one for each output where they know one only."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC, LinearSVR
from sklearn.utils import get_tags
from sklearn.utils.multiclass import type_of_target

from featx._targets import MAX_EXACT_INT
from featx._validation import did_you_mean
from featx.exceptions import ParameterError
from featx.probes.linear import LinearProbe
from featx.probes.nearest_mean import NearestMeanProbe

_MAX_SOUND = 10_000
# Parameters of heads in which nothing was found; asking scikit-learn takes milliseconds, and a
# search asks for each fold.
_sound: set[Hashable] = set()


def check_head_params(head: BaseEstimator) -> None:
    """Check the parameters of a head before there are embeddings.

    scikit-learn's estimators check them before they look at the samples, of which there are none
    here. Others are not called.

    Raises
    ------
    ParameterError
        Some have faulty values.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> check_head_params(LogisticRegression(C=-1))
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: The 'C' parameter of LogisticRegression must be a float in \
the range (0.0, inf]. Got -1 instead.
    """
    try:
        params = _plain(head)
    except TypeError:
        params = None
    if params in _sound or get_config()["skip_parameter_validation"]:
        return
    parts = [part for part in (head, *head.get_params().values()) if _is_of_scikit_learn(part)]
    faults = [fault for part in parts if (fault := _fault_of(part))]
    if faults:
        raise ParameterError("\n".join(faults), faults)
    if params is not None:
        if len(_sound) >= _MAX_SOUND:
            _sound.clear()
        _sound.add(params)


def _plain(value: Any) -> Hashable:
    """Say in plain, hashable data what decides the verdict; a TypeError tells that it cannot."""
    if value is None or isinstance(value, (str, int, float)):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), *map(_plain, value)
    if _is_of_scikit_learn(value):
        params = value.get_params(deep=False)
        return type(value), *((name, _plain(inner)) for name, inner in params.items())
    raise TypeError(f"{type(value)} is not plain")


def _is_of_scikit_learn(part: Any) -> bool:
    is_estimator = hasattr(part, "fit") and not isinstance(part, type)
    return is_estimator and type(part).__module__.startswith("sklearn.")


def _fault_of(part: BaseEstimator) -> str:
    """Say what is wrong with the parameters of an estimator; an empty string if nothing is."""
    try:
        with warnings.catch_warnings(action="ignore"):
            clone(part).fit(np.empty((0, 1)), np.empty(0))
    except Exception as exc:
        # What scikit-learn raises for a parameter is both, and nothing else is.
        if isinstance(exc, ValueError) and isinstance(exc, TypeError):
            return str(exc)
    return ""


def _scaled(head: BaseEstimator) -> Pipeline:
    return make_pipeline(StandardScaler(), head)


# Nearest neighbours by brute force, because a tree cannot be saved without pickle.
CLASSIFIER_HEADS: dict[str, Callable[[], BaseEstimator]] = {
    "logistic": lambda: _scaled(LogisticRegression(max_iter=1000)),
    "ridge": lambda: _scaled(RidgeClassifier()),
    "svm": lambda: _scaled(LinearSVC(max_iter=10_000)),
    "knn": lambda: KNeighborsClassifier(algorithm="brute", metric="cosine"),
    "nearest_mean": NearestMeanProbe,
    "probe": LinearProbe,
    "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "forest": lambda: RandomForestClassifier(n_estimators=300),
}
REGRESSOR_HEADS: dict[str, Callable[[], BaseEstimator]] = {
    "ridge": lambda: _scaled(Ridge()),
    "svm": lambda: _scaled(LinearSVR(max_iter=10_000)),
    "knn": lambda: KNeighborsRegressor(algorithm="brute", metric="cosine"),
    "forest": lambda: RandomForestRegressor(n_estimators=300),
}


def find_head(head: Any, options: dict[str, Callable[[], BaseEstimator]]) -> BaseEstimator:
    """Find what a head stands for.

    Parameters
    ----------
    head : str or estimator
        A name, or a scikit-learn estimator, which is returned as it is.
    options : dict
        ``CLASSIFIER_HEADS`` or ``REGRESSOR_HEADS``.

    Raises
    ------
    ParameterError
        It is neither; near names are suggested.
    """
    if isinstance(head, str):
        if head not in options:
            raise ParameterError.of(
                "head",
                head,
                f"expected one of {', '.join(map(repr, options))}, or a scikit-learn estimator."
                f"{did_you_mean(head, options)}",
            )
        return options[head]()
    is_head = hasattr(head, "fit") and hasattr(head, "get_params")
    # Some have a method `predict` once they are fitted.
    predicts = hasattr(head, "predict") or (is_head and (is_classifier(head) or is_regressor(head)))
    if isinstance(head, type) or not (is_head and predicts):
        expected = "a name or a scikit-learn estimator, with fit, predict and get_params"
        raise ParameterError.of("head", head, f"expected {expected}")
    return head


def make_head(head: Any, options: dict[str, Callable[[], BaseEstimator]]) -> BaseEstimator:
    """Make a new, unfitted head, from what :func:`find_head` takes.

    Examples
    --------
    >>> make_head("ridge", CLASSIFIER_HEADS)[-1]
    RidgeClassifier()
    """
    found = find_head(head, options)
    try:
        return clone(found)
    except RuntimeError:  # of heads that convert their parameters, as CatBoost its class_weights
        return copy.deepcopy(found)


def seed_head(head: BaseEstimator, random_state: Any) -> None:
    """Give a random state to each part of a head that has none."""
    if random_state is None:
        return
    unseeded = {
        name: random_state
        for name, value in head.get_params().items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    if unseeded:
        head.set_params(**unseeded)


def for_labels(head: BaseEstimator, y: np.ndarray) -> BaseEstimator:
    """Wrap a head that does not take labels as they are, so that it gets class indices.

    XGBoost takes consecutive integers from 0 only, and CatBoost compares integers as floats.

    Parameters
    ----------
    head : estimator
        Not fitted.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)

    Returns
    -------
    estimator
        `head`, or a ``VotingClassifier`` of this single head, which encodes the labels.

    Examples
    --------
    >>> for_labels(LogisticRegression(), np.array(["cat", "dog"]))
    LogisticRegression()
    """
    if not any(_misreads(part, y) for part in (head, *head.get_params().values())):
        return head
    return VotingClassifier([(type(head).__name__.lower(), head)], voting="soft")


def _misreads(part: Any, y: np.ndarray) -> bool:
    """Return True if a classifier of another library refuses or merges labels."""
    names = {cls.__name__ for cls in type(part).__mro__} & {"XGBClassifier", "CatBoostClassifier"}
    if y.ndim == 2:  # scikit-learn stacks the predictions of the outputs, which must not be columns
        return bool(names) and type_of_target(y) == "multiclass-multioutput"
    if "XGBClassifier" in names:
        classes = np.unique(y)
        return y.dtype.kind not in "iu" or not np.array_equal(classes, np.arange(len(classes)))
    if "CatBoostClassifier" in names and y.dtype.kind in "iu":
        return bool((y > MAX_EXACT_INT).any() or (y < -MAX_EXACT_INT).any())
    return False


def for_outputs(head: BaseEstimator, y: np.ndarray) -> BaseEstimator:
    """Give a head that knows one output only one copy of itself for each column of `y`.

    Parameters
    ----------
    head : estimator
        Not fitted.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)

    Returns
    -------
    estimator
        `head`, its last step in a ``OneVsRestClassifier`` for several labels, or in a
        ``MultiOutputClassifier`` or ``MultiOutputRegressor`` where it has to be.

    Examples
    --------
    >>> for_outputs(make_head("logistic", CLASSIFIER_HEADS), np.array([[0, 1], [1, 1]]))[-1]
    OneVsRestClassifier(estimator=LogisticRegression(max_iter=1000))
    >>> for_outputs(make_head("ridge", CLASSIFIER_HEADS), np.array([[0, 1], [1, 1]]))[-1]
    RidgeClassifier()
    """
    if np.ndim(y) != 2:
        return head
    is_search = {"refit", "estimator"} <= head.get_params(deep=False).keys()
    tags = get_tags(head.estimator if is_search else head)
    is_able, wrap = tags.target_tags.multi_output, MultiOutputRegressor
    if is_classifier(head) and type_of_target(y) == "multilabel-indicator":
        is_able |= tags.classifier_tags.multi_label
        wrap = OneVsRestClassifier
    elif is_classifier(head):
        wrap = MultiOutputClassifier
    if is_able:
        return head
    if isinstance(head, Pipeline):
        *others, (name, last) = head.steps
        return Pipeline([*others, (name, wrap(last))])
    return wrap(head)
