"""Losses of logistic regression for several weightings of the same rows, minimized side by side.

The function is scikit-learn's: the weighted log-losses and half the squared length of the
coefficients over ``C``; for two classes there is one vector of them, else one for each class. A
pass over the rows serves all weightings: one product with all their coefficients side by side, one
back.

L-BFGS that asks for its values, so that many minimizations share each pass over the data.

scipy's calls a function, one minimization at a time. Here each is a generator: it yields a point
and is sent the value and the gradient there, while others wait for theirs.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import joblib
import numpy as np

from featx._threads import blas_threads_for
from featx.exceptions import InputError
from featx.probes._arrays import NUMBERS_AT_ONCE, cast, like, namespace, precision, to_numpy
from featx.probes._whitening import ProjectedRows, Rotation

_FARTHEST = 60.0  # a score from that of the own class; e to the power of it is far from overflow


def losses_and_residuals(scores: Any, is_own: Any) -> tuple[Any, Any]:
    """Return what scores lose, and how that changes with them.

    Parameters
    ----------
    scores : array of shape (m, f, k), float32 or float64
        Of f sets of coefficients; k is the number of classes, or 1 for two. Is changed.
    is_own : array of shape (m, k), of the same dtype
        1 for the class of a sample, else 0; for two classes 1 for the second.

    Returns
    -------
    losses : array of shape (m, f)
    residuals : array of shape (m, f, k)
        Derivatives of the losses by the scores.

    Examples
    --------
    >>> losses, residuals = losses_and_residuals(np.zeros((1, 1, 2)), np.array([[1.0, 0.0]]))
    >>> losses.round(3), residuals
    (array([[0.693]]), array([[[-0.5,  0.5]]]))
    """
    xp = namespace(scores)
    own = is_own[:, None, :]
    if scores.shape[2] == 1:
        signs = 2 * own - 1
        margins = xp.clip(signs * scores, max=_FARTHEST)
        small = xp.exp(-xp.abs(margins))
        losses = xp.log1p(small) - xp.clip(margins, max=0.0)
        residuals = -signs * xp.where(margins < 0, xp.ones_like(small), small) / (1 + small)
        return losses[:, :, 0], residuals
    scores -= xp.linalg.vecdot(scores, own)[:, :, None]
    top = xp.zeros_like(scores[:, :, :1])
    if bool(xp.max(scores) > _FARTHEST):
        top = xp.clip(xp.max(scores, axis=2, keepdims=True), min=0.0)
        scores -= top
    # Numbers smaller than float32 has them whole would make the products ten times slower.
    shares = xp.exp(xp.clip(scores, min=-_FARTHEST))
    # Its own is what the others are not: in float32, 1 less a probability near 1 is 0.
    others = xp.linalg.vecdot(shares, 1 - own)[:, :, None]
    unit = xp.exp(-top)
    losses = top + xp.log1p(unit - 1 + others)
    total = unit + others
    shares /= total
    return losses[:, :, 0], xp.where(own > 0, -others / total, shares)


def log_probabilities(scores: Any) -> Any:
    """Return the logarithms of the probabilities of classes, (m, k).

    Parameters
    ----------
    scores : array of shape (m, k), or (m,) for two classes

    Examples
    --------
    >>> np.exp(log_probabilities(np.array([0.0, 50.0])))[:, 0].round(24)
    array([5.00e-01, 1.93e-22])
    """
    xp = namespace(scores)
    if scores.ndim == 1:
        zeros = xp.zeros_like(scores)
        logs = [-xp.logaddexp(zeros, scores), -xp.logaddexp(zeros, -scores)]
        return xp.stack(logs, axis=1)
    scores = scores - xp.max(scores, axis=1, keepdims=True)
    return scores - xp.log(xp.sum(xp.exp(scores), axis=1, keepdims=True))


def curvatures(residuals: Any, is_own: Any, weights: Any) -> Any:
    """Return the sums of the second derivatives of weighted losses by the scores.

    Parameters
    ----------
    residuals : array of shape (m, f, k)
        As :func:`losses_and_residuals` returns them.
    is_own : array of shape (m, k)
    weights : array of shape (m, f)

    Returns
    -------
    array of shape (f, k, k)
    """
    xp = namespace(residuals)
    if residuals.shape[2] == 1:
        shares = xp.abs(residuals)  # of the class that is not its own
        return xp.sum(shares * (1 - shares) * weights[:, :, None], axis=0)[:, :, None]
    shares = residuals + is_own[:, None, :]
    weighted = shares * weights[:, :, None]
    products = xp.matmul(xp.permute_dims(weighted, (1, 2, 0)), xp.permute_dims(shares, (1, 0, 2)))
    unit = like(np.eye(shares.shape[2]), shares, precision(shares))
    return unit * xp.sum(weighted, axis=0)[:, :, None] - products


_MEMORY = 10
_SHORTEST = 1e-4  # step of a line search, beside the first
_SUFFICIENT_DECREASE = 1e-4
_N_STALLED = 4  # steps in a row that lower the value by no more than rounding does


class Evaluation(NamedTuple):
    """A convex function at a point.

    Attributes
    ----------
    value : float
    gradient : ndarray, of the shape of the point
    """

    value: float
    gradient: np.ndarray


class Tolerances(NamedTuple):
    """When a minimization ends: at a step that is small in both senses, or after many.

    Attributes
    ----------
    step : float
        Length of a whole step, relative to the point's.
    decrease : float
        By how much such a step would lower the value, relative to it.
    rounding : float
        By how much values at the same point may differ, relative; steps that bring no more for a
        while are the last.
    max_iter : int
    """

    step: float
    decrease: float
    rounding: float
    max_iter: int = 500


# A step, how the gradient changed over it, and the product of both.
Pair = tuple[np.ndarray, np.ndarray, float]


class Minimum(NamedTuple):
    """Where a minimization ended.

    Attributes
    ----------
    point : ndarray
    pairs : list of Pair
        What is known of the second derivatives, the latest last.
    is_reached : bool
        Whether it did before the iterations were used up.
    """

    point: np.ndarray
    pairs: list[Pair]
    is_reached: bool


def minimize(
    start: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerances: Tolerances,
    pairs: Sequence[Pair] = (),
    n_judged: int | None = None,
) -> Generator[np.ndarray, Evaluation, Minimum]:
    """Minimize a convex function (Nocedal and Wright 2006, algorithm 7.5).

    Parameters
    ----------
    start : ndarray, float64
    precondition : callable
        From a gradient to about what the inverse of the second derivatives makes of it. It is
        called after the first evaluation.
    tolerances : Tolerances
    pairs : sequence of Pair, default=()
        What is known of the second derivatives, the latest last.
    n_judged : int, default=None
        How many of the first rows of a point have a length; None is all.

    Yields
    ------
    ndarray
        A point; the generator is sent the :class:`Evaluation` there.

    Returns
    -------
    Minimum

    Examples
    --------
    >>> tolerances = Tolerances(step=1e-6, decrease=1e-9, rounding=1e-12)
    >>> run = minimize(np.array([3.0, 1.0]), lambda gradient: gradient, tolerances)
    >>> point = next(run)
    >>> try:
    ...     while True:
    ...         point = run.send(Evaluation(0.5 * point @ point + 1, point))
    ... except StopIteration as end:
    ...     print(end.value.point)
    [0. 0.]
    """
    point = start
    value, gradient = yield point
    known: deque[Pair] = deque(pairs, maxlen=_MEMORY)
    n_stalled = 0
    for _ in range(tolerances.max_iter):
        direction = -_inverse(known, gradient, precondition)
        slope = np.vdot(gradient, direction)
        length = np.linalg.norm(point[:n_judged])
        is_short = np.linalg.norm(direction[:n_judged]) <= tolerances.step * length
        is_low = -slope <= 2 * tolerances.decrease * abs(value)
        if slope >= 0 or (is_short and is_low) or n_stalled == _N_STALLED:
            return Minimum(point, list(known), is_reached=True)
        step = 1.0
        while True:
            trial = point + step * direction
            new_value, new_gradient = yield trial
            bound = value + _SUFFICIENT_DECREASE * step * slope + tolerances.rounding * abs(value)
            if new_value <= bound:
                break
            if step < _SHORTEST:
                return Minimum(point, list(known), is_reached=True)
            # Where the parabola through both values, with the slope at the first, is least.
            curved = 2 * (new_value - value - step * slope)
            step *= float(np.clip(-slope * step / curved, 0.1, 0.5))
        moved, bent = trial - point, new_gradient - gradient
        curvature = np.vdot(moved, bent)
        if curvature > 0:
            known.append((moved, bent, float(curvature)))
        n_stalled = 0 if value - new_value > tolerances.rounding * abs(value) else n_stalled + 1
        point, value, gradient = trial, new_value, new_gradient
    return Minimum(point, list(known), is_reached=False)


def _inverse(
    pairs: deque[Pair],
    gradient: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Apply the inverse of the second derivatives, as the last steps show them, to a gradient."""
    rest = gradient.copy()
    shares = []
    for moved, bent, curvature in reversed(pairs):
        shares.append(np.vdot(moved, rest) / curvature)
        rest -= shares[-1] * bent
    result = precondition(rest)
    if pairs:
        _, bent, curvature = pairs[-1]
        result *= curvature / np.vdot(bent, precondition(bent))
    for (moved, bent, curvature), share in zip(pairs, reversed(shares), strict=True):
        result += (share - np.vdot(bent, result) / curvature) * moved
    return result


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
    rows : ProjectedRows
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
        rows: ProjectedRows,
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
        of_rows = self._rows.project_coef(side_by_side, self._dtype)
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
        gradients = self._rows.lift_gradient(gradients)
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
