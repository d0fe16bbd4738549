"""Losses of logistic regression for several weightings of the same rows, minimized side by side.

The function is scikit-learn's: the weighted log-losses and half the squared length of the
coefficients over ``C``; for two classes there is one vector of them, else one for each class. A
pass over the rows serves all weightings: one product with all their coefficients side by side, one
back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import joblib
import numpy as np
from scipy.special import expit

from featx.blas import blas_threads_for
from featx.probes.lbfgs import Evaluation, Tolerances, minimize
from featx.probes.rotation import Rotation

_ROWS_AT_ONCE = 2048
_COLUMNS_AT_ONCE = 1024
_LEAST_CURVATURE = 1e-6  # of the loss of a sample: it is at most 1/4

_Result = TypeVar("_Result")


class Losses:
    """The losses of some weightings of the same rows, evaluated side by side.

    Parameters
    ----------
    rows : ndarray of shape (n, p), float32 or float64
        As a :class:`Rotation` makes them.
    rotation : Rotation
    numbers : ndarray of shape (n,), int64
        The classes of the rows.
    weightings : ndarray of shape (n_weightings, n)
        What each row weighs in each.
    dtype : dtype
        In which losses are computed.
    """

    def __init__(
        self,
        rows: np.ndarray,
        rotation: Rotation,
        numbers: np.ndarray,
        weightings: np.ndarray,
        *,
        dtype: np.dtype,
    ) -> None:
        self._rows = rows
        self._dtype = dtype
        self._numbers = numbers
        self._rank = rotation.basis.shape[1]
        n_classes = int(numbers.max()) + 1
        self._n_columns = 1 if n_classes == 2 else n_classes
        self._weightings = weightings.astype(dtype)
        self._masses = weightings.sum(axis=1)
        # A fold has its share of the spread of everything, about.
        self._spreads = rotation.spreads * (self._masses / len(rows))[:, np.newaxis]

    @property
    def shape(self) -> tuple[int, int]:
        """Of a point: (columns of the rows, 1 for two classes, else n_classes)."""
        return self._rows.shape[1], self._n_columns

    def solve(
        self, starts: Sequence[np.ndarray], C: float, tolerances: Tolerances
    ) -> list[np.ndarray]:
        """Minimize the function of each weighting.

        Parameters
        ----------
        starts : sequence of n_weightings ndarrays of `shape`
        C : float
        tolerances : Tolerances

        Returns
        -------
        list of ndarray of `shape`, float64
        """
        found = list(starts)
        at_once = max(1, _COLUMNS_AT_ONCE // self._n_columns)
        with blas_threads_for(0), ThreadPoolExecutor(joblib.cpu_count()) as threads:
            for first in range(0, len(found), at_once):
                some = range(first, min(first + at_once, len(found)))
                for number, point in self._solve_some(some, starts, C, tolerances, threads):
                    found[number] = point
        return found

    def _solve_some(
        self,
        some: range,
        starts: Sequence[np.ndarray],
        C: float,
        tolerances: Tolerances,
        threads: ThreadPoolExecutor,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each weighting and where its function is least."""
        asked = {number: starts[number] for number in some}
        curvatures = self._curvatures(asked, threads)
        runs = {}
        for number, point in asked.items():
            second = self._spreads[number][:, np.newaxis] * curvatures[number]
            second[: self._rank] += 1 / C
            runs[number] = minimize(point, lambda g, second=second: g / second, tolerances)
            next(runs[number])
        while asked:
            for number, evaluation in self._evaluate(asked, C, threads):
                try:
                    asked[number] = runs[number].send(evaluation)
                except StopIteration as end:
                    del asked[number]
                    yield number, end.value

    def _evaluate(
        self, points: dict[int, np.ndarray], C: float, threads: ThreadPoolExecutor
    ) -> list[tuple[int, Evaluation]]:
        """Evaluate the function of each weighting at its point, in one pass over the rows."""
        numbers = list(points)
        side_by_side = self._side_by_side(points)

        def part(start: int) -> tuple[np.ndarray, np.ndarray]:
            rows = self._rows[start : start + _ROWS_AT_ONCE].astype(self._dtype, copy=False)
            scores = self._scores(rows, side_by_side)
            losses, residuals = self._losses_and_residuals(scores, start)
            weights = self._weightings[numbers, start : start + _ROWS_AT_ONCE].T
            residuals *= weights[:, :, np.newaxis]
            return (
                np.einsum("if,if->f", losses, weights, dtype=np.float64),
                rows.T @ residuals.reshape(len(rows), -1),
            )

        parts = list(self._each_part(part, threads))
        values = np.sum([value for value, _ in parts], axis=0)
        gradients = np.zeros(side_by_side.shape)
        for _, gradient in parts:
            gradients += gradient
        evaluations = []
        for number, value, gradient in zip(
            numbers, values, np.split(gradients, len(numbers), axis=1), strict=True
        ):
            coef = points[number][: self._rank]
            gradient = gradient.copy()
            gradient[: self._rank] += coef / C
            value = value + 0.5 * np.vdot(coef, coef) / C
            evaluations.append((number, Evaluation(float(value), gradient)))
        return evaluations

    def _curvatures(
        self, points: dict[int, np.ndarray], threads: ThreadPoolExecutor
    ) -> dict[int, np.ndarray]:
        """Return the mean second derivative of the loss by the score of each column, (columns,)."""
        numbers = list(points)
        side_by_side = self._side_by_side(points)

        def part(start: int) -> np.ndarray:
            rows = self._rows[start : start + _ROWS_AT_ONCE].astype(self._dtype, copy=False)
            shares = self._shares(self._scores(rows, side_by_side))
            weights = self._weightings[numbers, start : start + _ROWS_AT_ONCE].T
            return np.einsum("ifk,if->fk", shares * (1 - shares), weights, dtype=np.float64)

        means = (
            np.sum(list(self._each_part(part, threads)), axis=0) / self._masses[numbers, np.newaxis]
        )
        return dict(zip(numbers, np.maximum(means, _LEAST_CURVATURE), strict=True))

    def _each_part(
        self, function: Callable[[int], _Result], threads: ThreadPoolExecutor
    ) -> Iterable[_Result]:
        """Call a function with the first row of each part, of several in threads."""
        starts = range(0, len(self._rows), _ROWS_AT_ONCE)
        return threads.map(function, starts) if len(starts) > 1 else map(function, starts)

    def _side_by_side(self, points: dict[int, np.ndarray]) -> np.ndarray:
        return np.concatenate(list(points.values()), axis=1).astype(self._dtype)

    def _scores(self, rows: np.ndarray, side_by_side: np.ndarray) -> np.ndarray:
        return (rows @ side_by_side).reshape(len(rows), -1, self._n_columns)

    def _shares(self, scores: np.ndarray) -> np.ndarray:
        """Turn scores (m, f, k) into probabilities, of the second class where k is one."""
        if self._n_columns == 1:
            return expit(scores)
        scores -= scores.max(axis=2, keepdims=True)
        shares = np.exp(scores, out=scores)
        shares /= shares.sum(axis=2, keepdims=True)
        return shares

    def _losses_and_residuals(
        self, scores: np.ndarray, start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses (m, f) and their derivatives by the scores (m, f, k)."""
        numbers = self._numbers[start : start + len(scores)]
        if self._n_columns == 1:
            signs = (2 * numbers - 1).astype(scores.dtype)[:, np.newaxis]
            margins = signs * scores[:, :, 0]
            residuals = -signs * expit(-margins)
            return np.logaddexp(0, -margins), residuals[:, :, np.newaxis]
        rows = np.arange(len(scores))
        own = scores[rows, :, numbers]
        scores -= own[:, :, np.newaxis]
        top = np.maximum(scores.max(axis=2), 0)
        scores -= top[:, :, np.newaxis]
        shares = np.exp(scores, out=scores)
        shares[rows, :, numbers] = 0
        # Its own is what the others are not: in float32, 1 less a probability near 1 is 0.
        others = shares.sum(axis=2)
        unit = np.exp(-top)
        losses = top + np.log1p(unit - 1 + others)
        shares /= (unit + others)[:, :, np.newaxis]
        shares[rows, :, numbers] = -shares.sum(axis=2)
        return losses, shares
