"""Losses of logistic regression for several weightings of the same rows, minimized side by side.

The function is scikit-learn's: the weighted log-losses and half the squared length of the
coefficients over ``C``; for two classes there is one vector of them, else one for each class. A
pass over the rows serves all weightings: one product with all their coefficients side by side, one
back.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np
from scipy.special import expit

from featx.blas import blas_threads_for
from featx.exceptions import InputError
from featx.probes.lbfgs import Evaluation, Minimum, Pair, Tolerances, minimize
from featx.probes.rotation import Rotation
from featx.probes.turned_rows import TurnedRows

_ROWS_AT_ONCE = 2048
_COLUMNS_AT_ONCE = 1024
_LEAST_CURVATURE = 1e-6  # of the loss of a sample: it is at most 1/4
_LEAST_LOG = -60.0  # of a probability

_Result = TypeVar("_Result")


class Memory(NamedTuple):
    """What a minimization has found out about second derivatives.

    Attributes
    ----------
    C : float
        At which strength.
    pairs : list of Pair
    """

    C: float
    pairs: list[Pair]

    def at(self, C: float, rank: int) -> list[Pair]:
        """Return the pairs as they would be at another strength, which bends coefficients only."""
        more = 1 / C - 1 / self.C
        pairs = []
        for moved, bent, _ in self.pairs:
            bent = bent.copy()
            bent[:rank] += more * moved[:rank]
            curvature = float(np.vdot(moved, bent))
            if curvature > 0:
                pairs.append((moved, bent, curvature))
        return pairs


class _Inverse:
    """About the inverse of the second derivatives, features being uncorrelated.

    Attributes
    ----------
    curvature : ndarray of shape (k, k)
        Mean of the second derivatives of the losses by the scores.
    """

    curvature: np.ndarray

    def __init__(self, spreads: np.ndarray, rank: int, C: float) -> None:
        self._spreads = spreads
        self._penalty = np.where(np.arange(len(spreads)) < rank, 1 / C, 0.0)

    def __call__(self, gradient: np.ndarray) -> np.ndarray:
        values, vectors = self._eigen
        second = self._spreads[:, np.newaxis] * values + self._penalty[:, np.newaxis]
        return (gradient @ vectors / second) @ vectors.T

    @functools.cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self.curvature)
        return np.maximum(values, _LEAST_CURVATURE), vectors


class Losses:
    """The losses of some weightings of the same rows, evaluated side by side.

    Parameters
    ----------
    rows : TurnedRows
        Of n rows and p features, float32 or float64.
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
        rows: TurnedRows,
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
        self._spreads = rotation.spreads * (self._masses / len(numbers))[:, np.newaxis]

    @property
    def shape(self) -> tuple[int, int]:
        """Of a point: (columns of the rows, 1 for two classes, else n_classes)."""
        return self._rows.n_columns, self._n_columns

    def solve(
        self,
        starts: Sequence[np.ndarray],
        C: float,
        tolerances: Tolerances,
        memory: Sequence[Memory] | None = None,
    ) -> list[Minimum]:
        """Minimize the function of each weighting.

        Parameters
        ----------
        starts : sequence of n_weightings ndarrays of `shape`
        C : float
        tolerances : Tolerances
        memory : sequence of n_weightings Memory, default=None
            What was found for another strength.

        Returns
        -------
        list of n_weightings Minimum
        """
        found: dict[int, Minimum] = {}
        at_once = max(1, _COLUMNS_AT_ONCE // self._n_columns)
        with blas_threads_for(0), ThreadPoolExecutor(joblib.cpu_count()) as threads:
            for first in range(0, len(starts), at_once):
                some = range(first, min(first + at_once, len(starts)))
                asked = {number: starts[number] for number in some}
                known = {number: memory[number] if memory else Memory(C, []) for number in some}
                found |= self._solve_some(asked, C, tolerances, known, threads)
        return [found[number] for number in range(len(starts))]

    def _solve_some(
        self,
        asked: dict[int, np.ndarray],
        C: float,
        tolerances: Tolerances,
        known: dict[int, Memory],
        threads: ThreadPoolExecutor,
    ) -> dict[int, Minimum]:
        """Return for each weighting where its function is least."""
        found = {}
        inverses = {number: _Inverse(self._spreads[number], self._rank, C) for number in asked}
        runs = {
            number: minimize(
                point,
                inverses[number],
                tolerances,
                known[number].at(C, self._rank),
                n_judged=self._rank,  # beside a large intercept, small coefficients are nothing
            )
            for number, point in asked.items()
        }
        for run in runs.values():
            next(run)
        is_first = True
        while asked:
            evaluated = self._evaluate(asked, C, threads, inverses if is_first else None)
            is_first = False
            for number, evaluation in evaluated:
                try:
                    asked[number] = runs[number].send(evaluation)
                except StopIteration as end:
                    del asked[number]
                    found[number] = end.value
        return found

    def _evaluate(
        self,
        points: dict[int, np.ndarray],
        C: float,
        threads: ThreadPoolExecutor,
        inverses: dict[int, _Inverse] | None,
    ) -> list[tuple[int, Evaluation]]:
        """Evaluate the functions at their points in one pass; tell the inverses how they curve."""
        numbers = list(points)
        side_by_side = np.concatenate(list(points.values()), axis=1)
        of_rows = self._rows.inward(side_by_side).astype(self._dtype)

        def part(start: int) -> tuple[np.ndarray, np.ndarray, Any]:
            rows = self._rows[start : start + _ROWS_AT_ONCE].astype(self._dtype, copy=False)
            scores = self._rows.scores(rows, of_rows).reshape(len(rows), -1, self._n_columns)
            classes = self._numbers[start : start + _ROWS_AT_ONCE]
            losses, residuals = _losses_and_residuals(scores, classes)
            weights = self._weightings[numbers, start : start + _ROWS_AT_ONCE].T
            curvature = _curvatures(residuals, classes, weights) if inverses else 0.0
            residuals *= weights[:, :, np.newaxis]
            return (
                np.einsum("if,if->f", losses, weights, dtype=np.float64),
                self._rows.gradient(rows, residuals.reshape(len(rows), -1)),
                curvature,
            )

        values: Any = 0.0
        curvatures: Any = 0.0
        gradients = np.zeros(of_rows.shape)
        for value, gradient, curvature in self._each_part(part, threads):
            values = values + value
            gradients += gradient
            curvatures = curvatures + curvature
        evaluations = []
        gradients = self._rows.outward(gradients)
        for place, gradient in enumerate(np.split(gradients, len(numbers), axis=1)):
            number = numbers[place]
            if inverses:
                inverses[number].curvature = curvatures[place] / self._masses[number]
            coef = points[number][: self._rank]
            gradient = gradient.copy()
            gradient[: self._rank] += coef / C
            if not np.isfinite(values[place]):
                raise InputError("X holds numbers that are too large for float32")
            total = float(values[place] + 0.5 * np.vdot(coef, coef) / C)
            evaluations.append((number, Evaluation(total, gradient)))
        return evaluations

    def _each_part(
        self, function: Callable[[int], _Result], threads: ThreadPoolExecutor
    ) -> Iterable[_Result]:
        """Call a function with the first row of each part, of several in threads."""
        starts = range(0, len(self._rows), _ROWS_AT_ONCE)
        return threads.map(function, starts) if len(starts) > 1 else map(function, starts)


def _losses_and_residuals(scores: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses (m, f) and their derivatives by the scores (m, f, k), which are changed."""
    if scores.shape[2] == 1:
        signs = (2 * classes - 1).astype(scores.dtype)[:, np.newaxis]
        margins = np.minimum(signs * scores[:, :, 0], -_LEAST_LOG)
        residuals = -signs * expit(-margins)
        return np.logaddexp(0, -margins), residuals[:, :, np.newaxis]
    rows = np.arange(len(scores))
    scores -= scores[rows, :, classes][:, :, np.newaxis]
    top = scores.max(axis=2)  # at least 0, the score of the own class
    scores -= top[:, :, np.newaxis]
    # Numbers smaller than float32 has them whole would make the products ten times slower.
    shares = np.exp(np.maximum(scores, _LEAST_LOG, out=scores), out=scores)
    shares[rows, :, classes] = 0
    # Its own is what the others are not: in float32, 1 less a probability near 1 is 0.
    others = shares.sum(axis=2)
    unit = np.exp(-top)
    losses = top + np.log1p(unit - 1 + others)
    shares /= (unit + others)[:, :, np.newaxis]
    shares[rows, :, classes] = -shares.sum(axis=2)
    return losses, shares


def _curvatures(residuals: np.ndarray, classes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sums of the second derivatives of the losses by the scores, (f, k, k)."""
    shares = np.array(residuals)
    if shares.shape[2] == 1:
        shares = np.abs(shares)  # of the class that is not its own
        return np.einsum("ifk,if->fk", shares * (1 - shares), weights)[:, :, np.newaxis]
    shares[np.arange(len(shares)), :, classes] += 1
    weighted = shares * weights[:, :, np.newaxis]
    products = np.matmul(weighted.transpose(1, 2, 0), shares.transpose(1, 0, 2))
    own = np.eye(shares.shape[2]) * weighted.sum(axis=0)[:, :, np.newaxis]
    return own - products
