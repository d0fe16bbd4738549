"""Numbers that a colleague can check: scikit-learn's metrics of predictions, as plain data."""

from __future__ import annotations

from functools import partial
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from featx._targets import as_labels
from featx.exceptions import InputError, ParameterError

_N_BINS = 15
_LARGEST_TEMPERATURE = 100.0
_ROUNDING = 1e-9  # of a log loss


def calibration(y_true: np.ndarray, proba: np.ndarray, *, classes: np.ndarray) -> dict[str, Any]:
    """Measure how far the probabilities of predictions are from the shares that are right.

    The expected calibration error of Guo et al. 2017 (arXiv 1706.04599): samples are put into 15
    bins by the probability of the class that is predicted; of each bin, the mean probability is
    compared with the share of right predictions, and the gaps are averaged by samples. The same
    paper divides scores by a temperature; the one that would suit these very samples best tells in
    which direction probabilities are wrong.

    Parameters
    ----------
    y_true : ndarray of shape (n_samples,)
    proba : ndarray of shape (n_samples, n_classes)
    classes : ndarray of shape (n_classes,), sorted
        The labels of the columns.

    Returns
    -------
    dict
        Plain data: ``error``, from 0 to 1; ``log_loss``, in nats; ``temperature``, over 1 where
        probabilities are too sure, under 1 where they are too careful, None where any would do or
        none is high or low enough, as where all predictions are right; ``log_loss_at_temperature``;
        ``bins``, for each with samples in it their ``n_samples``, mean ``probability`` and
        ``accuracy``, as a reliability diagram shows them.

    Examples
    --------
    >>> y = np.array([0, 0, 0, 1])
    >>> sure = calibration(y, np.tile([0.99, 0.01], (4, 1)), classes=np.array([0, 1]))
    >>> round(sure["error"], 2), sure["temperature"] > 1
    (0.24, True)
    """
    places = np.searchsorted(classes, y_true)
    sureness = proba.max(axis=1)
    is_right = proba.argmax(axis=1) == places
    bins = np.minimum((sureness * _N_BINS).astype(int), _N_BINS - 1)
    filled = [
        {
            "n_samples": int(np.sum(bins == number)),
            "probability": float(sureness[bins == number].mean()),
            "accuracy": float(is_right[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]
    gaps = [part["n_samples"] * abs(part["probability"] - part["accuracy"]) for part in filled]
    temperature = best_temperature(places, proba)
    mended = proba if temperature is None else at_temperature(proba, temperature)
    labels = np.arange(len(classes))
    return {
        "error": float(sum(gaps) / len(places)),
        "log_loss": float(log_loss(places, proba, labels=labels)),
        "temperature": temperature,
        "log_loss_at_temperature": float(log_loss(places, mended, labels=labels)),
        "bins": filled,
    }


def at_temperature(proba: np.ndarray, temperature: float) -> np.ndarray:
    """Return what probabilities would be if the scores behind them were divided by a temperature.

    Parameters
    ----------
    proba : ndarray of shape (n_samples, n_classes)
    temperature : float

    Returns
    -------
    ndarray of shape (n_samples, n_classes), float64

    Examples
    --------
    >>> at_temperature(np.array([[0.8, 0.2]]), 2.0).round(3)
    array([[0.667, 0.333]])
    """
    scores = np.log(np.maximum(np.asarray(proba, np.float64), np.finfo(np.float64).tiny))
    scores = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(scores)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(places: np.ndarray, proba: np.ndarray) -> float | None:
    """Return the temperature between 0.01 and 100 at which samples have the lowest log loss.

    None if it is lowest at an end, or the same at both.

    Parameters
    ----------
    places : ndarray of shape (n_samples,), int
        Columns of the true classes.
    proba : ndarray of shape (n_samples, n_classes)
    """

    def loss(log_temperature: float) -> float:
        chances = at_temperature(proba, float(np.exp(log_temperature)))
        true = np.take_along_axis(chances, places[:, np.newaxis], axis=1)
        return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())

    end = np.log(_LARGEST_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-end, end), method="bounded")
    is_inside = found.fun < min(loss(-end), loss(end)) - _ROUNDING
    return float(np.exp(found.x)) if is_inside else None


_N_RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000


class _Measures(NamedTuple):
    """What follows from confusion matrices, each of shape (n_resamples, n_classes).

    NaN where nothing is predicted, or nothing is there.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def intervals(counts: np.ndarray, *, confidence: float = 0.95) -> dict[str, Any]:
    """Estimate intervals of confidence for what follows from a confusion matrix.

    Shares (accuracy; precision and recall of each class) have Wilson's score intervals (1927),
    which stay honest where all of a few samples are right. F1 scores and averages have the
    percentiles of a bootstrap (Efron 1979): samples are drawn anew, with replacement, 2,000 times;
    with few samples these are too narrow. To draw samples is to draw cells of the confusion matrix,
    which takes the same time for a million samples as for a hundred.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes), int
        Rows are true classes, columns predicted ones.
    confidence : float, default=0.95

    Returns
    -------
    dict
        ``"confidence"``; from ``"accuracy"``, and ``"macro"`` of ``"precision"``, ``"recall"`` and
        ``"f1-score"``, to the two ends; in ``"classes"`` a list of the latter for each class.

    Examples
    --------
    >>> low, high = intervals(np.array([[45, 5], [5, 45]]))["accuracy"]
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    draws = _resampled(counts)
    tail = 100 * (1 - confidence) / 2
    right, there, told = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)

    def percentiles(values: np.ndarray) -> list[float]:
        if np.isnan(values).all():
            return [0.0, 1.0]
        return [float(end) for end in np.nanpercentile(values, [tail, 100 - tail])]

    def share(n_right: int, n_samples: int) -> list[float]:
        if not n_samples:
            return [0.0, 1.0]
        found = binomtest(n_right, n_samples).proportion_ci(confidence, method="wilson")
        return [float(found.low), float(found.high)]

    return {
        "confidence": confidence,
        "accuracy": share(int(right.sum()), int(counts.sum())),
        "macro": {
            "precision": percentiles(_means(draws.precision)),
            "recall": percentiles(_means(draws.recall)),
            "f1-score": percentiles(_means(draws.f1)),
        },
        "classes": [
            {
                "precision": share(int(right[label]), int(told[label])),
                "recall": share(int(right[label]), int(there[label])),
                "f1-score": percentiles(draws.f1[:, label]),
            }
            for label in range(len(counts))
        ],
    }


def _means(values: np.ndarray) -> np.ndarray:
    """Return the means over the classes that a resample has."""
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _resampled(counts: np.ndarray) -> _Measures:
    """Return what follows from confusion matrices of as many samples, drawn from these."""
    rng = np.random.default_rng(0)
    n_classes, n_samples = len(counts), int(counts.sum())
    true, predicted = np.nonzero(counts)
    shares = counts[true, predicted] / n_samples
    n_at_once = max(1, _CELLS_AT_ONCE // len(shares))
    parts = []
    for start in range(0, _N_RESAMPLES, n_at_once):
        size = min(n_at_once, _N_RESAMPLES - start)
        drawn = rng.multinomial(n_samples, shares, size=size).astype(np.float64)
        is_right = true == predicted
        parts.append(
            _measures(
                _summed(drawn[:, is_right], true[is_right], n_classes),
                _summed(drawn, true, n_classes),
                _summed(drawn, predicted, n_classes),
            )
        )
    return _Measures(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _summed(drawn: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Add up the cells of each class: (n_resamples, n_classes)."""
    places = (np.arange(len(labels)), labels)
    is_of = sparse.csr_array((np.ones(len(labels)), places), shape=(len(labels), n_classes))
    return drawn @ is_of


def _measures(right: np.ndarray, there: np.ndarray, told: np.ndarray) -> _Measures:
    return _Measures(_share(right, told), _share(right, there), _share(2 * right, there + told))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


_MEASURES = ("precision", "recall", "f1-score", "support")


def evaluate(
    y_true: Any,
    y_pred: Any,
    *,
    proba: Any = None,
    classes: Any = None,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Measure how well labels were predicted, how sure that is, and what probabilities are worth.

    It is for classifiers, of one label for each sample.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n_samples,)
        Labels, those predicted as ``predict`` gives them.
    proba : array-like of shape (n_samples, n_classes), default=None
        Probabilities, as ``predict_proba`` gives them.
    classes : array-like of shape (n_classes,), default=None
        The labels of the columns of `proba`, as in ``classes_``; None is all that are in `y_true`
        or `y_pred`, sorted.
    confidence : float, default=0.95
        Of the intervals.

    Returns
    -------
    dict
        Plain data: ``accuracy``; ``classes``, for each its ``precision``, ``recall``, ``f1-score``
        and ``support``; ``macro`` and ``weighted``, the same averaged; ``confusion``, with
        ``labels`` and ``counts`` (rows are true classes, columns predicted ones); ``intervals``,
        see :func:`~featx.evaluation.metrics.intervals`; with probabilities,
        ``calibration``, see :func:`~featx.evaluation.metrics.calibration`.

    Raises
    ------
    ParameterError
        `confidence` is no such share.
    InputError
        There are no samples, labels are no labels, or `proba` does not suit them.
    ValueError
        Lengths differ.

    Examples
    --------
    >>> from featx import evaluate
    >>> result = evaluate(["cat", "cat", "dog"], ["cat", "dog", "dog"])
    >>> round(result["accuracy"], 3), result["confusion"]["counts"]
    (0.667, [[1, 1], [0, 1]])
    """
    if not (isinstance(confidence, Real) and 0 < confidence < 1):
        raise ParameterError(f"confidence={confidence!r}: expected a share between 0 and 1")
    y_true, y_pred = _checked_labels(y_true, "y_true"), _checked_labels(y_pred, "y_pred")
    check_consistent_length(y_true, y_pred, proba)
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
    ends = intervals(counts, confidence=confidence)
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
    if proba is not None:
        columns = labels if classes is None else as_labels(classes, name="classes")
        proba = _checked_proba(proba, columns, y_true)
        order = np.argsort(columns)
        result["calibration"] = calibration(y_true, proba[:, order], classes=columns[order])
    return result


def _checked_labels(y: Any, name: str) -> np.ndarray:
    y = as_labels(y, name=name)
    if y.ndim != 1 and y.shape[1:] != (1,):
        cure = "; pass probabilities as proba=" if name == "y_pred" and y.ndim == 2 else ""
        raise InputError(
            f"{name} has shape {y.shape}: expected one label for each sample, (n_samples,){cure}"
        )
    y = y.ravel()
    if y.dtype.kind == "f" and len(y) and type_of_target(y, input_name=name) == "continuous":
        raise InputError(
            f"{name} holds numbers such as {y[y != np.trunc(y)][0]:.6g}, which are no labels: "
            "evaluate is for classifiers. Regressors have score(), and sklearn.metrics."
        )
    return y


def _checked_proba(proba: Any, classes: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    proba = np.asarray(proba, np.float64)
    if len(np.unique(classes)) != len(classes) or len(classes) < 2:
        raise InputError(f"classes={classes.tolist()}: expected two or more, each once")
    if proba.ndim != 2 or proba.shape[1] != len(classes):
        raise InputError(
            f"proba has shape {proba.shape}: expected a column for each of the {len(classes)} "
            "classes; pass classes= if some are in no label"
        )
    unknown = np.setdiff1d(y_true, classes)
    if len(unknown):
        raise InputError(f"proba has no column for the labels {unknown[:10].tolist()}")
    if (proba < 0).any() or not np.allclose(proba.sum(axis=1), 1.0, atol=1e-3):
        raise InputError("proba has rows that are no probabilities: expected sums of 1")
    return proba / proba.sum(axis=1, keepdims=True)  # which float32 is not exact about
