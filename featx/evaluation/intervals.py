"""``metric_intervals``, ``wilson_interval``: confidence intervals of fractions, and of averages.

All come from Wilson's score interval (1927), which is valid even if all of a few samples are right.
Samples of a group, such as several images of a patient, may be right or wrong together. They carry
less information than independent samples, so that the intervals are wider.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

_CLASSES_PER_MISTAKE = 2  # whose F1 scores it lowers


class ClassFractions(NamedTuple):
    """A number for the accuracy, and arrays of one number per class for three fractions."""

    accuracy: Any
    precision: Any
    recall: Any
    jaccard: Any


_NO_EFFECT = ClassFractions(1.0, 1.0, 1.0, 1.0)


def metric_intervals(
    counts: np.ndarray, *, confidence: float = 0.95, effects: ClassFractions = _NO_EFFECT
) -> dict[str, Any]:
    """Return confidence intervals for metrics from a confusion matrix; rows are true classes.

    The interval of an F1 score is that of the Jaccard index J, the fraction of right samples among
    those that are of the class or predicted as such, since F1 = 2 J / (1 + J). Averages of classes
    combine their intervals by the method of variance estimates recovery (Zou and Donner 2008,
    doi:10.1002/sim.3095). In simulations with 2 to 10 classes and 50 to 1,000 samples, intervals at
    0.95 of F1 scores covered 95%, those of macro F1 94 to 99%, and those of macro precision and
    recall 90 to 96%.

    `effects` are the design effects of :func:`design_effects`.

    Returns
    -------
    dict
        ``"confidence"``; the two ends for ``"accuracy"`` and for ``"precision"``, ``"recall"`` and
        ``"f1-score"`` in ``"macro"``; in ``"classes"`` a list of the latter for each class.

    Examples
    --------
    >>> low, high = metric_intervals(np.array([[45, 5], [5, 45]]))["accuracy"]
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    right, actual, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    either = actual + predicted - right
    wilson = partial(_wilson_ends, confidence=confidence)
    jaccard = wilson(right / effects.jaccard, either / effects.jaccard)
    ends = {
        "precision": wilson(right / effects.precision, predicted / effects.precision),
        "recall": wilson(right / effects.recall, actual / effects.recall),
        "f1-score": np.where(either > 0, _f1_of_jaccard(jaccard), jaccard),
    }
    found = {
        "precision": _fractions(right, predicted),
        "recall": _fractions(right, actual),
        "f1-score": _f1_of_jaccard(_fractions(right, either)),
    }
    accuracy = wilson(right.sum() / effects.accuracy, counts.sum() / effects.accuracy)
    return {
        "confidence": confidence,
        "accuracy": accuracy.tolist(),
        "macro": {
            name: _mean_ends(found[name], each, _CLASSES_PER_MISTAKE if name == "f1-score" else 1)
            for name, each in ends.items()
        },
        "classes": [
            {name: each[:, label].tolist() for name, each in ends.items()}
            for label in range(len(counts))
        ],
    }


def wilson_interval(n_right: float, n_samples: float, *, confidence: float = 0.95) -> list[float]:
    """Return the ends of Wilson's interval (1927) of a fraction; 0 and 1 without samples.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(45, 50)]
    [0.786, 0.957]
    """
    return _wilson_ends(n_right, n_samples, confidence=confidence).tolist()


def fraction_interval(is_right: np.ndarray, groups: np.ndarray | None) -> list[float]:
    """Return the ends of the interval of the fraction of right samples, which may have groups."""
    effect = 1.0
    if groups is not None:
        effect = design_effects(is_right, np.ones_like(is_right), groups).accuracy
    return wilson_interval(is_right.sum() / effect, len(is_right) / effect)


def _wilson_ends(n_right: Any, n_samples: Any, *, confidence: float) -> np.ndarray:
    """Return the ends of Wilson's intervals, shape (2, ...), of numbers of samples."""
    right, n = np.asarray(n_right, np.float64), np.asarray(n_samples, np.float64)
    squared = stats.norm.ppf((1 + confidence) / 2) ** 2

    def low_end(part: np.ndarray) -> np.ndarray:
        variance = part * (n - part) / np.maximum(n, np.finfo(np.float64).tiny)
        half = np.sqrt(squared * (variance + squared / 4))
        return np.maximum((part + squared / 2 - half) / (n + squared), 0)

    return np.stack([low_end(right), 1 - low_end(n - right)])


def _fractions(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Return fractions, 0 of nothing, as scikit-learn counts it."""
    return np.divide(part, total, out=np.zeros(len(total)), where=total > 0)


def _f1_of_jaccard(jaccard: np.ndarray) -> np.ndarray:
    return 2 * jaccard / (1 + jaccard)


def _mean_ends(values: np.ndarray, ends: np.ndarray, n_touched: int) -> list[float]:
    """Return the interval of a mean of values, `n_touched` of which change with each mistake."""
    distances = np.sqrt(n_touched * ((ends - values) ** 2).sum(axis=1)) / len(values)
    low, high = np.clip(values.mean() + np.array([-1, 1]) * distances, 0.0, 1.0)
    return [float(low), float(high)]


def design_effects(
    y_true: np.ndarray, y_pred: np.ndarray, groups: np.ndarray, *, confidence: float = 0.95
) -> ClassFractions:
    """Return how many samples in groups carry as much information as one independent sample.

    This design effect is the variance of a fraction if groups are drawn at random, divided by the
    variance if samples are (Rao and Scott 1992, doi:10.2307/2532311). Few groups are corrected for
    by the ratio of the quantiles of Student's t and of the normal distribution (Korn and Graubard
    1998, Survey Methodology 24). If all samples are right, or all are wrong, a group counts as one
    sample. `y_true` and `y_pred` are class indices; `groups` are labels of any kind.

    Examples
    --------
    >>> y = np.zeros(40, int)
    >>> y_pred = np.repeat([0, 0, 0, 1], 10)  # all ten images of the last patient are wrong
    >>> groups = np.repeat(["a", "b", "c", "d"], 10)
    >>> bool(design_effects(y, y_pred, groups).accuracy > 10)
    True
    """
    n_classes = int(max(y_true.max(), y_pred.max())) + 1
    numbers, is_right = np.unique(groups, return_inverse=True)[1], y_true == y_pred

    def effects(classes: np.ndarray, rows: Any = slice(None), n: int = n_classes) -> np.ndarray:
        return _effects(classes, is_right[rows], numbers[rows], n_classes=n, confidence=confidence)

    wrong = np.flatnonzero(~is_right)  # which count for two classes
    either = np.concatenate([y_true, y_pred[wrong]])
    return ClassFractions(
        effects(np.zeros_like(y_true), n=1)[0],
        effects(y_pred),
        effects(y_true),
        effects(either, np.concatenate([np.arange(len(y_true)), wrong])),
    )


def _effects(
    classes: np.ndarray,
    is_right: np.ndarray,
    groups: np.ndarray,
    *,
    n_classes: int,
    confidence: float,
) -> np.ndarray:
    """Return the design effect of the fraction of right samples in each class; 1 without any."""
    n_labels = groups.max() + 1
    parts, places = np.unique(classes * n_labels + groups, return_inverse=True)
    sizes, right, of = np.bincount(places), np.bincount(places, is_right), parts // n_labels

    def total(values: np.ndarray | None = None) -> np.ndarray:
        return np.bincount(of, values, minlength=n_classes).astype(np.float64)

    n_groups, n = total(), np.maximum(total(sizes), 1)
    fraction = total(right) / n
    largest = total(sizes**2) / n  # if the samples of a group are right or wrong together
    variance = total((right - fraction[of] * sizes) ** 2) / n**2
    variance *= n_groups / np.maximum(n_groups - 1, 1)
    plain = fraction * (1 - fraction) / n
    is_measured = (n_groups > 1) & (plain > 0)
    measured = np.divide(variance, plain, out=np.zeros(n_classes), where=is_measured)
    effect = np.where(is_measured, np.clip(measured, 1, np.maximum(largest, 1)), largest)
    tail = (1 + confidence) / 2
    few = stats.t.ppf(tail, np.maximum(n_groups - 1, 1)) / stats.norm.ppf(tail)
    return np.where(n_groups > 0, effect * few**2, 1.0)
