"""``evaluate``: metrics of a classifier's predictions, with intervals and calibration."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from featx._html import facts_html
from featx._targets import as_groups, as_labels, comparable
from featx._text import one_line
from featx.evaluation.intervals import design_effects, metric_intervals
from featx.exceptions import InputError, ParameterError

_MEASURES = ("precision", "recall", "f1-score", "support")
_N_BINS = 15
_CHI_SQUARED_5_PERCENT = 3.841  # 95% quantile, one degree of freedom
_MAX_TEMPERATURE = 100.0
_ROUNDING = 1e-9  # of a log loss
_N_SHOWN = 20  # classes


class Evaluation(dict[str, Any]):
    """The result of :func:`evaluate`: a dict that shows its most important numbers."""

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self._facts())
        return "\n".join(f"{name:<{width}}    {value}" for name, value in self._facts())

    def _repr_html_(self) -> str:
        return facts_html(self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        low, high = self["intervals"]["accuracy"]
        accuracy = f"{self['accuracy']:.3f} ({low:.3f} to {high:.3f}) on {self['n_samples']:,}"
        facts = [("accuracy", accuracy), ("macro F1", f"{self['macro']['f1-score']:.3f}")]
        if "calibration" in self:
            facts.append(("calibration error", f"{self['calibration']['error']:.3f}"))
        by_class = list(self["classes"].items())
        facts += [(one_line(name), _class_text(values)) for name, values in by_class[:_N_SHOWN]]
        n_more = len(by_class) - _N_SHOWN
        return facts if n_more <= 0 else [*facts, ("...", f"and {n_more:,} more classes")]


def _class_text(values: dict[str, Any]) -> str:
    return (
        f"precision {values['precision']:.3f}, recall {values['recall']:.3f}, "
        f"F1 {values['f1-score']:.3f} on {values['support']:,}"
    )


def evaluate(
    y_true: Any,
    y_pred: Any,
    *,
    proba: Any = None,
    classes: Any = None,
    groups: Any = None,
    confidence: float = 0.95,
) -> Evaluation:
    """Compute metrics of predicted labels, confidence intervals, and the calibration.

    It is for classifiers with one label for each sample.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        True and predicted labels.
    proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities that ``predict_proba`` returned.
    classes : array-like of shape (n_classes,), default=None
        Labels of the columns of `proba`, as in ``classes_``; None is all labels in `y_true` and
        `y_pred`, sorted.
    groups : array-like of shape (n_samples,), default=None
        Group of each sample, such as its patient or video. The predictions for a group may be right
        or wrong together, so the intervals are wider. Without groups, samples count as independent.
    confidence : float, default=0.95
        Confidence level of the intervals, between 0 and 1.

    Returns
    -------
    Evaluation
        A dict of plain data that is shown as tables, with these items:

        - ``accuracy``, from 0 to 1;
        - ``classes``, the ``precision``, ``recall``, ``f1-score`` and ``support`` of each;
          ``macro`` and ``weighted``, their averages;
        - ``confusion``, with ``labels`` and ``counts`` (rows are true classes, columns predicted
          ones);
        - ``intervals``, the ends of confidence intervals: of ``accuracy``, of the averages in
          ``macro``, and of each class in ``classes``; ``confidence``, their level. All derive from
          Wilson's score interval (1927): those of averages by the method of Zou and Donner 2008
          (doi:10.1002/sim.3095), those with groups by that of Rao and Scott 1992
          (doi:10.2307/2532311);
        - ``n_groups``, the number of groups, with groups only;
        - ``calibration``, with probabilities only: ``error``, the expected calibration error of Guo
          et al. 2017 (arXiv 1706.04599), from 0 to 1; ``log_loss``, in nats; ``temperature``, by
          which to divide the scores for the lowest log loss, None if it is not between 0.01 and
          100; ``log_loss_at_temperature``, that loss; ``tendency``, "overconfident" or
          "underconfident" if the best temperature differs from 1 by more than chance, else None;
          ``bins``, the ``n_samples``, mean ``probability`` and ``accuracy`` of each bin of a
          reliability diagram.

    Raises
    ------
    ParameterError
        `confidence` is not between 0 and 1.
    InputError
        There are no samples, values are not labels, those of `y_true`, `y_pred` and `classes` are
        of several types, or `proba` does not fit them.
    ValueError
        Lengths differ.

    See Also
    --------
    report : Cross-validation of an estimator, with these metrics.
    compare_heads : Accuracies of several heads on the same folds.
    MistakesDisplay : Pictures whose predictions are wrong.

    Examples
    --------
    >>> from featx import evaluate
    >>> result = evaluate(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> round(result["accuracy"], 3), result["confusion"]["counts"]
    (0.667, [[1, 1], [0, 1]])
    """
    if not (isinstance(confidence, Real) and 0 < confidence < 1):
        raise ParameterError(f"confidence={confidence!r}: expected a fraction between 0 and 1")
    given = {"y_true": checked_labels(y_true, "y_true")}
    given["y_pred"] = checked_labels(y_pred, "y_pred")
    check_consistent_length(*given.values(), proba)
    if proba is not None and classes is not None:
        given["classes"] = as_labels(classes, name="classes")
    y_true, y_pred, *columns_of_proba = comparable(**given)
    if not len(y_true):
        raise InputError("there are no samples to evaluate")
    labels = np.unique(np.concatenate([y_true, y_pred]))
    names = [str(label) for label in labels]
    measure = partial(
        precision_recall_fscore_support, y_true, y_pred, labels=labels, zero_division=0.0
    )
    averages = {
        name: dict(zip(_MEASURES, (*measure(average=name)[:3], len(y_true)), strict=True))
        for name in ("macro", "weighted")
    }
    counts = np.array([[len(y_true)]])
    if len(labels) > 1:  # else scikit-learn warns
        counts = confusion_matrix(y_true, y_pred, labels=labels)
    effects = {}
    if groups is not None:
        groups = as_groups(groups, len(y_true))
        indices = (np.searchsorted(labels, each) for each in (y_true, y_pred))
        effects["effects"] = design_effects(*indices, groups, confidence=confidence)
    ends = metric_intervals(counts, confidence=confidence, **effects)
    ends["classes"] = dict(zip(names, ends["classes"], strict=True))
    result = {
        "accuracy": float(np.mean(y_true == y_pred)),
        "n_samples": len(y_true),
        "classes": {
            name: dict(zip(_MEASURES, (*map(float, values), int(support)), strict=True))
            for name, *values, support in zip(names, *measure(), strict=True)
        },
        **averages,
        "confusion": {"labels": names, "counts": counts.tolist()},
        "intervals": ends,
    }
    if groups is not None:
        result["n_groups"] = len(np.unique(groups))
    if proba is not None:
        columns = columns_of_proba[0] if columns_of_proba else labels
        proba = checked_proba(proba, columns, y_true)
        order = np.argsort(columns)
        result["calibration"] = calibration(y_true, proba[:, order], classes=columns[order])
    return Evaluation(result)


def checked_labels(y: Any, name: str) -> np.ndarray:
    """Return one label for each sample, (n_samples,); InputError is raised for anything else."""
    y = as_labels(y, name=name)
    if y.ndim != 1 and y.shape[1:] != (1,):
        cure = "; pass probabilities as proba=" if name == "y_pred" and y.ndim == 2 else ""
        raise InputError(
            f"{name} has shape {y.shape}: expected one label for each sample, (n_samples,){cure}"
        )
    y = y.ravel()
    if y.dtype.kind == "f" and len(y) and type_of_target(y, input_name=name) == "continuous":
        raise InputError(
            f"{name} has numbers such as {y[y != np.trunc(y)][0]:.6g}, which are not labels: "
            "evaluate is for classifiers. For regressors, use score() or sklearn.metrics."
        )
    return y


def checked_proba(proba: Any, classes: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    """Return probabilities (n_samples, n_classes) float64 whose rows sum to 1.

    InputError is raised if they are none, or do not fit the classes and the labels.
    """
    proba = np.asarray(proba, np.float64)
    if len(np.unique(classes)) != len(classes) or len(classes) < 2:
        raise InputError(f"classes={classes.tolist()}: expected two or more, each once")
    if proba.ndim != 2 or proba.shape[1] != len(classes):
        raise InputError(
            f"proba has shape {proba.shape}: expected a column for each of the {len(classes)} "
            "classes; pass classes= if some have no samples"
        )
    unknown = np.setdiff1d(y_true, classes)
    if len(unknown):
        raise InputError(f"proba has no column for the labels {unknown[:10].tolist()}")
    if (proba < 0).any() or not np.allclose(proba.sum(axis=1), 1.0, atol=1e-3):
        raise InputError("proba has rows that are not probabilities: expected sums of 1")
    return proba / proba.sum(axis=1, keepdims=True)  # the sums of float32 rows are not exact


def calibration(y_true: np.ndarray, proba: np.ndarray, *, classes: np.ndarray) -> dict[str, Any]:
    """Measure the gap between the probabilities of predictions and their accuracy.

    It is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599): samples are sorted
    into 15 bins by the probability of the predicted class; the mean probability of each bin is
    compared with its accuracy, and the gaps are averaged over samples. The same paper divides
    scores by a temperature; the temperature with the lowest log loss on these samples shows whether
    probabilities are too high or too low. `classes` are the labels of the columns, sorted.

    Returns
    -------
    dict
        Plain data: ``error``, from 0 to 1; ``log_loss``, in nats; ``temperature``, above 1 for
        overconfident predictions, below 1 for underconfident ones, None if no temperature from 0.01
        to 100 is best, for example if all predictions are right; ``log_loss_at_temperature``;
        ``tendency``, "overconfident" or "underconfident" if a temperature above or below 1 is
        better by more than chance (likelihood-ratio test at 5%, Wilks 1938,
        doi:10.1214/aoms/1177732360), else None; ``bins``, the ``n_samples``, mean ``probability``
        and ``accuracy`` of each bin that is not empty, as in a reliability diagram.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1])
    >>> sure = calibration(y, np.tile([0.99, 0.01], (4, 1)), classes=np.array([0, 1]))
    >>> round(sure["error"], 2), sure["temperature"] > 1, sure["tendency"]
    (0.24, True, 'overconfident')
    """
    class_indices = np.searchsorted(classes, y_true)
    confidences = proba.max(axis=1)
    is_right = proba.argmax(axis=1) == class_indices
    bins = np.minimum((confidences * _N_BINS).astype(int), _N_BINS - 1)
    filled = [
        {
            "n_samples": int(np.sum(bins == number)),
            "probability": float(confidences[bins == number].mean()),
            "accuracy": float(is_right[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]
    gaps = [part["n_samples"] * abs(part["probability"] - part["accuracy"]) for part in filled]
    temperature = best_temperature(class_indices, proba)
    calibrated = proba if temperature is None else probabilities_at_temperature(proba, temperature)
    labels = np.arange(len(classes))
    losses = [float(log_loss(class_indices, each, labels=labels)) for each in (proba, calibrated)]
    return {
        "error": float(sum(gaps) / len(class_indices)),
        "log_loss": losses[0],
        "temperature": temperature,
        "log_loss_at_temperature": losses[1],
        "tendency": _tendency(class_indices, proba, temperature),
        "bins": filled,
    }


def _tendency(
    class_indices: np.ndarray, proba: np.ndarray, temperature: float | None
) -> str | None:
    """Return how probabilities differ from the accuracy, if they do by more than chance.

    If no temperature is best, the loss still falls towards one of the ends. At the lower one, all
    predictions are right: that is no chance if its probability is below 5%.
    """
    ends = (1 / _MAX_TEMPERATURE, _MAX_TEMPERATURE)
    losses = {
        each: _loss_at_temperature(class_indices, proba, each)
        for each in (1.0, *(ends if temperature is None else (temperature,)))
    }
    best = min(losses, key=lambda each: losses[each])
    least = -2 * np.log(0.05) if best == ends[0] else _CHI_SQUARED_5_PERCENT
    if 2 * len(class_indices) * (losses[1.0] - losses[best]) <= least:
        return None
    return "overconfident" if best > 1 else "underconfident"


def _loss_at_temperature(class_indices: np.ndarray, proba: np.ndarray, temperature: float) -> float:
    calibrated = probabilities_at_temperature(proba, temperature)
    true = np.take_along_axis(calibrated, class_indices[:, np.newaxis], axis=1)
    return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())


def probabilities_at_temperature(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return probabilities (n_samples, n_classes) with their logits divided by a temperature.

    Examples
    --------
    >>> probabilities_at_temperature(np.array([[0.8, 0.2]]), 2.0).round(3)
    array([[0.667, 0.333]])
    """
    scores = np.log(np.maximum(np.asarray(proba, np.float64), np.finfo(np.float64).tiny))
    scores = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(class_indices: np.ndarray, proba: np.ndarray) -> float | None:
    """Return the temperature from 0.01 to 100 with the lowest log loss; None if it is at an end."""

    def loss(log_temperature: float) -> float:
        return _loss_at_temperature(class_indices, proba, float(np.exp(log_temperature)))

    end = np.log(_MAX_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-end, end), method="bounded")
    is_inside = found.fun < min(loss(-end), loss(end)) - _ROUNDING
    return float(np.exp(found.x)) if is_inside else None
