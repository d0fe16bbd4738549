"""Outliers: samples that resemble no others in their embeddings."""

from __future__ import annotations

import numpy as np
from sklearn.preprocessing import normalize

from featx.evaluation.pixel_hashes import nearest_rows

_FAR = 3.5
_FEW = 30  # samples, among which ten neighbors are not near
_QUARTILE = 0.6745  # of the normal distribution


def find_outliers(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each sample is from its ten nearest neighbors, and the rows of outliers.

    How far is the mean of 1 minus the cosine, as a robust z-score: the difference from the median,
    divided by that of the upper quartile from the median, times 0.6745. Outliers have more than
    3.5 (Iglewicz and Hoaglin 1993, "How to Detect and Handle Outliers", who use the median absolute
    deviation; the upper half alone fits these skewed distances better). If most samples are equally
    far, or there are fewer than 30, there are no outliers.

    `embeddings` (n_samples, n_features) are finite; the result is (n_samples,) float64, and the
    rows, int64, the farthest first.

    Examples
    --------
    >>> X = np.random.default_rng(0).standard_normal((60, 50)) + 4
    >>> X[7] *= np.where(np.arange(50) % 2, 1, -1)
    >>> find_outliers(X)[1].tolist()
    [7]
    """
    if len(embeddings) < _FEW:
        return np.zeros(len(embeddings)), np.zeros(0, np.int64)
    neighbors = nearest_rows(normalize(np.asarray(embeddings, np.float32)))
    mean = neighbors.distances.mean(axis=1, dtype=np.float64)
    median, quartile = np.percentile(mean, [50, 75])
    spread = quartile - median
    scores = (mean - median) / spread * _QUARTILE if spread > 1e-6 else np.zeros_like(mean)
    rows = np.flatnonzero(scores > _FAR)
    return scores, rows[np.argsort(-scores[rows], kind="stable")]
