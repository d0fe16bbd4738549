"""Logistic regression for one strength after another, on what each fold trains on.

Rows are turned so that their features are uncorrelated: there, the step to take is known for each
coefficient from the spread of its feature, whatever the strength. Each strength starts where a
straight line through the last two ends.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from featx._warning import warn_caller
from featx.probes.arrays import precision, to_numpy
from featx.probes.classes import decided
from featx.probes.folds import Fold
from featx.probes.lbfgs import Tolerances
from featx.probes.logistic_losses import Losses, Memory
from featx.probes.rotation import Rotation
from featx.probes.turned_rows import StreamedRows

_ROWS_AT_ONCE = 8192
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
# In float32 a value is known to about seven digits.
_FOR_FOLDS = Tolerances(step=1e-3, decrease=1e-6, rounding=1e-7)
_FOR_EVERYTHING = Tolerances(step=1e-5, decrease=1e-11, rounding=1e-15, max_iter=5000)


class LogisticPath:
    """Walks from strong to weak regularization, all folds in step.

    Parameters
    ----------
    X : array of shape (n, d), float32 or float64
    numbers : ndarray of shape (n,), int64
        The classes of the rows.
    weights : ndarray of shape (n,), float64
    folds : sequence of (train, test)
        Row numbers.
    fit_intercept : bool

    Attributes
    ----------
    points : list of ndarray
        For each fold, where the function of the last strength is least.
    """

    def __init__(
        self,
        X: np.ndarray,
        numbers: np.ndarray,
        weights: np.ndarray,
        folds: Sequence[Fold],
        *,
        fit_intercept: bool,
    ) -> None:
        if X.shape[0] <= X.shape[1]:  # too few to be worth the way to a GPU
            X = to_numpy(X)
        self._X, self._numbers, self._weights, self._folds = X, numbers, weights, folds
        self._rotation = Rotation.of(X, weights, fit_intercept=fit_intercept)
        self._rows = self._rotation.rows(X, _SINGLE)
        counts = np.stack([np.bincount(train, minlength=len(numbers)) for train, _ in folds])
        self._losses = Losses(self._rows, self._rotation, numbers, weights * counts, dtype=_SINGLE)
        self.points = self._before = [np.zeros(self._losses.shape)] * len(folds)
        self._memory: list[Memory] | None = None

    def step(self, C: float) -> None:
        """Go on to a weaker strength."""
        starts = [2 * a - b for a, b in zip(self.points, self._before, strict=True)]
        self._before = self.points
        minima = self._losses.solve(starts, C, _FOR_FOLDS, self._memory)
        self.points = [minimum.point for minimum in minima]
        self._memory = [Memory(C, minimum.pairs) for minimum in minima]

    def held_out_classes(self) -> list[np.ndarray]:
        """Return, for each fold, the numbers of the classes (m,) that held-out rows get."""
        rows, tests = self._rows, [test for _, test in self._folds]
        of_rows = [rows.inward(point, _SINGLE) for point in self.points]
        if not isinstance(rows, StreamedRows):
            pairs = zip(tests, of_rows, strict=True)
            return [to_numpy(decided(rows.scores(rows.take(test), point))) for test, point in pairs]
        found = [np.empty(len(test), np.int64) for test in tests]
        orders = [np.argsort(test, kind="stable") for test in tests]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            for test, order, point, classes in zip(tests, orders, of_rows, found, strict=True):
                ends = np.searchsorted(test, [start, start + len(some)], sorter=order)
                places = order[slice(*ends)]
                if len(places):
                    classes[places] = decided(rows.scores(some[test[places] - start], point))
        return found

    def coefficients(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, d) and intercepts (k,) of a fold."""
        return self._rotation.coefficients(self.points[number])

    def fit_everything(
        self, C: float, points: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit all rows, in float64.

        Parameters
        ----------
        C : float
        points : sequence of ndarray
            What the folds found with that strength.

        Returns
        -------
        coef : ndarray of shape (k, d), float64
        intercept : ndarray of shape (k,), float64
        """
        rows = (
            self._rows if precision(self._X) == _SINGLE else self._rotation.rows(self._X, _DOUBLE)
        )
        losses = Losses(
            rows, self._rotation, self._numbers, self._weights[np.newaxis], dtype=_DOUBLE
        )
        start = np.mean(points, axis=0)
        (minimum,) = losses.solve([start], C, _FOR_EVERYTHING)
        if not minimum.is_reached:
            message = f"no optimum in {_FOR_EVERYTHING.max_iter} iterations at C={C:.3g}"
            warn_caller(ConvergenceWarning(message))
        coef, intercept = self._rotation.coefficients(minimum.point)
        if len(intercept) > 1:
            intercept -= intercept.mean()  # which changes no probability
        return coef, intercept
