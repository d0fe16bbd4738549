"""InitialHead: the requested head, and the linear one from which Keras starts.

After training, the fine-tuned model is compared with the requested head on the validation samples,
by the one-standard-error rule of Breiman et al. (1984), "Classification and Regression Trees",
section 3.4.3: the head is kept unless the gain exceeds its standard error.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx._training_data import Data
from featx.exceptions import InputError
from featx.finetune.objective import make_objective
from featx.finetune.params import FineTune
from featx.heads.fit import as_head_input, fit_on_views, predict, takes_sample_weight
from featx.heads.linear_map import LinearMap, can_take_back, handover_gap, linear_map

_LARGEST_GAP = 1e-5
_SMALLEST_LOSS_GAIN = 0.01  # as a fraction of the loss


class InitialHead:
    """Heads fitted on the training part and scored on the validation part.

    `features` are float32 embeddings as the trained model computes them, so that head and model do
    not differ by the rounding of another engine or of stored activations. `data` is split, without
    `X`.

    Attributes
    ----------
    requested : estimator
        Head that the caller passed.
    score : float
        Validation score of the requested head, accuracy or R²; NaN without validation samples.
    head : estimator
        Head from which training starts: the requested one, if it is linear, or another.
    linear : LinearMap
        Affine map of that head.
    """

    def __init__(
        self,
        new_head: Callable[[], BaseEstimator],
        params: FineTune,
        data: Data,
        features: np.ndarray,
    ) -> None:
        self._new_head, self.data = new_head, data
        self.embeddings = as_head_input(features)
        self.requested = self._fit(new_head(), self.embeddings, data.train)
        self.score = self._score(self.requested) if len(data.validation) else np.nan
        self.head, self.linear = self._linear_head()
        classes = getattr(self.head, "classes_", None)
        self.objective = make_objective(params, data, classes=classes, linear=self.linear)

    def score_with(self, rows: np.ndarray) -> float:
        """Return the validation score of a head fitted on some samples; ValueError if too few."""
        return self._score(self._fit(self._new_head(), self.embeddings, rows))

    def fit_on_all(self, embeddings: np.ndarray) -> BaseEstimator:
        """Fit a new head on the extractor's embeddings of all samples."""
        return self._fit(self._new_head(), embeddings, np.arange(len(embeddings)))

    def tuned_model_is_better(self, scores: np.ndarray, first: np.ndarray) -> bool:
        """Return whether the trained model is clearly better than the requested head.

        It is better if it predicts more samples right, or as many with a loss that is lower by at
        least a hundredth. The loss is compared with that of the calibrated head, since a change of
        confidence alone needs no training. The model's validation scores, now and before the first
        step, are in units of the targets.
        """
        objective, rows = self.objective, self.data.validation
        weights = objective.sample_weight[rows]
        gains = objective.merits(scores, rows) - self._merits_of_requested()
        if is_clearly_positive(gains, weights):
            return True
        if objective.classes is None or self.head is not self.requested:
            return False
        before = objective.losses(objective.calibrated(first, rows), rows)
        loss_gains = before - objective.losses(scores, rows)
        is_large = weights @ loss_gains >= _SMALLEST_LOSS_GAIN * (weights @ before)
        return bool(weights @ gains >= 0 and is_large) and is_clearly_positive(loss_gains, weights)

    def handover_gap(self, scores: np.ndarray) -> float:
        """Return the gap between the head and Keras' validation scores, in units of the targets."""
        scores = scores * self.objective.spread + self.objective.center
        return handover_gap(scores, self.head, self.embeddings[self.data.validation], self.linear)

    def _merits_of_requested(self) -> np.ndarray:
        """Return what :meth:`Objective.merits` returns, for predictions of the requested head."""
        objective, rows = self.objective, self.data.validation
        predicted = np.asarray(predict(self.requested, self.embeddings[rows]))
        if objective.classes is None:
            values = predicted.reshape(len(rows), -1)
            return objective.merits((values - objective.center) / objective.spread, rows)
        is_right = predicted == self.data.y[rows]
        return is_right.reshape(len(rows), -1).all(axis=1).astype(float)

    def _fit(self, head: BaseEstimator, embeddings: np.ndarray, rows: np.ndarray) -> BaseEstimator:
        weights, groups = self.data.sample_weight, self.data.groups
        if weights is not None:
            weights = weights[rows] if takes_sample_weight(head) else None
        fit_on_views(
            head,
            embeddings[rows, np.newaxis],
            self.data.y[rows],
            sample_weight=weights,
            groups=None if groups is None else groups[rows],
        )
        return head

    def _score(self, head: BaseEstimator) -> float:
        rows, weights = self.data.validation, self.data.sample_weight
        # Not the head's own ``score``, which in a search follows `scoring`.
        score = accuracy_score if is_classifier(head) else r2_score
        predicted = predict(head, self.embeddings[rows])
        given = None if weights is None else weights[rows]
        return float(score(self.data.y[rows], predicted, sample_weight=given))

    def _linear_head(self) -> tuple[BaseEstimator, LinearMap]:
        """Return the requested head, if Keras can start from it, or a linear one in its place."""
        requested, train = self.requested, self.embeddings[self.data.train]
        linear = linear_map(requested, train)
        if (
            linear
            and _is_exact_handover(requested, linear, train)
            and can_take_back(requested, linear, train)
        ):
            return requested, linear
        model = LogisticRegression(max_iter=1000) if is_classifier(requested) else Ridge()
        if is_classifier(requested) and np.ndim(self.data.y) == 2:
            model = OneVsRestClassifier(model)
        head = self._fit(make_pipeline(StandardScaler(), model), self.embeddings, self.data.train)
        linear = linear_map(head, train)
        if linear is None:
            raise InputError(f"{head} cannot separate the labels: is one of them constant?")
        return head, linear


def is_clearly_positive(gains: np.ndarray, weights: np.ndarray) -> bool:
    """Return whether a weighted mean exceeds zero by more than its standard error.

    Examples
    --------
    >>> is_clearly_positive(np.array([0.0, 1, 0, 0, 1, 0, 0, 0, 0, 0]), np.ones(10))
    True
    >>> is_clearly_positive(np.array([0.0, 0, 0, 0, 1, 0, 0, 0, 0, 0]), np.ones(10))
    False
    """
    n_samples = np.count_nonzero(weights)
    if n_samples < 2:
        return False
    gain = np.average(gains, weights=weights)
    error = np.sqrt((weights**2 * (gains - gain) ** 2).sum()) / weights.sum()
    error *= np.sqrt(n_samples / (n_samples - 1))
    return bool(gain > error * (1 + 1e-9))  # with a gain in one sample only, both are equal


def _is_exact_handover(head: BaseEstimator, linear: LinearMap, embeddings: np.ndarray) -> bool:
    scaling, dense = linear.layers()
    scores = dense(scaling(embeddings.astype(np.float32)))
    computed = keras.ops.convert_to_numpy(scores)
    return handover_gap(computed, head, embeddings, linear) <= _LARGEST_GAP
