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

from featx.blas import blas_threads_for
from featx.exceptions import InputError
from featx.probes.arrays import NUMBERS_AT_ONCE, cast, namespace, to_numpy
from featx.probes.lbfgs import Evaluation, Minimum, Pair, Tolerances, minimize
from featx.probes.log_losses import curvatures, losses_and_residuals
from featx.probes.rotation import Rotation
from featx.probes.turned_rows import TurnedRows

_ROWS_AT_ONCE = 2048
_COLUMNS_AT_ONCE = 1024
_LEAST_CURVATURE = 1e-6  # of the loss of a sample: it is at most 1/4

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
        self._rank = rotation.basis.shape[1]
        n_classes = int(numbers.max()) + 1
        self._n_columns = 1 if n_classes == 2 else n_classes
        self._numbers = rows.like(numbers)
        self._columns = rows.like(np.arange(n_classes)[-self._n_columns :])
        self._weightings = rows.like(weightings, dtype)
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
        chosen = self._rows.like(np.array(numbers))
        side_by_side = np.concatenate(list(points.values()), axis=1)
        of_rows = self._rows.inward(side_by_side, self._dtype)
        xp = namespace(of_rows)

        def part(some: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
            rows = cast(self._rows[some], self._dtype)
            scores = self._rows.scores(rows, of_rows)
            scores = xp.reshape(scores, (-1, len(numbers), self._n_columns))
            is_own = cast(self._numbers[some, None] == self._columns, self._dtype)
            losses, residuals = losses_and_residuals(scores, is_own)
            weights = xp.take(self._weightings[:, some], chosen, axis=0).T
            curvature: Any = 0.0
            if inverses:
                curvature = to_numpy(curvatures(residuals, is_own, weights))
            residuals *= weights[:, :, None]
            gradient = self._rows.gradient(rows, xp.reshape(residuals, (rows.shape[0], -1)))
            value = xp.sum(losses * weights, axis=0, dtype=xp.float64)
            return to_numpy(value), to_numpy(gradient), curvature

        values: Any = 0.0
        curvature_sums: Any = 0.0
        gradients = np.zeros(tuple(of_rows.shape))
        for value, gradient, curvature in self._each_part(part, side_by_side.shape[1], threads):
            values = values + value
            gradients += gradient
            curvature_sums = curvature_sums + curvature
        evaluations = []
        gradients = self._rows.outward(gradients)
        for place, gradient in enumerate(np.split(gradients, len(numbers), axis=1)):
            number = numbers[place]
            if inverses:
                inverses[number].curvature = curvature_sums[place] / self._masses[number]
            coef = points[number][: self._rank]
            gradient = gradient.copy()
            gradient[: self._rank] += coef / C
            if not np.isfinite(values[place]):
                raise InputError("X holds numbers that are too large for float32")
            total = float(values[place] + 0.5 * np.vdot(coef, coef) / C)
            evaluations.append((number, Evaluation(total, gradient)))
        return evaluations

    def _each_part(
        self, function: Callable[[slice], _Result], n_scores: int, threads: ThreadPoolExecutor
    ) -> Iterable[_Result]:
        """Call a function with each part of the rows, of which each has some scores.

        On a CPU several are under way in threads; a GPU has its own.
        """
        n_at_once = _ROWS_AT_ONCE
        if self._rows.is_foreign:
            n_at_once = max(1, NUMBERS_AT_ONCE // (self._rows.n_columns + 8 * n_scores))
        n_rows = len(self._rows)
        starts = range(0, n_rows, n_at_once)
        parts = [slice(start, min(start + n_at_once, n_rows)) for start in starts]
        in_threads = len(parts) > 1 and not self._rows.is_foreign
        return threads.map(function, parts) if in_threads else map(function, parts)
