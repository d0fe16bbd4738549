"""Objective: the targets, the loss and the validation score of a training.

The head decides the loss: cross-entropy if it has probabilities, squared hinge if it has scores
only, mean squared error for regressors. Their targets are standardized, so that one learning rate
suits them all. The score is accuracy or R², as for the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_sample_weight

from featx._training_data import Data
from featx._validation import ParameterFaults
from featx.exceptions import ParameterError
from featx.finetune.params import FineTune
from featx.heads.linear_map import LinearMap

_SMALLEST_PROBABILITY = 1e-12
_TEMPERATURE = 2.0  # of distillation
_CLASSIFIER_LOSSES = ("cross_entropy", "binary_cross_entropy", "squared_hinge")
_LOSS_OF_LINK = {
    "softmax": "cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "normalized sigmoid": "binary_cross_entropy",
    None: "squared_hinge",
}


def check_objective(params: FineTune, y: np.ndarray, *, is_classifier: bool) -> None:
    """Raise a ParameterError if loss or class weights do not suit the labels or values."""
    faults = ParameterFaults("FineTune")
    loss, weight = params.loss, params.class_weight
    if not is_classifier:
        faults.check_option("loss", loss, ("auto", "mse", "huber"))
        if weight is not None:
            faults.add("class_weight", weight, "None for a regressor.")
        faults.raise_any()
        return
    options = ["auto", "squared_hinge"]
    options += ["binary_cross_entropy"] if np.ndim(y) == 2 or len(np.unique(y)) == 2 else []
    options += ["cross_entropy"] if np.ndim(y) == 1 and len(np.unique(y)) > 2 else []
    faults.check_option("loss", loss, options)
    if params.distill_to is not None and loss == "squared_hinge":
        faults.add("loss", loss, "a cross-entropy with distill_to.")
    if weight is not None:
        try:
            compute_sample_weight(weight, y)
        except ValueError as exc:
            faults.add("class_weight", weight, f"weights of the classes of y: {exc}.")
    faults.raise_any()


@dataclass(frozen=True, eq=False)
class Objective:
    """Targets, weights and loss of all samples, as Keras takes them.

    "Units of the targets" are ``(values - center) / spread``, with 0 and 1 for classes.
    """

    loss_name: str  # a value of ``FineTune.loss`` other than "auto"
    targets: np.ndarray  # (n_samples, n_scores) float32: one-hot, 0 and 1, -1 and 1, or values
    weights: np.ndarray  # (n_samples,) float32, in the loss, class weights included
    sample_weight: np.ndarray  # (n_samples,), in the score, without class weights
    classes: np.ndarray | None  # in the order of their scores; None for regressors
    center: np.ndarray  # (n_scores,)
    spread: np.ndarray  # (n_scores,)
    teacher_targets: np.ndarray | None  # like `targets`, with probabilities at the temperature
    is_multilabel: bool

    @property
    def training_targets(self) -> np.ndarray:
        """Targets, and distillation targets as further columns, if there is a teacher."""
        if self.teacher_targets is None:
            return self.targets
        return np.hstack([self.targets, self.teacher_targets])

    @property
    def temperature(self) -> float:
        """Temperature of the distillation targets."""
        return 1.0 if self.classes is None else _TEMPERATURE

    def loss(self, label_smoothing: float = 0.0) -> keras.losses.Loss:
        """Make the loss of scores in units of the targets."""
        losses = keras.losses
        if self.loss_name == "cross_entropy":
            return losses.CategoricalCrossentropy(True, label_smoothing=label_smoothing)
        if self.loss_name == "binary_cross_entropy":
            return losses.BinaryCrossentropy(True, label_smoothing=label_smoothing)
        kinds = {
            "squared_hinge": losses.SquaredHinge,
            "mse": losses.MeanSquaredError,
            "huber": losses.Huber,
        }
        return kinds[self.loss_name]()

    def mean_loss(self, scores: np.ndarray, rows: np.ndarray) -> float:
        """Compute the weighted loss of scores, (n, n_scores) in units of the targets."""
        return float(self.loss()(self.targets[rows], scores, sample_weight=self.weights[rows]))

    def losses(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Compute the loss of each sample, (n,), without weights."""
        return np.asarray(ops.convert_to_numpy(self.loss().call(self.targets[rows], scores)))

    def calibrated(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return scores times the one factor at which their loss is lowest: temperature scaling.

        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        """
        weights = self.sample_weight[rows]

        def loss(log_factor: float) -> float:
            return float(weights @ self.losses(scores * np.exp(log_factor), rows))

        return scores * np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)

    def score(self, scores: np.ndarray, rows: np.ndarray) -> float:
        """Compute the accuracy or R² of scores, (n, n_scores) in units of the targets."""
        weights = self.sample_weight[rows]
        if self.classes is None:
            return float(r2_score(self.targets[rows], scores, sample_weight=weights))
        return float(np.average(self.merits(scores, rows), weights=weights))

    def merits(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return 1 or 0 for each sample, 1 if all labels are right; or minus the squared error."""
        expected = self.targets[rows]
        if self.classes is None:
            return -((scores - expected) ** 2).sum(axis=1)
        if self.is_multilabel or scores.shape[1] == 1:
            return ((scores > 0) == (expected > 0)).all(axis=1).astype(float)
        return (scores.argmax(axis=1) == expected.argmax(axis=1)).astype(float)


def make_objective(
    params: FineTune, data: Data, *, classes: np.ndarray | None, linear: LinearMap
) -> Objective:
    """Make the objective of a training that starts from a head of some classes, None for values.

    Raises
    ------
    ParameterError
        The loss does not suit the classes.
    """
    if classes is None:
        parts = _regression_parts(params.loss, data)
    else:
        parts = _classification_parts(params.loss, data, classes, linear)
    weights = np.ones(len(data.y)) if data.sample_weight is None else data.sample_weight
    sample_weight = np.asarray(weights, np.float64)
    weights = sample_weight
    if params.class_weight is not None:
        weights = weights * compute_sample_weight(params.class_weight, data.y)
    return Objective(
        **parts,
        weights=weights.astype(np.float32),
        sample_weight=sample_weight,
        classes=classes,
    )


def _regression_parts(loss: str, data: Data) -> dict[str, Any]:
    values = np.asarray(data.y, np.float64).reshape(len(data.y), -1)
    center, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread == 0] = 1.0
    teacher_targets = data.teacher_predictions
    if teacher_targets is not None:
        teacher_targets = (teacher_targets.reshape(values.shape) - center) / spread
        teacher_targets = teacher_targets.astype(np.float32)
    return {
        "loss_name": "mse" if loss == "auto" else loss,
        "targets": ((values - center) / spread).astype(np.float32),
        "center": center,
        "spread": spread,
        "teacher_targets": teacher_targets,
        "is_multilabel": False,
    }


def _classification_parts(
    loss: str, data: Data, classes: np.ndarray, linear: LinearMap
) -> dict[str, Any]:
    n_scores = linear.n_scores
    name = _LOSS_OF_LINK[linear.link] if loss == "auto" else loss
    if name not in _CLASSIFIER_LOSSES or (name == "cross_entropy" and n_scores == 1):
        suitable = "binary_cross_entropy" if n_scores == 1 else "cross_entropy"
        raise ParameterError(
            f"loss={loss!r}: these classes, with {n_scores} scores, take {suitable!r} or "
            "'squared_hinge'"
        )
    is_multilabel = np.ndim(data.y) == 2
    is_class = data.y > 0 if is_multilabel else np.asarray(data.y)[:, np.newaxis] == classes
    if n_scores == 1 and not is_multilabel:
        is_class = is_class[:, -1:]
    targets = np.where(is_class, 1.0, -1.0 if name == "squared_hinge" else 0.0)
    teacher_targets = data.teacher_predictions
    if teacher_targets is not None:
        teacher_targets = _teacher_at_temperature(teacher_targets, name, n_scores)
    return {
        "loss_name": name,
        "targets": targets.astype(np.float32),
        "center": np.zeros(n_scores),
        "spread": np.ones(n_scores),
        "teacher_targets": teacher_targets,
        "is_multilabel": is_multilabel,
    }


def _teacher_at_temperature(probabilities: np.ndarray, loss_name: str, n_scores: int) -> np.ndarray:
    """Return the probabilities of a teacher at the temperature of distillation."""
    if loss_name == "cross_entropy":
        log_probs = np.log(np.maximum(probabilities, _SMALLEST_PROBABILITY))
        return softmax(log_probs / _TEMPERATURE, axis=1).astype(np.float32)
    limits = _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY
    clipped = np.clip(probabilities[:, -n_scores:], *limits)
    return expit(logit(clipped) / _TEMPERATURE).astype(np.float32)
