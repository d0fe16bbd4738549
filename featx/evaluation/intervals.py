"""Between which values a measure would lie if other samples of the same kind had been drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.stats import binomtest

_N_RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000


class _Measures(NamedTuple):
    """What follows from confusion matrices, each of shape (n_resamples, n_classes).

    NaN where nothing is predicted, or nothing is there.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def intervals(counts: np.ndarray, *, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
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
    seed : int, default=0
        Of the bootstrap.

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
    draws = _resampled(counts, seed)
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


def _resampled(counts: np.ndarray, seed: int) -> _Measures:
    """Return what follows from confusion matrices of as many samples, drawn from these."""
    rng = np.random.default_rng(seed)
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
