"""Weighted first and second moments of samples and targets, which add up over parts of the data.

All that least squares asks of data is in them: the moments of what a fold trains on are those of
everything, less those of the fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

_ROWS_AT_ONCE = 8192


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over samples, all in float64.

    Attributes
    ----------
    weight : float
        Sum of the weights.
    x : ndarray of shape (d,)
        Weighted sum of the samples.
    y : ndarray of shape (t,)
        Weighted sum of the targets.
    xx : ndarray of shape (d, d)
        Gram matrix of the weighted samples.
    xy : ndarray of shape (d, t)
        Their products with the targets.
    """

    weight: float
    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(
        cls,
        X: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray,
        rows: np.ndarray,
        *,
        shift: np.ndarray | float = 0.0,
    ) -> Self:
        """Sum up samples, a few thousand at a time.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        Y : ndarray of shape (n, t), float64
        weights : ndarray of shape (n,), float64
        rows : ndarray of shape (m,)
            Which of them.
        shift : ndarray of shape (d,) or float, default=0.0
            Subtracted from the samples first. Their mean, even about, saves the digits that a Gram
            matrix loses where a mean is large beside the spread.

        Examples
        --------
        >>> X, Y = np.arange(6.0).reshape(3, 2), np.ones((3, 1))
        >>> Moments.of(X, Y, np.ones(3), np.array([1, 2])).x
        array([6., 8.])
        """
        n_features, n_targets = X.shape[1], Y.shape[1]
        xx = np.zeros((n_features, n_features))
        x, xy = np.zeros(n_features), np.zeros((n_features, n_targets))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            roots = np.sqrt(weights[some, np.newaxis])
            part = X[some].astype(np.float64, copy=False)
            part -= shift
            if (roots != 1).any():
                part *= roots
            xx += part.T @ part
            x += roots[:, 0] @ part
            xy += part.T @ (Y[some] * roots)
        return cls(float(weights[rows].sum()), x, weights[rows] @ Y[rows], xx, xy)

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.weight + other.weight,
            self.x + other.x,
            self.y + other.y,
            self.xx + other.xx,
            self.xy + other.xy,
        )

    def __sub__(self, other: Self) -> Self:
        return type(self)(
            self.weight - other.weight,
            self.x - other.x,
            self.y - other.y,
            self.xx - other.xx,
            self.xy - other.xy,
        )

    def centered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the Gram matrix (d, d) and the products (d, t) around the means."""
        return (
            self.xx - np.outer(self.x, self.x / self.weight),
            self.xy - np.outer(self.x, self.y / self.weight),
        )
