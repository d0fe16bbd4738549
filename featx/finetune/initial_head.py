"""The heads that are there before training: the one to beat, and the one that Keras starts from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx._training_data import Data
from featx.exceptions import InputError
from featx.finetune.objective import Objective, is_clearly_positive, make_objective
from featx.finetune.params import FineTune
from featx.heads.fit import as_head_input, fit_on_views, predict, takes_sample_weight
from featx.heads.linear_map import LinearMap, can_take_back, handover_gap, linear_map

_LARGEST_GAP = 1e-5
_LEAST_SAVED = 0.01  # of the loss


class InitialHead:
    """Heads fitted on the training part, judged on what is held out.

    Parameters
    ----------
    new_head : callable
        Makes an unfitted head.
    params : FineTune
    data : Data
        Split, without `X`.
    features : ndarray of shape (n_samples, n_features), float32
        The embeddings as the model to be trained computes them, so that not even the rounding of
        another engine, or of stored activations, is between the two.

    Attributes
    ----------
    train, held : ndarray of int64, increasing
        Samples to train on and to judge by.
    embeddings : ndarray of shape (n_samples, n_features)
    asked_for : estimator
        The head that was asked for.
    head_score : float
        Of that head, on what is held out: accuracy, or R². NaN if nothing is.
    head : estimator
        From which training starts: that head if Keras can compute it, or a linear one.
    linear : LinearMap
        The same, for Keras.
    objective : Objective
    """

    def __init__(
        self,
        new_head: Callable[[], BaseEstimator],
        params: FineTune,
        data: Data,
        features: np.ndarray,
    ) -> None:
        self._new_head, self._data = new_head, data
        self.train, self.held = data.train, data.held
        self.embeddings = as_head_input(features)
        self.asked_for = self._fit(new_head(), self.embeddings, self.train)
        self.head_score = self._score(self.asked_for) if len(self.held) else np.nan
        self.head, self.linear = self._starting_head(self.asked_for)
        self.objective: Objective = make_objective(
            data.y,
            classes=getattr(self.head, "classes_", None),
            link=self.linear.link,
            n_scores=self.linear.n_scores,
            sample_weight=data.sample_weight,
            class_weight=params.class_weight,
            loss=params.loss,
            taught=data.taught,
            temperature=params.temperature,
        )

    def score_with(self, rows: np.ndarray) -> float:
        """Judge a head that is fitted on some of the samples only.

        Raises
        ------
        ValueError
            They are too few.
        """
        return self._score(self._fit(self._new_head(), self.embeddings, rows))

    def head_on_all(self, embeddings: np.ndarray) -> BaseEstimator:
        """Fit the head on the embeddings, as the extractor gives them, of all samples."""
        return self._fit(self._new_head(), embeddings, np.arange(len(embeddings)))

    def is_beaten_by(self, scores: np.ndarray, first: np.ndarray) -> bool:
        """Tell whether Keras' scores of what is held out are clearly better than the head.

        In what they get right; or, where they get as much right, in their loss, which tells sooner:
        it is to be lower by a hundredth at least, and lower than that of the head at its best
        temperature, since a head that is only more or less sure of the same does not need training.

        Parameters
        ----------
        scores, first : ndarray of shape (n_held, n_scores)
            Now, and before the first step; in units of the targets.
        """
        objective, held = self.objective, self.held
        predicted = predict(self.asked_for, self.embeddings[held])
        if objective.classes is None:
            in_units = predicted.reshape(len(held), -1) - objective.center
            merits = objective.merits(in_units / objective.spread, held)
        else:
            right = np.asarray(predicted) == self._data.y[held]
            merits = right.reshape(len(held), -1).all(axis=1).astype(float)
        weights = objective.weights_of_score[held]
        gains = objective.merits(scores, held) - merits
        if is_clearly_positive(gains, weights):
            return True
        if objective.classes is None or self.head is not self.asked_for:
            return False
        before = objective.losses(objective.calibrated(first, held), held)
        saved = before - objective.losses(scores, held)
        is_worth_it = weights @ gains >= 0 and weights @ saved >= _LEAST_SAVED * (weights @ before)
        return bool(is_worth_it) and is_clearly_positive(saved, weights)

    def handover_gap(self, scores: np.ndarray) -> float:
        """Measure how far Keras' scores of what is held out are from those of the head.

        Parameters
        ----------
        scores : ndarray of shape (n_held, n_scores)
            In units of the targets.
        """
        scores = scores * self.objective.spread + self.objective.center
        return handover_gap(scores, self.head, self.embeddings[self.held], self.linear)

    def _fit(self, head: BaseEstimator, embeddings: np.ndarray, rows: np.ndarray) -> BaseEstimator:
        weights, groups = self._data.sample_weight, self._data.groups
        if weights is not None:
            weights = weights[rows] if takes_sample_weight(head) else None
        fit_on_views(
            head,
            embeddings[rows, np.newaxis],
            self._data.y[rows],
            sample_weight=weights,
            groups=None if groups is None else groups[rows],
        )
        return head

    def _score(self, head: BaseEstimator) -> float:
        held, weights = self.held, self._data.sample_weight
        # Not the head's own ``score``, which a search makes what its `scoring` says.
        score = accuracy_score if is_classifier(head) else r2_score
        predicted = predict(head, self.embeddings[held])
        given = None if weights is None else weights[held]
        return float(score(self._data.y[held], predicted, sample_weight=given))

    def _starting_head(self, asked_for: BaseEstimator) -> tuple[BaseEstimator, LinearMap]:
        train = self.embeddings[self.train]
        linear = linear_map(asked_for, train)
        if (
            linear
            and _is_exact(asked_for, linear, train)
            and can_take_back(asked_for, linear, train)
        ):
            return asked_for, linear
        probe = LogisticRegression(max_iter=1000) if is_classifier(asked_for) else Ridge()
        if is_classifier(asked_for) and np.ndim(self._data.y) == 2:
            probe = OneVsRestClassifier(probe)
        head = self._fit(make_pipeline(StandardScaler(), probe), self.embeddings, self.train)
        linear = linear_map(head, train)
        if linear is None:
            raise InputError(f"the labels cannot be told apart by {head}: is one of them constant?")
        return head, linear


def _is_exact(head: BaseEstimator, linear: LinearMap, embeddings: np.ndarray) -> bool:
    import keras

    scaling, dense = linear.layers()
    scores = dense(scaling(embeddings.astype(np.float32)))
    computed = keras.ops.convert_to_numpy(scores)
    return handover_gap(computed, head, embeddings, linear) <= _LARGEST_GAP
