"""Heads by name (``make_head``) or as scikit-learn estimators: checked, seeded and wrapped.

A new name is a line in a table. A head that misreads labels is wrapped so that it gets class
indices, and a head that supports one output so that each output has a copy.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
from sklearn import get_config
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
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


def _head_after_scaler(head: BaseEstimator) -> Pipeline:
    return make_pipeline(StandardScaler(), head)


# Nearest neighbors by brute force, since a tree cannot be saved without pickle. Ridge regression
# centers the copy that the scaler made, instead of one more.
CLASSIFIER_HEADS: dict[str, Callable[[], BaseEstimator]] = {
    "logistic": lambda: _head_after_scaler(LogisticRegression(max_iter=1000)),
    "ridge": lambda: _head_after_scaler(RidgeClassifier(copy_X=False)),
    "svm": lambda: _head_after_scaler(LinearSVC(max_iter=10_000)),
    "knn": lambda: KNeighborsClassifier(algorithm="brute", metric="cosine"),
    "nearest_mean": NearestMeanProbe,
    "probe": LinearProbe,
    "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    "forest": lambda: RandomForestClassifier(n_estimators=300),
}
REGRESSOR_HEADS: dict[str, Callable[[], BaseEstimator]] = {
    "ridge": lambda: _head_after_scaler(Ridge(copy_X=False)),
    "svm": lambda: _head_after_scaler(LinearSVR(max_iter=10_000)),
    "knn": lambda: KNeighborsRegressor(algorithm="brute", metric="cosine"),
    "forest": lambda: RandomForestRegressor(n_estimators=300),
}


def find_head(head: Any, options: dict[str, Callable[[], BaseEstimator]]) -> BaseEstimator:
    """Return the head that has a name in `options`; an estimator is returned unchanged.

    A ParameterError suggests similar names.
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
    # Some heads have a method `predict` only once they are fitted.
    predicts = hasattr(head, "predict") or (is_head and (is_classifier(head) or is_regressor(head)))
    if isinstance(head, type) or not (is_head and predicts):
        expected = "a name or a scikit-learn estimator, with fit, predict and get_params"
        raise ParameterError.of("head", head, f"expected {expected}")
    return head


def make_head(head: Any, options: dict[str, Callable[[], BaseEstimator]]) -> BaseEstimator:
    """Return a new, unfitted copy of the head that :func:`find_head` returns.

    Examples
    --------
    >>> make_head("ridge", CLASSIFIER_HEADS)[-1]
    RidgeClassifier(copy_X=False)
    """
    found = find_head(head, options)
    try:
        return clone(found)
    except RuntimeError:  # of heads that convert parameters, as CatBoost does class_weights
        return copy.deepcopy(found)


def calibrated_head(name: str) -> CalibratedClassifierCV:
    """Return the classifier that has a name, with probabilities calibrated on held-out folds.

    One temperature scales the scores of all classes (Guo et al. 2017, "On Calibration of Modern
    Neural Networks"). scikit-learn before 1.8 has no temperature; a sigmoid for each class
    (Platt 1999) takes its place. The head itself is fitted on all samples.

    Examples
    --------
    >>> calibrated_head("ridge").estimator[-1]
    RidgeClassifier(copy_X=False)
    """
    version = tuple(map(int, sklearn.__version__.split(".")[:2]))
    method = "temperature" if version >= (1, 8) else "sigmoid"
    return CalibratedClassifierCV(make_head(name, CLASSIFIER_HEADS), method=method, ensemble=False)


def check_head_params(head: BaseEstimator) -> None:
    """Check the parameters of a head before there are embeddings.

    scikit-learn's estimators check their parameters before the samples, so they are fitted on no
    samples. Estimators of other libraries are not called.

    Raises
    ------
    ParameterError
        Some parameters have faulty values.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> check_head_params(LogisticRegression(C=-1))
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: The 'C' parameter of LogisticRegression must be a float in \
the range (0.0, inf]. Got -1 instead.
    """
    if get_config()["skip_parameter_validation"]:
        return
    parts = [part for part in (head, *head.get_params().values()) if _is_of_scikit_learn(part)]
    faults = [fault for part in parts if (fault := _head_params_fault(part))]
    if faults:
        raise ParameterError("\n".join(faults), faults)


def _is_of_scikit_learn(part: Any) -> bool:
    is_estimator = hasattr(part, "fit") and not isinstance(part, type)
    return is_estimator and type(part).__module__.startswith("sklearn.")


def _head_params_fault(part: BaseEstimator) -> str:
    """Return scikit-learn's message on an estimator's parameters; empty if they are sound."""
    try:
        with warnings.catch_warnings(action="ignore"):
            clone(part).fit(np.empty((0, 1)), np.empty(0))
    except Exception as exc:
        # Only the error for a parameter is of both types.
        if isinstance(exc, ValueError) and isinstance(exc, TypeError):
            return str(exc)
    return ""


def seed_head(head: BaseEstimator, random_state: Any) -> None:
    """Set the random state of each part of a head whose own is None."""
    if random_state is None:
        return
    unseeded = {
        name: random_state
        for name, value in head.get_params().items()
        if value is None and (name == "random_state" or name.endswith("__random_state"))
    }
    if unseeded:
        head.set_params(**unseeded)


def head_for_labels(head: BaseEstimator, y: np.ndarray) -> BaseEstimator:
    """Wrap a head that does not support labels of this kind, so that it gets class indices.

    XGBoost takes only consecutive integers from 0, and CatBoost compares integers as floats. Such a
    head is wrapped in a ``VotingClassifier`` of one classifier, which encodes the labels.

    Examples
    --------
    >>> head_for_labels(LogisticRegression(), np.array(["cat", "dog"]))
    LogisticRegression()
    """
    if not any(_misreads_labels(part, y) for part in (head, *head.get_params().values())):
        return head
    return VotingClassifier([(type(head).__name__.lower(), head)], voting="soft")


def _misreads_labels(part: Any, y: np.ndarray) -> bool:
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


def head_for_outputs(head: BaseEstimator, y: np.ndarray) -> BaseEstimator:
    """Wrap a head that supports only one output, so that each column of `y` has a copy.

    The head, or its last step, is wrapped in a ``OneVsRestClassifier`` for several labels, else in
    a ``MultiOutputClassifier`` or ``MultiOutputRegressor``.

    Examples
    --------
    >>> head_for_outputs(make_head("logistic", CLASSIFIER_HEADS), np.array([[0, 1], [1, 1]]))[-1]
    OneVsRestClassifier(estimator=LogisticRegression(max_iter=1000))
    >>> head_for_outputs(make_head("ridge", CLASSIFIER_HEADS), np.array([[0, 1], [1, 1]]))[-1]
    RidgeClassifier(copy_X=False)
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
