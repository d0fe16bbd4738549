"""What training minimises, and what it is judged by.

The loss follows the head: cross-entropy of its probabilities where it has any, squared hinge where
it has scores only, mean squared error for numbers, whose targets are standardised so that one
learning rate suits them all. The score is the head's own: accuracy, or R².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_sample_weight

from featx._validation import ParameterFaults
from featx.exceptions import ParameterError
from featx.finetune.params import FineTune

if TYPE_CHECKING:
    import keras

_TINY = 1e-12  # a probability below it is taken for it
_FOR_CLASSES = ("cross_entropy", "binary_cross_entropy", "squared_hinge")
_FOR_LINKS = {
    "softmax": "cross_entropy",
    "sigmoid": "binary_cross_entropy",
    "normalized sigmoid": "binary_cross_entropy",
    None: "squared_hinge",
}


@dataclass(frozen=True, eq=False)
class TeacherTargets:
    """What a teacher says of the samples.

    Attributes
    ----------
    targets : ndarray of shape (n_samples, n_scores), float32
        Probabilities at the temperature, or values in units of the targets.
    temperature : float
        1 for values.
    """

    targets: np.ndarray
    temperature: float


@dataclass(frozen=True, eq=False)
class Objective:
    """The task, in numbers that Keras can train on.

    Attributes
    ----------
    loss_name : str
        One of the names that :class:`FineTune` knows, but for "auto".
    targets : ndarray of shape (n_samples, n_scores), float32
        One-hot, 0 and 1, -1 and 1, or standardised numbers.
    weights : ndarray of shape (n_samples,), float32
        Of samples, those of classes included.
    classes : ndarray or None
        None for regressors.
    center, spread : ndarray of shape (n_scores,)
        Scores in units of the targets are ``(scores - center) / spread``; 0 and 1 for classes.
    weights_of_score : ndarray of shape (n_samples,)
        Of samples, those of classes left out.
    is_multilabel : bool
    lesson : TeacherTargets or None
        What a teacher says, of which half of the loss is made.
    """

    loss_name: str
    targets: np.ndarray
    weights: np.ndarray
    classes: np.ndarray | None
    center: np.ndarray
    spread: np.ndarray
    weights_of_score: np.ndarray
    is_multilabel: bool
    lesson: TeacherTargets | None = None

    @property
    def training_targets(self) -> np.ndarray:
        """The targets, and those of a teacher beside them."""
        if self.lesson is None:
            return self.targets
        return np.hstack([self.targets, self.lesson.targets])

    def training_loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Make the loss of scores in units of the targets, given the training targets."""
        loss = self.loss(label_smoothing)
        if self.lesson is None:
            return loss
        from featx.finetune.distillation_loss import DistillationLoss

        return DistillationLoss(loss, self.loss(0.0), self.lesson.temperature)

    def loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Make the loss of scores in units of the targets."""
        import keras

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

    def loss_of(self, scores: np.ndarray, rows: np.ndarray) -> float:
        """Compute the loss of scores, (n, n_scores) in units of the targets, of some samples."""
        return float(self.loss(0.0)(self.targets[rows], scores, sample_weight=self.weights[rows]))

    def losses(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Compute the losses, (n,), of scores sample by sample, without their weights."""
        from keras import ops

        loss = self.loss(0.0)
        return np.asarray(ops.convert_to_numpy(loss.call(self.targets[rows], scores)))

    def calibrated(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Multiply scores, (n, n_scores), by the one number with which their loss is least.

        References
        ----------
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017: temperature scaling.
        """
        weights = self.weights_of_score[rows]

        def loss(logarithm: float) -> float:
            return float(weights @ self.losses(scores * np.exp(logarithm), rows))

        return scores * np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)

    def score(self, scores: np.ndarray, rows: np.ndarray) -> float:
        """Judge scores, (n, n_scores) in units of the targets, of some of the samples."""
        weights = self.weights_of_score[rows]
        if self.classes is None:
            return float(r2_score(self.targets[rows], scores, sample_weight=weights))
        return float(np.average(self.merits(scores, rows), weights=weights))

    def merits(self, scores: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Say how well scores do sample by sample: 1 if all is right, or minus the squared error.

        Parameters
        ----------
        scores : ndarray of shape (n, n_scores)
            In units of the targets.
        rows : ndarray of shape (n,), int64
        """
        expected = self.targets[rows]
        if self.classes is None:
            return -((scores - expected) ** 2).sum(axis=1)
        if self.is_multilabel or scores.shape[1] == 1:
            return ((scores > 0) == (expected > 0)).all(axis=1).astype(float)
        return (scores.argmax(axis=1) == expected.argmax(axis=1)).astype(float)


def is_clearly_positive(gains: np.ndarray, weights: np.ndarray) -> bool:
    """Tell whether a mean is above zero by more than its standard error.

    The one-standard-error rule of Breiman et al. (1984), "Classification and Regression Trees",
    section 3.4.3, on paired samples: of two models between which there is only noise, the simpler.

    Parameters
    ----------
    gains : ndarray of shape (n,)
        How much better the less simple model is, sample by sample.
    weights : ndarray of shape (n,)

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
    return bool(gain > error * (1 + 1e-9))  # of one sample alone, both are the same


def check_task(params: FineTune, y: np.ndarray, *, is_classifier: bool) -> None:
    """Check that loss and weights suit labels or values, as far as these tell.

    Parameters
    ----------
    params : FineTune
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    is_classifier : bool

    Raises
    ------
    ParameterError
        All that does not suit.
    """
    faults = ParameterFaults("FineTune")
    loss, weight = params.loss, params.class_weight
    if not is_classifier:
        faults.check_option("loss", loss, ("auto", "mse", "huber"))
        if weight is not None:
            faults.add("class_weight", weight, "None for a regressor.")
        faults.raise_any()
        return
    wanted = ["auto", "squared_hinge"]
    wanted += ["binary_cross_entropy"] if np.ndim(y) == 2 or len(np.unique(y)) == 2 else []
    wanted += ["cross_entropy"] if np.ndim(y) == 1 and len(np.unique(y)) > 2 else []
    faults.check_option("loss", loss, wanted)
    if params.distill_to is not None and loss == "squared_hinge":
        faults.add("loss", loss, "one of probabilities where distill_to is used.")
    if weight is not None:
        try:
            compute_sample_weight(weight, y)
        except ValueError as exc:
            faults.add("class_weight", weight, f"weights of the classes of y: {exc}.")
    faults.raise_any()


def make_objective(
    y: np.ndarray,
    *,
    classes: np.ndarray | None,
    link: str | None,
    n_scores: int,
    sample_weight: np.ndarray | None,
    class_weight: Any,
    loss: str,
    taught: np.ndarray | None = None,
    temperature: float = 1.0,
) -> Objective:
    """Turn labels or values into targets.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    classes : ndarray or None
        Of a classifier, in the order of its scores.
    link : str or None
        See :class:`LinearMap`.
    n_scores : int
    sample_weight : ndarray of shape (n_samples,) or None
    class_weight : None, "balanced" or dict
    loss : str
        See :class:`FineTune`.
    taught : ndarray of shape (n_samples, n_classes) or (n_samples, n_outputs), default=None
        Probabilities or values that a teacher gives the samples.
    temperature : float, default=1.0
        At which student and teacher are compared.

    Raises
    ------
    ParameterError
        The loss is not one for this task.
    """
    lesson = None
    given = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if classes is None:
        values = np.asarray(y, np.float64).reshape(len(y), -1)
        center, spread = values.mean(axis=0), values.std(axis=0)
        spread[spread == 0] = 1.0
        targets = (values - center) / spread
        if taught is not None:
            taught = (taught.reshape(values.shape) - center) / spread
            lesson = TeacherTargets(taught.astype(np.float32), 1.0)
        name, is_multilabel = "mse" if loss == "auto" else loss, False
    else:
        name = _FOR_LINKS[link] if loss == "auto" else loss
        if name not in _FOR_CLASSES or (name == "cross_entropy" and n_scores == 1):
            raise ParameterError(
                f"loss={loss!r}: these classes, with {n_scores} scores, take "
                f"{'binary_cross_entropy' if n_scores == 1 else 'cross_entropy'!r} or "
                "'squared_hinge'"
            )
        is_multilabel = np.ndim(y) == 2
        targets = y > 0 if is_multilabel else np.asarray(y)[:, np.newaxis] == classes
        targets = targets[:, -1:] if n_scores == 1 and not is_multilabel else targets
        targets = np.where(targets, 1.0, -1.0 if name == "squared_hinge" else 0.0)
        center, spread = np.zeros(n_scores), np.ones(n_scores)
        if taught is not None:
            lesson = _lesson(taught, name, n_scores, temperature)
    weights = given * (1.0 if class_weight is None else compute_sample_weight(class_weight, y))
    return Objective(
        loss_name=name,
        targets=targets.astype(np.float32),
        weights=weights.astype(np.float32),
        classes=classes,
        center=center,
        spread=spread,
        weights_of_score=given,
        is_multilabel=is_multilabel,
        lesson=lesson,
    )


def _lesson(
    taught: np.ndarray, loss_name: str, n_scores: int, temperature: float
) -> TeacherTargets:
    """Turn the probabilities that a teacher gives into those at a temperature."""
    if loss_name == "cross_entropy":
        targets = softmax(np.log(np.maximum(taught, _TINY)) / temperature, axis=1)
    else:
        shares = np.clip(taught[:, -n_scores:], _TINY, 1 - _TINY)
        targets = expit(logit(shares) / temperature)
    return TeacherTargets(targets.astype(np.float32), temperature)
