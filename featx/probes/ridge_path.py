"""Ridge regression for all strengths from one decomposition, primal or dual.

Hoerl and Kennard (1970), "Ridge Regression: Biased Estimation for Nonorthogonal Problems", with the
normal equations as in Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical
Learning", section 3.4.1. The dual form solves in the space of the samples, where those are fewer
than the features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from operator import add

import numpy as np
from scipy import linalg

from featx.exceptions import InputError
from featx.probes.arrays import to_numpy
from featx.probes.folds import Fold
from featx.probes.moments import Moments
from featx.probes.shifted_systems import ShiftedSystems, product
from featx.probes.streaming import weighted_mean

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
