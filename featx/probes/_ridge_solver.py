"""Ridge regression for all strengths from one decomposition, primal or dual.

Hoerl and Kennard (1970), "Ridge Regression: Biased Estimation for Nonorthogonal Problems", with the
normal equations as in Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical
Learning", section 3.4.1. The dual form solves in the space of the samples, where those are fewer
than the features.

Weighted first and second moments of samples and targets, which add up over parts of the data.

All that least squares asks of data is in them: the moments of what a fold trains on are those of
everything, less those of the fold.

Linear systems that differ by a multiple of the identity, for many multiples.

A symmetric matrix is brought to tridiagonal form once (Golub and Van Loan 2013, "Matrix
Computations", 4th edition, section 8.3.1); there a system of any multiple costs a sweep over the
diagonal, and the way back one product for all. It is the way of Eldén (1977), "Algorithms for the
regularization of ill-conditioned least squares problems", with the matrix in place of its root. It
costs half of an eigendecomposition, which is the way where a multiple is lost in rounding.

Numpy and scipy each bring a BLAS with threads of its own, and those of the one go on spinning for a
tenth of a second after their work: a decomposition by scipy's after a product by numpy's takes
twice as long (160 ms instead of 72, 1,280 columns, 2 cores, 2026-11). So large products between
decompositions are scipy's, too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any, Self

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from featx._threads import blas_threads_for
from featx.exceptions import InputError
from featx.probes._arrays import (
    NUMBERS_AT_ONCE,
    cast,
    is_foreign,
    like,
    namespace,
    take,
    to_numpy,
    weighted_mean,
)
from featx.probes._validation import Fold

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


_LAPACK_BLOCK = 64  # columns; more work space brings nothing
_WORK = 16  # times what a product of its size takes: threads pay from 512 rows on
_SMALL = 3  # rows, below which there is nothing to bring to tridiagonal form


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply two matrices with scipy's BLAS.

    Parameters
    ----------
    left : ndarray of shape (m, k)
    right : ndarray of shape (k, n)
        Both are copied if they are not C-contiguous, and unless both are float32 or float64.

    Returns
    -------
    ndarray of shape (m, n), C-contiguous, float64, or float32 if both are

    Examples
    --------
    >>> product(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """
    are_single = left.dtype == right.dtype == np.float32
    gemm = blas.sgemm if are_single else blas.dgemm
    return gemm(1.0, right.T, left.T).T


class ShiftedSystems:
    """Solves ``(A + alpha * I) Z = B`` for many alphas.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), float64
        A, symmetric, without negative eigenvalues but by rounding; its lower triangle is read.
    right : ndarray of shape (n, t), float64
        B.

    Examples
    --------
    >>> systems = ShiftedSystems(np.diag([1.0, 2.0, 3.0]), np.ones((3, 1)))
    >>> systems.at(np.array([1.0])).ravel().round(3)
    array([0.5  , 0.333, 0.25 ])
    """

    def __init__(self, matrix: np.ndarray, right: np.ndarray) -> None:
        self._matrix, self._right = matrix, right
        if len(matrix) < _SMALL:
            return
        with blas_threads_for(_WORK * matrix.nbytes):
            packed, self._diagonal, self._beside, self._taus, _ = lapack.dsytrd(
                matrix, lower=1, lwork=_LAPACK_BLOCK * len(matrix)
            )
        self._reflectors = np.asfortranarray(packed[1:, :-1])
        self._turned = self._reflected(right, "T")

    def at(self, alphas: np.ndarray) -> np.ndarray:
        """Solve for some alphas over 0.

        Parameters
        ----------
        alphas : ndarray of shape (n_alphas,)

        Returns
        -------
        ndarray of shape (n, n_alphas, t), float64
        """
        if len(self._matrix) < _SMALL:
            return self._by_eigenvalues(alphas)
        size = np.abs(self._diagonal).max() + 2 * np.abs(self._beside).max()
        least = 8 * np.finfo(np.float64).eps * size
        n_targets = self._right.shape[1]
        solved = np.empty((len(self._matrix), len(alphas) * n_targets), order="F")
        is_lost = np.zeros(len(alphas), bool)
        for number, alpha in enumerate(alphas):
            pivots, factors, fault = lapack.dpttrf(self._diagonal + alpha, self._beside)
            columns = slice(number * n_targets, (number + 1) * n_targets)
            is_lost[number] = fault or not pivots.min() >= least  # NaN is lost, too
            solved[:, columns] = (
                0 if is_lost[number] else lapack.dpttrs(pivots, factors, self._turned)[0]
            )
        found = self._reflected(solved, "N").reshape(len(solved), len(alphas), n_targets)
        if is_lost.any():
            found[:, is_lost] = self._by_eigenvalues(alphas[is_lost])
        return found

    def _reflected(self, columns: np.ndarray, transposed: str) -> np.ndarray:
        """Turn columns into the basis of the tridiagonal form ("T") or back ("N")."""
        reflected = np.asfortranarray(columns)
        lwork = _LAPACK_BLOCK * max(1, columns.shape[1])
        below, _, _ = lapack.dormqr(
            "L", transposed, self._reflectors, self._taus, reflected[1:], lwork
        )
        return np.concatenate([reflected[:1], below])

    def _by_eigenvalues(self, alphas: np.ndarray) -> np.ndarray:
        values, vectors = self._eigen
        products = vectors.T @ self._right
        shrunk = products[:, np.newaxis] / (values[:, np.newaxis] + alphas)[..., np.newaxis]
        return (vectors @ shrunk.reshape(len(shrunk), -1)).reshape(shrunk.shape)

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self._matrix)
        return np.maximum(values, 0), vectors


_MAX_BYTES_HELD = 2**30  # in Gram matrices of folds; more are made when they are due


class Solutions(ABC):
    """Coefficients and intercepts of ridge regression for any strengths."""

    n_targets: int
    x_mean: np.ndarray  # (d,)
    _y_mean: np.ndarray  # (t,)
    _fit_intercept: bool

    def at(self, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (d, n_alphas, t) and intercepts (n_alphas, t)."""
        coefs = self._coefficients(alphas)
        if not self._fit_intercept:
            return coefs, np.zeros(coefs.shape[1:])
        at_mean = product(self.x_mean[np.newaxis], coefs.reshape(len(coefs), -1))
        return coefs, self._y_mean - at_mean.reshape(coefs.shape[1:])

    @abstractmethod
    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        """Return coefficients (d, n_alphas, t)."""


def solve(
    X: np.ndarray,
    Y: np.ndarray,
    weights: np.ndarray,
    folds: Sequence[Fold],
    *,
    fit_intercept: bool,
) -> Iterator[Solutions]:
    """Solve ridge regression on what each fold trains on, and then on everything.

    Parameters
    ----------
    X : array or view of shape (n, d)
    Y : ndarray of shape (n, t), float64
    weights : ndarray of shape (n,), float64
    folds : sequence of (train, test)
        Row numbers.
    fit_intercept : bool

    Yields
    ------
    Solutions
        One for each fold, and the last of all samples.
    """
    shift = np.zeros(X.shape[1])
    if fit_intercept:
        shift = weighted_mean(X, weights)
    n_samples = len(Y)
    if n_samples < X.shape[1]:
        X = to_numpy(X)  # too few to be worth the way to a GPU
        centered = X - shift
        kernel = centered @ centered.T
        _check_finite(kernel, Y)
        for rows in [*(train for train, _ in folds), np.arange(n_samples)]:
            part = kernel[np.ix_(rows, rows)]
            yield DualSolutions(X[rows], Y[rows], weights[rows], part, fit_intercept=fit_intercept)
        return

    def moments_of(rows: np.ndarray) -> Moments:
        return Moments.of(X, Y, weights, rows, shift=shift)

    tests = [test for _, test in folds]
    held: Iterable[Moments]
    every = np.arange(n_samples)
    if len(folds) * X.shape[1] ** 2 * 8 > _MAX_BYTES_HELD:
        total, held = moments_of(every), map(moments_of, tests)  # one by one, when they are due
    else:
        held = [moments_of(test) for test in tests]
        are_parts = np.array_equal(np.sort(np.concatenate(tests)), every)
        total = reduce(add, held) if are_parts else moments_of(every)
    _check_finite(total.xx, total.xy)

    def solutions_of(fold: Fold, moments: Moments) -> PrimalSolutions:
        train, test = fold
        both = np.concatenate([train, test])  # a split may repeat rows, or leave some out
        if len(both) == len(every) and np.array_equal(np.sort(both), every):
            rest = total - moments
            if rest.has_digits_beside(total, centered=fit_intercept):
                return PrimalSolutions(rest, shift, fit_intercept=fit_intercept)
        # What was held out may be far from the others: their own mean leaves more digits.
        own = shift
        if fit_intercept:
            trained = np.bincount(train, weights[train], n_samples)
            own = weighted_mean(X, trained)
        moments = Moments.of(X, Y, weights, train, shift=own)
        return PrimalSolutions(moments, own, fit_intercept=fit_intercept)

    yield from map(solutions_of, folds, held)
    yield PrimalSolution(total, shift, fit_intercept=fit_intercept)  # of one strength


def _check_finite(products: np.ndarray, targets: np.ndarray) -> None:
    if not (np.isfinite(products).all() and np.isfinite(targets).all()):
        raise InputError("X or y holds NaN, or numbers that are infinite or too large")


class PrimalSolutions(Solutions):
    """From the moments of what is trained on.

    Parameters
    ----------
    moments : Moments
        Of samples from which `shift` was subtracted: nothing, where there is no intercept.
    shift : ndarray of shape (d,)
    fit_intercept : bool
    """

    def __init__(self, moments: Moments, shift: np.ndarray, *, fit_intercept: bool) -> None:
        self.x_mean, self._y_mean = _means(moments, shift)
        self._fit_intercept, self.n_targets = fit_intercept, len(moments.y)
        xx, xy = moments.centered() if fit_intercept else (moments.xx, moments.xy)
        self._systems = ShiftedSystems(xx, xy)

    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        return self._systems.at(alphas)


class PrimalSolution(Solutions):
    """The same for one strength at a time, by Cholesky decomposition.

    Parameters
    ----------
    moments : Moments
    shift : ndarray of shape (d,)
    fit_intercept : bool
    """

    def __init__(self, moments: Moments, shift: np.ndarray, *, fit_intercept: bool) -> None:
        self._moments, self._shift, self._fit_intercept = moments, shift, fit_intercept
        self.x_mean, self._y_mean = _means(moments, shift)
        self.n_targets = len(moments.y)

    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        (alpha,) = alphas
        moments = self._moments
        xx, xy = moments.centered() if self._fit_intercept else (moments.xx, moments.xy)
        try:
            shifted = xx + alpha * np.eye(len(xx))
            factor = linalg.cho_factor(shifted, lower=True, overwrite_a=True)
        except linalg.LinAlgError:  # features repeat one another, and alpha is tiny
            every = PrimalSolutions(moments, self._shift, fit_intercept=self._fit_intercept)
            return every._coefficients(alphas)
        return linalg.cho_solve(factor, xy)[:, np.newaxis]


class DualSolutions(Solutions):
    """From the products of each two samples that are trained on.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    Y : ndarray of shape (n, t), float64
    weights : ndarray of shape (n,), float64
    kernel : ndarray of shape (n, n)
        ``Z @ Z.T``, where Z is X less any row, which has to be zero where there is no intercept.
    fit_intercept : bool
    """

    def __init__(
        self,
        X: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray,
        kernel: np.ndarray,
        *,
        fit_intercept: bool,
    ) -> None:
        self._fit_intercept, self.n_targets = fit_intercept, Y.shape[1]
        shares = weights / weights.sum()
        self.x_mean, self._y_mean = shares @ X, shares @ Y
        self._roots = np.sqrt(weights)[:, np.newaxis]
        self._centered = X
        if fit_intercept:
            self._centered = X - self.x_mean
            to_mean = kernel @ shares
            kernel = kernel - to_mean - to_mean[:, np.newaxis] + shares @ to_mean
            Y = Y - self._y_mean
        self._systems = ShiftedSystems(kernel * self._roots * self._roots.T, Y * self._roots)

    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        return _times((self._centered * self._roots).T, self._systems.at(alphas))


def _means(moments: Moments, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the features (d,), of which `shift` was subtracted, and targets (t,)."""
    return moments.x / moments.weight + shift, moments.y / moments.weight


def _times(matrix: np.ndarray, stack: np.ndarray) -> np.ndarray:
    """Multiply (k, m) by (m, n_alphas, t), in one product."""
    flat = product(matrix, stack.reshape(len(stack), -1))
    return flat.reshape(len(matrix), *stack.shape[1:])
