"""Weighted first and second moments of samples and targets, which add up over parts of the data.

All that least squares asks of data is in them: the moments of what a fold trains on are those of
everything, less those of the fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import blas

_ROWS_AT_ONCE = 2048


def rows_of(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows; those that follow one another without copying them.

    Parameters
    ----------
    X : ndarray or view of shape (n, d)
    rows : ndarray of int of shape (m,)

    Examples
    --------
    >>> X = np.arange(4)
    >>> rows_of(X, np.array([1, 2])), rows_of(X, np.array([2, 1]))
    (array([1, 2]), array([2, 1]))
    """
    first = rows[0]
    is_slice = np.array_equal(rows, np.arange(first, first + len(rows)))
    return X[first : first + len(rows)] if is_slice else X[rows]


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
        Gram matrix of the weighted samples, its lower triangle.
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
        # Samples, targets and ones side by side: their Gram matrix holds all of the sums.
        d, t = X.shape[1], Y.shape[1]
        gram = np.zeros((d + t + 1, d + t + 1), order="F")
        parts = np.empty((min(len(rows), _ROWS_AT_ONCE), d + t + 1))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            part = parts[: len(some)]
            np.subtract(rows_of(X, some), shift, out=part[:, :d])
            part[:, d:-1], part[:, -1] = Y[some], 1
            if (weights[some] != 1).any():
                part *= np.sqrt(weights[some, np.newaxis])
            gram = blas.dsyrk(1.0, part.T, beta=1.0, c=gram, overwrite_c=1, lower=1)
        sums = gram[-1]
        return cls(float(sums[-1]), sums[:d], sums[d:-1], gram[:d, :d], gram[d:-1, :d].T)

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
        """Return Gram matrix (d, d), its lower triangle, and products (d, t) around the means."""
        return (
            blas.dsyr(-1 / self.weight, self.x, lower=1, a=self.xx),
            self.xy - np.outer(self.x, self.y / self.weight),
        )
