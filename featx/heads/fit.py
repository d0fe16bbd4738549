"""Heads are trained on embeddings, with weights of samples handed to every part that takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.metadata_routing import (
    MetadataRequest,
    MetadataRouter,
    get_routing_for_object,
)
from sklearn.utils.validation import has_fit_parameter

from featx._threads import blas_threads_for
from featx.exceptions import InputError
from featx.heads.folds import holding_whole_samples_out

_MAX_FLOAT64_BYTES = 2**30
_WEIGHT = "sample_weight"


def as_head_input(embeddings: np.ndarray) -> np.ndarray:
    """Give embeddings the precision in which heads are trained.

    Heads are given float64, in which weighting a sample twice equals repeating it, as
    scikit-learn requires; a matrix over 1 GiB in float64 stays float32.
    """
    if 2 * embeddings.nbytes > _MAX_FLOAT64_BYTES:
        return embeddings
    return embeddings.astype(np.float64)


def takes_sample_weight(head: BaseEstimator) -> bool:
    """Tell whether a head, its last step, or what these are made of can be fitted with weights.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.multiclass import OneVsRestClassifier
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> takes_sample_weight(OneVsRestClassifier(LogisticRegression()))
    True
    >>> takes_sample_weight(OneVsRestClassifier(KNeighborsClassifier()))
    False
    """
    last = _last_step(head)
    if not _hands_on(last):
        return has_fit_parameter(last, _WEIGHT)
    # Named scores and estimators in a grid ask for nothing; self-training gives some samples the
    # weights of all.
    is_deaf = isinstance(last, SelfTrainingClassifier)
    if is_deaf or _has_scoring(last) or _searches_estimators(last):
        return False
    copy = clone(last)
    _request_weights(copy, ["fit"])
    return _asks_for_weights(copy)


def fit_head(head: BaseEstimator, X: np.ndarray, y: Any, *, sample_weight: Any) -> None:
    """Fit a head; where there are weights, each part of it that takes them gets them.

    Raises
    ------
    InputError
        The head merged classes.
    """
    _train(head, "fit", X, y, {} if sample_weight is None else {_WEIGHT: sample_weight})
    known = getattr(head, "classes_", None)
    if np.ndim(y) == 1 and known is not None:
        labels = np.unique(y)
        n_unlabelled = int(labels.dtype.kind == "i" and -1 in labels)  # of semi-supervised heads
        if 0 < len(known) < len(labels) - n_unlabelled:
            raise InputError(
                f"the head {type(head).__name__} has {len(known)} classes after fit, but y has "
                f"{len(labels)}: it merges such labels. Pass others, such as short strings"
            )


def predict(head: BaseEstimator, X: np.ndarray) -> np.ndarray:
    """Return the predictions of a head, shape (n_samples,) or (n_samples, n_outputs).

    Some heads, such as CatBoost's, return a column where scikit-learn's return one dimension.
    """
    predicted = np.asarray(head.predict(X))
    return predicted[:, 0] if predicted.ndim == 2 and predicted.shape[1] == 1 else predicted


def train_further(head: BaseEstimator, X: np.ndarray, y: Any, **params: Any) -> None:
    """Call ``partial_fit`` of a head."""
    _train(head, "partial_fit", X, y, params)


def _train(head: BaseEstimator, method: str, X: np.ndarray, y: Any, params: dict) -> None:
    is_routed = _WEIGHT in params and _hands_on(_last_step(head))
    if is_routed:
        _request_weights(head, ["fit", "partial_fit", "score"])
    elif _WEIGHT in params and isinstance(head, Pipeline):
        weights = params.pop(_WEIGHT)
        weighed = [name for name, step in head.steps if has_fit_parameter(step, _WEIGHT)]
        params |= {f"{name}__{_WEIGHT}": weights for name in weighed}
    # What is said step by step needs no routing, whether or not that is switched on.
    with blas_threads_for(X.nbytes), config_context(enable_metadata_routing=is_routed):
        getattr(head, method)(X, y, **params)


def _last_step(head: BaseEstimator) -> BaseEstimator:
    return head.steps[-1][1] if isinstance(head, Pipeline) else head


def _hands_on(head: BaseEstimator) -> bool:
    """Tell whether a head is made of others, to which metadata routing leads."""
    made_of_others = any(isinstance(part, BaseEstimator) for part in head.get_params().values())
    return made_of_others and _routing_of(head) is not None


def _routing_of(head: BaseEstimator) -> MetadataRouter | MetadataRequest | None:
    try:
        with config_context(enable_metadata_routing=True):
            return get_routing_for_object(head)
    except NotImplementedError:  # some of scikit-learn's own hand nothing on
        return None


def _request_weights(head: BaseEstimator, methods: list[str]) -> None:
    """Let each part of a head ask for weights by metadata routing, unless some part does already.

    The parts are those that take weights in a method of that name.
    """
    if _asks_for_weights(head):
        return
    with config_context(enable_metadata_routing=True):
        for part in [head, *head.get_params().values()]:
            for method in methods if hasattr(part, "get_metadata_routing") else []:
                call = getattr(part, method, None)
                if call is not None and _WEIGHT in signature(call).parameters:
                    getattr(part, f"set_{method}_request")(sample_weight=True)


def _asks_for_weights(head: BaseEstimator) -> bool:
    routing = _routing_of(head)
    return routing is not None and bool(routing.consumes("fit", [_WEIGHT]))


def _searches_estimators(head: BaseEstimator) -> bool:
    """Tell whether a search tries estimators, which ask for nothing, in place of a part."""
    params = head.get_params(deep=False)
    grids = params.get("param_grid", params.get("param_distributions", []))
    grids = [grids] if isinstance(grids, Mapping) else grids
    tried = [values for grid in grids for values in grid.values() if isinstance(values, Iterable)]
    return any(isinstance(value, BaseEstimator) for values in tried for value in values)


def _has_scoring(head: BaseEstimator) -> bool:
    """Tell whether scores are named in a head, whose scorers do not say what they ask for."""
    params = head.get_params()
    return any(
        value is not None
        for name, value in params.items()
        if name == "scoring" or name.endswith("__scoring")
    )


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
