"""Between which values a measure would lie if other samples of the same kind had been drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

_N_RESAMPLES = 2000
_CELLS_AT_ONCE = 4_000_000


class Measures(NamedTuple):
    """What follows from a confusion matrix, or from many.

    Attributes
    ----------
    accuracy : ndarray of shape (...)
    precision, recall, f1 : ndarray of shape (..., n_classes)
        0 where nothing is predicted, or nothing is there.
    """

    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def bootstrap_intervals(
    counts: np.ndarray, *, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Estimate intervals of confidence by the bootstrap (Efron 1979), with percentiles.

    Samples are drawn anew, with replacement, 2,000 times. To draw samples is to draw cells of their
    confusion matrix, which takes the same time for a million samples as for a hundred.

    Parameters
    ----------
    counts : ndarray of shape (n_classes, n_classes), int
        Rows are true classes, columns predicted ones.
    confidence : float, default=0.95
    seed : int, default=0

    Returns
    -------
    dict
        From ``"accuracy"``, and ``"macro"`` of ``"precision"``, ``"recall"`` and ``"f1-score"``, to
        the two ends; in ``"classes"`` a list of the latter for each class. A class that is there
        neither in truth nor in prediction counts as 0 in a resample, as it does in the measures.

    Examples
    --------
    >>> bootstrap_intervals(np.array([[45, 5], [5, 45]]))["accuracy"]
    [0.84, 0.95]
    """
    draws = _resampled(counts, seed)
    tail = 100 * (1 - confidence) / 2

    def ends(values: np.ndarray) -> list[float]:
        low, high = np.percentile(values, [tail, 100 - tail])
        return [float(low), float(high)]

    by_class = {
        "precision": draws.precision,
        "recall": draws.recall,
        "f1-score": draws.f1,
    }
    return {
        "confidence": confidence,
        "accuracy": ends(draws.accuracy),
        "macro": {name: ends(values.mean(axis=1)) for name, values in by_class.items()},
        "classes": [
            {name: ends(values[:, label]) for name, values in by_class.items()}
            for label in range(len(counts))
        ],
    }


def _resampled(counts: np.ndarray, seed: int) -> Measures:
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
    return Measures(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _summed(drawn: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Add up the cells of each class: (n_resamples, n_classes)."""
    places = (np.arange(len(labels)), labels)
    is_of = sparse.csr_array((np.ones(len(labels)), places), shape=(len(labels), n_classes))
    return drawn @ is_of


def _measures(right: np.ndarray, there: np.ndarray, told: np.ndarray) -> Measures:
    return Measures(
        accuracy=right.sum(axis=1) / there.sum(axis=1),
        precision=_share(right, told),
        recall=_share(right, there),
        f1=_share(2 * right, there + told),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
