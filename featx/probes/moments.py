"""Weighted first and second moments of samples and targets, which add up over parts of the data.

All that least squares asks of data is in them: the moments of what a fold trains on are those of
everything, less those of the fold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import blas

from featx.probes.arrays import NUMBERS_AT_ONCE, cast, is_foreign, like, namespace, take, to_numpy

_ROWS_AT_ONCE = 1024
_LEAST_LEFT = 1e-6  # of what was subtracted from: six digits are lost, ten are left
_CONSTANT = 1e-20  # of the largest sum of squares


def rows_of(X: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows; those that follow one another without copying them.

    Parameters
    ----------
    X : ndarray or view of shape (n, d)
    rows : ndarray of int of shape (m,)
        One or more, from 0 on.

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
        X : array or view of shape (n, d)
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
        if is_foreign(X):
            return cls._of_foreign(X, Y, weights, rows, shift)
        # Samples and ones side by side: their products hold all of the sums.
        n_columns = X.shape[1] + 1
        shifts = np.zeros(n_columns)
        shifts[:-1] = shift
        gram = np.zeros((n_columns, n_columns), order="F")
        products = np.zeros((n_columns, Y.shape[1]), order="F")
        parts = np.empty((min(len(rows), _ROWS_AT_ONCE), n_columns))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            part, targets = parts[: len(some)], Y[some]
            part[:, :-1] = rows_of(X, some)
            part[:, -1] = 1
            part -= shifts  # of whole rows, which is faster
            if (weights[some] != 1).any():
                roots = np.sqrt(weights[some, np.newaxis])
                part *= roots
                targets = targets * roots
            gram = blas.dsyrk(1.0, part.T, beta=1.0, c=gram, overwrite_c=1, lower=1)
            products = blas.dgemm(
                1.0, part.T, targets.T, trans_b=1, beta=1.0, c=products, overwrite_c=1
            )
        return cls._from(gram, products)

    @classmethod
    def _of_foreign(
        cls,
        X: Any,
        Y: np.ndarray,
        weights: np.ndarray,
        rows: np.ndarray,
        shift: np.ndarray | float,
    ) -> Self:
        """Sum up samples where they are, on a GPU: a few large products."""
        xp, double = namespace(X), np.dtype(np.float64)
        shift = like(np.asarray(shift), X, double)
        gram, products = 0.0, 0.0
        n_at_once = max(1, NUMBERS_AT_ONCE // (X.shape[1] + Y.shape[1]))
        for start in range(0, len(rows), n_at_once):
            some = rows[start : start + n_at_once]
            roots = like(np.sqrt(weights[some, np.newaxis]), X)
            part = xp.concat([cast(take(X, some), double) - shift, xp.ones_like(roots)], axis=1)
            part = part * roots
            gram = gram + part.T @ part
            products = products + part.T @ (like(Y[some], X) * roots)
        return cls._from(np.asfortranarray(to_numpy(gram)), to_numpy(products))

    @classmethod
    def _from(cls, gram: np.ndarray, products: np.ndarray) -> Self:
        """Take apart what samples and ones give: Gram matrix, its lower triangle, and targets."""
        sums = gram[-1]
        return cls(float(sums[-1]), sums[:-1], products[-1], gram[:-1, :-1], products[:-1])

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

    def has_digits_beside(self, whole: Self, *, centered: bool) -> bool:
        """Tell whether these moments, which are what was left of `whole`, are more than rounding.

        Parameters
        ----------
        whole : Moments
        centered : bool
            Whether those around the means are asked for. Features that hardly vary do not count.
        """
        if not self.weight >= _LEAST_LEFT * whole.weight:
            return False
        left, before = np.diag(self.xx), np.diag(whole.xx)
        if centered:
            left = left - self.x**2 / self.weight
        varies = before > _CONSTANT * before.max()
        return bool((left >= _LEAST_LEFT * before)[varies].all())

    def centered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return Gram matrix (d, d), its lower triangle, and products (d, t) around the means."""
        return (
            blas.dsyr(-1 / self.weight, self.x, lower=1, a=self.xx),
            self.xy - np.outer(self.x, self.y / self.weight),
        )
