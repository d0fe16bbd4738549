"""LinearMap: a linear head as Keras layers, and trained Keras layers as a scikit-learn head.

A head is tested for linearity by its scores, not by a list of classes: the scores at the mean of
the embeddings, and one step away along each feature, define an affine map. If the scores of real
embeddings agree with the map, the head is linear, whatever scalers, projections or searches it
consists of. The map is centered at the mean, in units of each feature's spread, since a ``Dense``
on raw embeddings loses digits if a mean is large compared with the spread.

Fine-tuning starts from these layers, as in Kumar et al. (2022), "Fine-Tuning can Distort Pretrained
Features and Underperform Out-of-Distribution" (arXiv 2202.10054).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, is_classifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

if TYPE_CHECKING:
    import keras

_ROWS_AT_ONCE = 512
_TOLERANCE = 1e-7
_SMALLEST_SPREAD = 1e-6  # Keras divides by 1e-7 at least


@dataclass(frozen=True, eq=False)
class LinearMap:
    """Scores as an affine map of embeddings: ``(x - mean) / spread @ kernel + bias``, in float64.

    The link from scores to probabilities is "softmax", "sigmoid" (several scores are several
    labels), "normalized sigmoid", or None if the head has no probabilities.
    """

    mean: np.ndarray  # (n_features,)
    spread: np.ndarray  # (n_features,)
    kernel: np.ndarray  # (n_features, n_scores)
    bias: np.ndarray  # (n_scores,)
    link: str | None

    @property
    def n_scores(self) -> int:
        """Number of scores of a sample: one for two classes."""
        return len(self.bias)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the scores of embeddings, (n_samples, n_scores) float64."""
        return (embeddings - self.mean) / self.spread @ self.kernel + self.bias

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Return the probabilities, (n_samples, n_classes), of scores (n_samples, n_scores)."""
        if self.link == "softmax":
            return softmax(scores, axis=1)
        proba = expit(scores)
        if self.n_scores == 1:
            return np.hstack([1 - proba, proba])
        if self.link == "sigmoid":
            return proba
        return proba / proba.sum(axis=1, keepdims=True)

    def layers(self, taken: Iterable[str] = ()) -> tuple[keras.layers.Layer, keras.layers.Dense]:
        """Make the layers that compute the scores in float32; their names are not in `taken`."""
        import keras

        name = "head"
        while {name, f"{name}_scaling"} & set(taken):
            name = f"{name}_"
        mean, variance = self.mean.astype(np.float32), (self.spread**2).astype(np.float32)
        scaling = keras.layers.Normalization(
            mean=mean, variance=variance, dtype="float32", name=f"{name}_scaling"
        )
        dense = keras.layers.Dense(self.n_scores, dtype="float32", name=name)
        scaling.build((None, len(mean)))
        dense.build((None, len(mean)))
        dense.set_weights([self.kernel.astype(np.float32), self.bias.astype(np.float32)])
        return scaling, dense


def linear_map(head: BaseEstimator, embeddings: np.ndarray) -> LinearMap | None:
    """Return the affine map of a head fitted on these embeddings; None if it is not linear."""
    if is_classifier(head) and not hasattr(head, "decision_function"):
        return None
    if is_classifier(head) and not isinstance(head.classes_, np.ndarray):
        return None  # several outputs
    embeddings = np.asarray(embeddings, np.float64)
    # Keras subtracts and divides by float32 numbers, so the map is centered at such numbers.
    mean = embeddings.mean(axis=0).astype(np.float32).astype(np.float64)
    spread = embeddings.std(axis=0).astype(np.float32).astype(np.float64)
    spread[spread < _SMALLEST_SPREAD] = 1.0
    bias = _scores_of_head(head, mean[np.newaxis])[0]
    kernel = np.empty((len(mean), len(bias)))
    for start in range(0, len(mean), _ROWS_AT_ONCE):
        steps = slice(start, start + _ROWS_AT_ONCE)
        n_steps = len(mean[steps])
        probes = np.repeat(mean[np.newaxis], n_steps, axis=0)
        probes[np.arange(n_steps), np.arange(start, start + n_steps)] += spread[steps]
        kernel[steps] = _scores_of_head(head, probes) - bias
    checked = embeddings[:_ROWS_AT_ONCE]
    found = LinearMap(mean, spread, kernel, bias, None)
    expected = _scores_of_head(head, checked)
    if not _are_close_scores(found.scores(checked), expected):
        return None
    if not hasattr(head, "predict_proba"):
        return found
    probabilities = head.predict_proba(checked)
    for link in ("softmax", "normalized sigmoid", "sigmoid"):
        linked = replace(found, link="sigmoid" if found.n_scores == 1 else link)
        if _are_close_scores(linked.probabilities(expected), probabilities):
            return linked
    return None


def _scores_of_head(head: BaseEstimator, embeddings: np.ndarray) -> np.ndarray:
    """Return decision values or predictions of a head, (n_samples, n_scores)."""
    method = head.decision_function if is_classifier(head) else head.predict
    scores = np.asarray(method(embeddings), np.float64)
    return scores.reshape(len(embeddings), -1)


def handover_gap(
    scores: np.ndarray, head: BaseEstimator, embeddings: np.ndarray, linear: LinearMap
) -> float:
    """Return the largest difference between Keras' scores and those of a head.

    The difference is relative to the largest score, or to 1 if that is larger. If the largest
    difference between probabilities is larger, it is returned instead.
    """
    expected = _scores_of_head(head, embeddings)
    gap = np.abs(scores - expected).max() / max(1.0, np.abs(expected).max())
    if linear.link:
        computed = linear.probabilities(np.asarray(scores, np.float64))
        gap = max(gap, np.abs(computed - head.predict_proba(embeddings)).max())
    return float(gap)


def head_from_linear_map(linear: LinearMap, head: BaseEstimator) -> BaseEstimator:
    """Make a scikit-learn head that computes the scores of a map.

    It is a ``StandardScaler`` with mean and spread of the map, and the last step of `head`, the
    fitted head from which training started, with the coefficients of the map.
    """
    name, last = _last_fitted_step(head)
    last = copy.deepcopy(last)
    if isinstance(last, OneVsRestClassifier):
        for number, part in enumerate(last.estimators_):
            part.coef_ = linear.kernel[:, [number]].T.copy()
            part.intercept_ = linear.bias[[number]]
            part.n_features_in_ = len(linear.mean)
    else:
        is_flat = not is_classifier(last) and np.ndim(last.coef_) == 1
        last.coef_ = linear.kernel[:, 0].copy() if is_flat else linear.kernel.T.copy()
        last.intercept_ = float(linear.bias[0]) if is_flat else linear.bias.copy()
    last.n_features_in_ = len(linear.mean)
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.var_ = linear.mean, linear.spread, linear.spread**2
    scaler.n_features_in_, scaler.n_samples_seen_ = len(linear.mean), 1
    return Pipeline([("standardscaler", scaler), (name, last)])


def can_take_back(head: BaseEstimator, linear: LinearMap, embeddings: np.ndarray) -> bool:
    """Return True if :func:`head_from_linear_map` can give a head the coefficients of a map."""
    last = _last_fitted_step(head)[1]
    parts = last.estimators_ if isinstance(last, OneVsRestClassifier) else [last]
    if not all({"coef_", "intercept_"} <= vars(part).keys() for part in parts):
        return False
    checked = embeddings[:_ROWS_AT_ONCE]
    return _are_close_scores(
        _scores_of_head(head_from_linear_map(linear, head), checked), linear.scores(checked)
    )


def _last_fitted_step(head: BaseEstimator) -> tuple[str, BaseEstimator]:
    name = type(head).__name__.lower()
    while True:
        if hasattr(head, "best_estimator_"):
            head = head.best_estimator_
        elif isinstance(head, Pipeline):
            name, head = head.steps[-1]
        else:
            return name, head


def _are_close_scores(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(
        np.abs(a - b).max() <= _TOLERANCE * max(1.0, np.abs(b).max())
    )
