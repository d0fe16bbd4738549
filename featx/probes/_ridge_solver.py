"""``solve_ridge``: ridge regression for all strengths from one decomposition, primal or dual.

Hoerl and Kennard (1970), "Ridge Regression: Biased Estimation for Nonorthogonal Problems", with the
normal equations as in Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical
Learning", section 3.4.1. The dual form solves in the space of the samples, where those are fewer
than the features.

Least squares needs only weighted first and second moments, which add up over parts of the data: the
moments of the training part of a fold are those of all samples less those of its test part.

NumPy and SciPy each bring a BLAS with its own threads, which keep spinning for a tenth of a second
after their work: a decomposition by SciPy after a product by NumPy takes twice as long (160 ms
instead of 72, 1,280 columns, 2 cores, 2026-11). So SciPy also computes large products between
decompositions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add, sub
from typing import Any, NamedTuple, Self

import numpy as np
from scipy import linalg
from scipy.linalg import blas, lapack

from featx._threads import blas_threads_for
from featx.exceptions import InputError
from featx.probes._arrays import (
    MAX_GPU_ELEMENTS,
    as_array_like,
    cast_floats,
    is_array_api,
    namespace,
    take_rows,
    to_numpy,
    weighted_mean,
)
from featx.probes._classes_and_folds import Fold

_ROWS_AT_ONCE = 1024
_MAX_GRAM_BYTES = 2**30  # of the Gram matrices of all folds; if larger, one is in memory at a time
_MIN_FRACTION_LEFT = 1e-6  # after a subtraction that loses six digits, of which ten are left
_CONSTANT = 1e-20  # of the largest sum of squares
_LAPACK_BLOCK = 64  # columns; more work space is not faster
_WORK_FACTOR = 16  # relative to a product of this size, so that threads are used from 512 rows on
_MIN_ROWS = 3  # matrices with fewer rows are tridiagonal already


def solve_ridge(
    X: Any,
    Y: np.ndarray,
    weights: np.ndarray,
    folds: Sequence[Fold],
    *,
    fit_intercept: bool,
) -> Iterator[Solutions]:
    """Yield the solutions for the training part of each fold, and then for all samples.

    Targets Y (n, t) and weights (n,) are float64. The last solutions accept one strength at a time.
    """
    shift = weighted_mean(X, weights) if fit_intercept else np.zeros(X.shape[1])
    solve_form = _solve_dual if len(Y) < X.shape[1] else _solve_primal
    yield from solve_form(_RidgeProblem(X, Y, weights, shift, fit_intercept), folds)


class _RidgeProblem(NamedTuple):
    """Rows (n, d), targets (n, t) and weights (n,), and a shift (d,) to subtract from the rows."""

    X: Any
    Y: np.ndarray
    weights: np.ndarray
    shift: np.ndarray
    fit_intercept: bool

    def moments(self, rows: np.ndarray) -> Moments:
        return Moments.of(self.X, self.Y, self.weights, rows, shift=self.shift)


def _solve_dual(problem: _RidgeProblem, folds: Sequence[Fold]) -> Iterator[Solutions]:
    """Yield solutions from the products of samples, in NumPy, since they are too few for a GPU."""
    X, Y, weights = to_numpy(problem.X), problem.Y, problem.weights
    centered = X - problem.shift
    kernel = centered @ centered.T
    _check_finite(kernel, Y)
    for rows in [*(train for train, _ in folds), np.arange(len(Y))]:
        part, fit_intercept = kernel[np.ix_(rows, rows)], problem.fit_intercept
        yield _DualSolutions(X[rows], Y[rows], weights[rows], part, fit_intercept=fit_intercept)


def _solve_primal(problem: _RidgeProblem, folds: Sequence[Fold]) -> Iterator[Solutions]:
    """Yield solutions from the moments of samples."""
    every = np.arange(len(problem.Y))
    tests = [test for _, test in folds]
    test_moments: Iterable[Moments]
    if len(folds) * problem.X.shape[1] ** 2 * 8 > _MAX_GRAM_BYTES:
        total, test_moments = problem.moments(every), map(problem.moments, tests)
    else:
        test_moments = [problem.moments(test) for test in tests]
        are_parts = np.array_equal(np.sort(np.concatenate(tests)), every)
        total = reduce(add, test_moments) if are_parts else problem.moments(every)
    _check_finite(total.xx, total.xy)
    yield from map(partial(_solve_fold, problem, total), folds, test_moments)
    yield _PrimalSolution(total, problem.shift, fit_intercept=problem.fit_intercept)


def _solve_fold(
    problem: _RidgeProblem, total: Moments, fold: Fold, test_moments: Moments
) -> _PrimalSolutions:
    """Return the solutions for the training part of a fold from the moments of its test part."""
    train, test = fold
    fit_intercept = problem.fit_intercept
    n_samples = len(problem.Y)
    both = np.concatenate([train, test])  # a split may repeat rows, or leave some out
    if len(both) == n_samples and np.array_equal(np.sort(both), np.arange(n_samples)):
        rest = total - test_moments
        if rest.survives_cancellation(total, centered=fit_intercept):
            return _PrimalSolutions(rest, problem.shift, fit_intercept=fit_intercept)
    # The test part may be far from the rest, whose own mean leaves more digits.
    if fit_intercept:
        counted = np.bincount(train, problem.weights[train], n_samples)
        problem = problem._replace(shift=weighted_mean(problem.X, counted))
    return _PrimalSolutions(problem.moments(train), problem.shift, fit_intercept=fit_intercept)


class Solutions(ABC):
    """Coefficients and intercepts of ridge regression for any strength."""

    n_targets: int
    x_mean: np.ndarray  # (d,)
    _y_mean: np.ndarray  # (t,)
    _fit_intercept: bool

    def at(self, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (d, n_alphas, t) and intercepts (n_alphas, t)."""
        coefs = self._coefficients(alphas)
        if not self._fit_intercept:
            return coefs, np.zeros(coefs.shape[1:])
        at_mean = matrix_product(self.x_mean[np.newaxis], coefs.reshape(len(coefs), -1))
        return coefs, self._y_mean - at_mean.reshape(coefs.shape[1:])

    @abstractmethod
    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        """Return coefficients (d, n_alphas, t)."""


def _check_finite(products: np.ndarray, targets: np.ndarray) -> None:
    if not (np.isfinite(products).all() and np.isfinite(targets).all()):
        raise InputError("X or y holds NaN, or numbers that are infinite or too large")


class _PrimalSolutions(Solutions):
    """Solutions from the moments of the training part, less a shift (zero without intercept)."""

    def __init__(self, moments: Moments, shift: np.ndarray, *, fit_intercept: bool) -> None:
        self.x_mean, self._y_mean = _feature_and_target_means(moments, shift)
        self._fit_intercept, self.n_targets = fit_intercept, len(moments.y)
        xx, xy = moments.centered() if fit_intercept else (moments.xx, moments.xy)
        self._systems = ShiftedSystems(xx, xy)

    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        return self._systems.at(alphas)


class _PrimalSolution(Solutions):
    """Solutions from moments for one strength at a time, by Cholesky decomposition."""

    def __init__(self, moments: Moments, shift: np.ndarray, *, fit_intercept: bool) -> None:
        self._moments, self._shift, self._fit_intercept = moments, shift, fit_intercept
        self.x_mean, self._y_mean = _feature_and_target_means(moments, shift)
        self.n_targets = len(moments.y)

    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        (alpha,) = alphas
        moments = self._moments
        xx, xy = moments.centered() if self._fit_intercept else (moments.xx, moments.xy)
        try:
            shifted = xx + alpha * np.eye(len(xx))
            factor = linalg.cho_factor(shifted, lower=True, overwrite_a=True)
        except linalg.LinAlgError:  # dependent features, and a tiny alpha
            every = _PrimalSolutions(moments, self._shift, fit_intercept=self._fit_intercept)
            return every._coefficients(alphas)
        return linalg.cho_solve(factor, xy)[:, np.newaxis]


class _DualSolutions(Solutions):
    """Solutions from the products of training samples.

    `kernel` is ``Z @ Z.T``, where Z is X less any row, which is zero without an intercept.
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
        fractions = weights / weights.sum()
        self.x_mean, self._y_mean = fractions @ X, fractions @ Y
        self._roots = np.sqrt(weights)[:, np.newaxis]
        self._centered = X
        if fit_intercept:
            self._centered = X - self.x_mean
            to_mean = kernel @ fractions
            kernel = kernel - to_mean - to_mean[:, np.newaxis] + fractions @ to_mean
            Y = Y - self._y_mean
        self._systems = ShiftedSystems(kernel * self._roots * self._roots.T, Y * self._roots)

    def _coefficients(self, alphas: np.ndarray) -> np.ndarray:
        solved = self._systems.at(alphas)
        coefs = matrix_product((self._centered * self._roots).T, solved.reshape(len(solved), -1))
        return coefs.reshape(len(coefs), *solved.shape[1:])


def _feature_and_target_means(moments: Moments, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of the features (d,), with their shift added, and of the targets (t,)."""
    return moments.x / moments.weight + shift, moments.y / moments.weight


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted sums over samples and targets, all in float64."""

    weight: float
    x: np.ndarray  # (d,)
    y: np.ndarray  # (t,)
    xx: np.ndarray  # (d, d), the lower triangle of the Gram matrix
    xy: np.ndarray  # (d, t)

    @classmethod
    def of(
        cls,
        X: Any,
        Y: np.ndarray,
        weights: np.ndarray,
        rows: np.ndarray,
        *,
        shift: np.ndarray | float = 0.0,
    ) -> Self:
        """Return the moments of some rows, summed in blocks.

        A shift (d,) is subtracted from the rows first. It is their approximate mean, since a Gram
        matrix loses digits if a mean is large compared with the spread.

        Examples
        --------
        >>> X, Y = np.arange(6.0).reshape(3, 2), np.ones((3, 1))
        >>> Moments.of(X, Y, np.ones(3), np.array([1, 2])).x
        array([6., 8.])
        """
        if is_array_api(X):
            return cls._of_array_api(X, Y, weights, rows, shift)
        # The products of samples and ones side by side hold all the sums.
        n_columns = X.shape[1] + 1
        shifts = np.zeros(n_columns)
        shifts[:-1] = shift
        gram = np.zeros((n_columns, n_columns), order="F")
        products = np.zeros((n_columns, Y.shape[1]), order="F")
        parts = np.empty((min(len(rows), _ROWS_AT_ONCE), n_columns))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            part, targets = parts[: len(some)], Y[some]
            part[:, :-1] = slice_or_take(X, some)
            part[:, -1] = 1
            part -= shifts  # from contiguous rows, which is faster
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
    def _of_array_api(
        cls,
        X: Any,
        Y: np.ndarray,
        weights: np.ndarray,
        rows: np.ndarray,
        shift: np.ndarray | float,
    ) -> Self:
        """Return the moments of rows on a GPU from a few large products there."""
        xp, double = namespace(X), np.dtype(np.float64)
        shift = as_array_like(np.asarray(shift), X, double)
        gram, products = 0.0, 0.0
        n_at_once = max(1, MAX_GPU_ELEMENTS // (X.shape[1] + Y.shape[1]))
        for start in range(0, len(rows), n_at_once):
            some = rows[start : start + n_at_once]
            roots = as_array_like(np.sqrt(weights[some, np.newaxis]), X)
            part = xp.concat(
                [cast_floats(take_rows(X, some), double) - shift, xp.ones_like(roots)], axis=1
            )
            part = part * roots
            gram = gram + part.T @ part
            products = products + part.T @ (as_array_like(Y[some], X) * roots)
        return cls._from(np.asfortranarray(to_numpy(gram)), to_numpy(products))

    @classmethod
    def _from(cls, gram: np.ndarray, products: np.ndarray) -> Self:
        """Return moments from the Gram matrix of samples and ones, and products with targets."""
        sums = gram[-1]
        return cls(float(sums[-1]), sums[:-1], products[-1], gram[:-1, :-1], products[:-1])

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, vars(self).values(), vars(other).values()))

    def __sub__(self, other: Self) -> Self:
        return type(self)(*map(sub, vars(self).values(), vars(other).values()))

    def survives_cancellation(self, total: Self, *, centered: bool) -> bool:
        """Return True if these moments, a difference from `total`, are more than rounding errors.

        `centered` checks the moments around the means. Constant features do not count.
        """
        if not self.weight >= _MIN_FRACTION_LEFT * total.weight:
            return False
        left, before = np.diag(self.xx), np.diag(total.xx)
        if centered:
            left = left - self.x**2 / self.weight
        varies = before > _CONSTANT * before.max()
        return bool((left >= _MIN_FRACTION_LEFT * before)[varies].all())

    def centered(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower triangle of the Gram matrix and the products (d, t) around the means."""
        return (
            blas.dsyr(-1 / self.weight, self.x, lower=1, a=self.xx),
            self.xy - np.outer(self.x, self.y / self.weight),
        )


class ShiftedSystems:
    """Linear systems ``(A + alpha * I) Z = B`` that are solved for many alphas, in float64.

    A is symmetric and, except for rounding, positive semidefinite; only its lower triangle is read.
    It is brought to tridiagonal form once (Golub and Van Loan 2013, "Matrix Computations", 4th
    edition, section 8.3.1). There each system costs a sweep over the diagonal, and one product
    transforms all solutions back. This is the method of Eldén (1977), "Algorithms for the
    regularization of ill-conditioned least squares problems", with the matrix in place of its root.
    It costs half of an eigendecomposition, which is used where an alpha is lost in rounding.

    Examples
    --------
    >>> systems = ShiftedSystems(np.diag([1.0, 2.0, 3.0]), np.ones((3, 1)))
    >>> systems.at(np.array([1.0])).ravel().round(3)
    array([0.5  , 0.333, 0.25 ])
    """

    def __init__(self, matrix: np.ndarray, right: np.ndarray) -> None:
        self._matrix, self._right = matrix, right
        if len(matrix) < _MIN_ROWS:
            return
        with blas_threads_for(_WORK_FACTOR * matrix.nbytes):
            packed, self._diagonal, self._beside, self._taus, _ = lapack.dsytrd(
                matrix, lower=1, lwork=_LAPACK_BLOCK * len(matrix)
            )
        self._reflectors = np.asfortranarray(packed[1:, :-1])
        self._projected = self._reflected(right, "T")

    def at(self, alphas: np.ndarray) -> np.ndarray:
        """Return the solutions (n, n_alphas, t), float64, for alphas (n_alphas,) over 0."""
        if len(self._matrix) < _MIN_ROWS:
            return self._by_eigenvalues(alphas)
        size = np.abs(self._diagonal).max() + 2 * np.abs(self._beside).max()
        least = 8 * np.finfo(np.float64).eps * size
        n_targets = self._right.shape[1]
        solved = np.empty((len(self._matrix), len(alphas) * n_targets), order="F")
        is_lost = np.zeros(len(alphas), bool)
        for index, alpha in enumerate(alphas):
            pivots, factors, fault = lapack.dpttrf(self._diagonal + alpha, self._beside)
            columns = slice(index * n_targets, (index + 1) * n_targets)
            is_lost[index] = fault or not pivots.min() >= least  # NaN is lost too
            solved[:, columns] = (
                0 if is_lost[index] else lapack.dpttrs(pivots, factors, self._projected)[0]
            )
        found = self._reflected(solved, "N").reshape(len(solved), len(alphas), n_targets)
        if is_lost.any():
            found[:, is_lost] = self._by_eigenvalues(alphas[is_lost])
        return found

    def _reflected(self, columns: np.ndarray, transposed: str) -> np.ndarray:
        """Project columns onto the basis of the tridiagonal form ("T"), or lift them back ("N")."""
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


def matrix_product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply two matrices by SciPy's BLAS, in float32 if both are, else in float64.

    Matrices that are not C-contiguous are copied; the product is C-contiguous.

    Examples
    --------
    >>> matrix_product(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """
    are_single = left.dtype == right.dtype == np.float32
    gemm = blas.sgemm if are_single else blas.dgemm
    return gemm(1.0, right.T, left.T).T


def slice_or_take(X: Any, rows: np.ndarray) -> np.ndarray:
    """Return rows by one or more indices from 0 on, without a copy if these are consecutive.

    Examples
    --------
    >>> X = np.arange(4)
    >>> slice_or_take(X, np.array([1, 2])), slice_or_take(X, np.array([2, 1]))
    (array([1, 2]), array([2, 1]))
    """
    first = rows[0]
    is_slice = np.array_equal(rows, np.arange(first, first + len(rows)))
    return X[first : first + len(rows)] if is_slice else X[rows]
