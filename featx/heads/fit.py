"""``fit_head``, ``fit_on_views``, ``predict``: heads fitted on embeddings, and their predictions.

Sample weights reach every part of a head that takes them: the steps of a pipeline by their names,
the parts of other meta-estimators by scikit-learn's metadata routing.
"""

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
from featx.heads.folds import keeping_samples_together

_WEIGHT = "sample_weight"


def as_head_input(embeddings: np.ndarray, *, max_bytes: int = 2**30) -> np.ndarray:
    """Return float32 embeddings as float64, unless they would take more than 1 GiB.

    In float64, a sample of weight 2 equals two samples, as scikit-learn requires.
    """
    if 2 * embeddings.nbytes > max_bytes:
        return embeddings
    return embeddings.astype(np.float64)


def takes_sample_weight(head: BaseEstimator) -> bool:
    """Return True if the last step of a head, or a part of it, can be fitted with weights.

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
    last = _last_step_of_head(head)
    if not _routes_to_parts(last):
        return has_fit_parameter(last, _WEIGHT)
    # Named scores and estimators in a grid request nothing; self-training passes the weights of all
    # samples to a fit on some.
    is_self_training = isinstance(last, SelfTrainingClassifier)
    if is_self_training or _has_scoring(last) or _searches_estimators(last):
        return False
    copy = clone(last)
    _request_weights(copy, ["fit"])
    return _requests_weights(copy)


def fit_head(head: BaseEstimator, X: np.ndarray, y: Any, *, sample_weight: Any) -> None:
    """Fit a head, and pass weights, if there are any, to each part that takes them.

    Raises
    ------
    InputError
        The head has fewer classes than `y`.
    """
    _train_head(head, "fit", X, y, {} if sample_weight is None else {_WEIGHT: sample_weight})
    known = getattr(head, "classes_", None)
    if np.ndim(y) == 1 and known is not None:
        labels = np.unique(y)
        n_unlabeled = int(labels.dtype.kind == "i" and -1 in labels)  # of semi-supervised heads
        if 0 < len(known) < len(labels) - n_unlabeled:
            raise InputError(
                f"the head {type(head).__name__} has {len(known)} classes after fit, but y has "
                f"{len(labels)}: it merges labels of this kind. Pass others, such as short strings"
            )


def predict(head: BaseEstimator, X: np.ndarray) -> np.ndarray:
    """Return the predictions of a head, shape (n_samples,) or (n_samples, n_outputs).

    Some heads, such as CatBoost's, predict a column where scikit-learn's predict one dimension.
    """
    predicted = np.asarray(head.predict(X))
    return predicted[:, 0] if predicted.ndim == 2 and predicted.shape[1] == 1 else predicted


def train_further(head: BaseEstimator, X: np.ndarray, y: Any, **params: Any) -> None:
    """Call ``partial_fit`` of a head."""
    _train_head(head, "partial_fit", X, y, params)


def _train_head(head: BaseEstimator, method: str, X: np.ndarray, y: Any, params: dict) -> None:
    is_routed = _WEIGHT in params and _routes_to_parts(_last_step_of_head(head))
    if is_routed:
        _request_weights(head, ["fit", "partial_fit", "score"])
    elif _WEIGHT in params and isinstance(head, Pipeline):
        weights = params.pop(_WEIGHT)
        weighed = [name for name, step in head.steps if has_fit_parameter(step, _WEIGHT)]
        params |= {f"{name}__{_WEIGHT}": weights for name in weighed}
    # Weights for named steps need no routing, even if the caller has enabled it.
    with blas_threads_for(X.nbytes), config_context(enable_metadata_routing=is_routed):
        getattr(head, method)(X, y, **params)


def _last_step_of_head(head: BaseEstimator) -> BaseEstimator:
    return head.steps[-1][1] if isinstance(head, Pipeline) else head


def _routes_to_parts(head: BaseEstimator) -> bool:
    """Return True if a head routes metadata to estimators that are its parts."""
    has_parts = any(isinstance(part, BaseEstimator) for part in head.get_params().values())
    return has_parts and _metadata_routing(head) is not None


def _metadata_routing(head: BaseEstimator) -> MetadataRouter | MetadataRequest | None:
    try:
        with config_context(enable_metadata_routing=True):
            return get_routing_for_object(head)
    except NotImplementedError:  # of some estimators of scikit-learn
        return None


def _request_weights(head: BaseEstimator, methods: list[str]) -> None:
    """Make each part request weights for methods that take them, unless a part already does."""
    if _requests_weights(head):
        return
    with config_context(enable_metadata_routing=True):
        for part in [head, *head.get_params().values()]:
            for method in methods if hasattr(part, "get_metadata_routing") else []:
                call = getattr(part, method, None)
                if call is not None and _WEIGHT in signature(call).parameters:
                    getattr(part, f"set_{method}_request")(sample_weight=True)


def _requests_weights(head: BaseEstimator) -> bool:
    routing = _metadata_routing(head)
    return routing is not None and bool(routing.consumes("fit", [_WEIGHT]))


def _searches_estimators(head: BaseEstimator) -> bool:
    """Return True if a search tries estimators as parts, which would not request weights."""
    params = head.get_params(deep=False)
    grids = params.get("param_grid", params.get("param_distributions", []))
    grids = [grids] if isinstance(grids, Mapping) else grids
    tried = [values for grid in grids for values in grid.values() if isinstance(values, Iterable)]
    return any(isinstance(value, BaseEstimator) for values in tried for value in values)


def _has_scoring(head: BaseEstimator) -> bool:
    """Return True if a head has scores by name, whose scorers do not request weights."""
    params = head.get_params()
    return any(
        value is not None
        for name, value in params.items()
        if name == "scoring" or name.endswith("__scoring")
    )


def views_as_rows(views: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return augmented views (n_samples, n_views, n_features) as rows for a head, float64.

    The result has shape (n_samples * n_views, n_features), sample by sample. The entries of other
    arrays, one per sample, are repeated to match.

    Examples
    --------
    >>> rows, labels = views_as_rows(np.zeros((2, 3, 400), np.float32), np.array([0, 1]))
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
    """Fit a head on all augmented views (n_samples, n_views, n_features) of samples, float32.

    If the head cross-validates, its folds keep the views of a sample and the samples of a group
    together.
    """
    n_views = views.shape[1]
    rows, labels = views_as_rows(views, y)
    del views  # often a part of all views that nothing else needs, as large as half of the rows
    weights = None if sample_weight is None else np.repeat(sample_weight, n_views)
    with keeping_samples_together(head, y, groups, n_views):
        fit_head(head, rows, labels, sample_weight=weights)
