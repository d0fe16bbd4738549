"""``find_outliers``: samples whose embeddings are far from those of all others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from featx.evaluation.neighbors import COPY, nearest_neighbors

_K = 10
_FENCE = 3.0  # interquartile ranges: "far out" (Tukey 1977, "Exploratory Data Analysis")
_MOST_COMPARED = 20_000


class Outliers(NamedTuple):
    """Distances of all rows to their neighbors, and the outliers among them.

    Attributes
    ----------
    distance : ndarray of shape (n_samples,), float32
        Mean cosine distance to the ten nearest rows, copies excepted.
    rows : ndarray, int64
        Outliers, the farthest first.
    """

    distance: np.ndarray
    rows: np.ndarray


def find_outliers(embeddings: np.ndarray) -> Outliers:
    """Find rows that are far from their ten nearest neighbors by cosine (Ramaswamy et al. 2000).

    Outliers are more than three interquartile ranges above the upper quartile of all distances.
    Neighbors are sought among 20,000 evenly spaced rows if there are more.

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(3, 1, (200, 8))
    >>> rows[7] = [-9, 0, 0, 0, 0, 0, 0, 9]
    >>> find_outliers(rows).rows.tolist()
    [7]
    """
    n_rows = len(embeddings)
    k = min(_K, n_rows - 1)
    if k < 1:
        return Outliers(np.zeros(n_rows, np.float32), np.empty(0, np.int64))
    compared = embeddings
    if n_rows > _MOST_COMPARED:
        compared = embeddings[np.linspace(0, n_rows - 1, _MOST_COMPARED).astype(np.int64)]
    _, cosines = nearest_neighbors(embeddings, compared, k=k, below=COPY)
    is_found = np.isfinite(cosines)
    n_found = np.maximum(is_found.sum(axis=1), 1)
    distance = (np.where(is_found, 1 - cosines, 0).sum(axis=1) / n_found).astype(np.float32)
    lower, upper = np.quantile(distance, [0.25, 0.75])
    far = np.flatnonzero(distance > upper + _FENCE * (upper - lower))
    return Outliers(distance, far[np.argsort(-distance[far], kind="stable")])
