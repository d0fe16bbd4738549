"""LogisticLosses: logistic regression for several weightings of the same rows; ``minimize``.

The loss is scikit-learn's: the sum of the weighted log-losses, and half the squared length of the
coefficients over ``C``. Two classes have one vector of coefficients; more have one for each. A pass
over the rows serves all weightings by two products, with all their coefficients side by side for
the scores, and with all residuals for the gradients.

scipy's L-BFGS calls a function, one minimization at a time. Here each minimization is a generator,
which yields a point and is sent the value and the gradient there, so that many share each pass.
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
from featx.probes._arrays import (
    MAX_GPU_ELEMENTS,
    as_array_like,
    cast_floats,
    float_dtype,
    namespace,
    to_numpy,
)
from featx.probes._whitening import ProjectedRows, Rotation

_ROWS_AT_ONCE = 2048
_COLUMNS_AT_ONCE = 1024
_LEAST_CURVATURE = 1e-6  # of the loss of a sample, which is at most 1/4
_MAX_MARGIN = 60.0  # of a score above that of the true class; its exp is far from overflow

_N_PAIRS = 10  # the memory of L-BFGS
_SHORTEST_STEP = 1e-4  # of a line search, relative to its first
_SUFFICIENT_DECREASE = 1e-4
_N_STALLED = 4  # steps in a row that lower the value by no more than rounding does

_Result = TypeVar("_Result")


class LogisticLosses:
    """Losses of weightings (n_weightings, n) of the same n rows, evaluated together.

    They are computed in `dtype`, float32 or float64.
    """

    def __init__(
        self,
        rows: ProjectedRows,
        rotation: Rotation,
        class_indices: np.ndarray,
        weightings: np.ndarray,
        *,
        dtype: np.dtype,
    ) -> None:
        self._rows = rows
        self._dtype = dtype
        self._rank = rotation.rank
        n_classes = int(class_indices.max()) + 1
        self._n_columns = 1 if n_classes == 2 else n_classes
        self._class_indices = rows.as_array_like(class_indices)
        self._columns = rows.as_array_like(np.arange(n_classes)[-self._n_columns :])
        self._weightings = rows.as_array_like(weightings, dtype)
        self._masses = weightings.sum(axis=1)
        # A fold has about its fraction of the spread of all rows.
        self._spreads = rotation.spreads * (self._masses / len(class_indices))[:, np.newaxis]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a point: the columns of the rows, and 1 for two classes, else n_classes."""
        return self._rows.n_columns, self._n_columns

    def solve(
        self,
        starts: Sequence[np.ndarray],
        C: float,
        tolerances: Tolerances,
        memory: Sequence[LBFGSMemory] | None = None,
    ) -> list[Minimum]:
        """Minimize the loss of each weighting, from its start and its memory of another `C`."""
        found: dict[int, Minimum] = {}
        n_at_once = max(1, _COLUMNS_AT_ONCE // self._n_columns)
        with blas_threads_for(0), ThreadPoolExecutor(joblib.cpu_count()) as threads:
            for first in range(0, len(starts), n_at_once):
                some = range(first, min(first + n_at_once, len(starts)))
                points = {index: starts[index] for index in some}
                known = {index: memory[index] if memory else LBFGSMemory(C, []) for index in some}
                found |= self._solve_some(points, C, tolerances, known, threads)
        return [found[index] for index in range(len(starts))]

    def _solve_some(
        self,
        points: dict[int, np.ndarray],
        C: float,
        tolerances: Tolerances,
        known: dict[int, LBFGSMemory],
        threads: ThreadPoolExecutor,
    ) -> dict[int, Minimum]:
        """Return the minimum of each weighting that has a point."""
        found = {}
        inverses = {index: _InverseHessian(self._spreads[index], self._rank, C) for index in points}
        runs = {
            index: minimize(
                point,
                inverses[index],
                tolerances,
                known[index].at(C, self._rank),
                n_measured=self._rank,  # a large intercept would hide changes of coefficients
            )
            for index, point in points.items()
        }
        for run in runs.values():
            next(run)
        is_first = True
        while points:
            evaluated = self._evaluate(points, C, threads, inverses if is_first else None)
            is_first = False
            for index, evaluation in evaluated:
                try:
                    points[index] = runs[index].send(evaluation)
                except StopIteration as end:
                    del points[index]
                    found[index] = end.value
        return found

    def _evaluate(
        self,
        points: dict[int, np.ndarray],
        C: float,
        threads: ThreadPoolExecutor,
        inverses: dict[int, _InverseHessian] | None,
    ) -> list[tuple[int, FunctionEvaluation]]:
        """Evaluate the losses at their points in one pass, and set the curvature of inverses."""
        indices = list(points)
        side_by_side = np.concatenate(list(points.values()), axis=1)
        values, gradients, curvature_sums = self._sums(
            indices, side_by_side, threads, with_curvatures=inverses is not None
        )
        evaluations = []
        for place, gradient in enumerate(np.split(gradients, len(indices), axis=1)):
            index = indices[place]
            if inverses:
                inverses[index].curvature = curvature_sums[place] / self._masses[index]
            coef = points[index][: self._rank]
            gradient = gradient.copy()
            gradient[: self._rank] += coef / C
            if not np.isfinite(values[place]):
                raise InputError("X holds numbers that are too large for float32")
            total = float(values[place] + 0.5 * np.vdot(coef, coef) / C)
            evaluations.append((index, FunctionEvaluation(total, gradient)))
        return evaluations

    def _sums(
        self,
        indices: list[int],
        side_by_side: np.ndarray,
        threads: ThreadPoolExecutor,
        *,
        with_curvatures: bool,
    ) -> tuple[Any, np.ndarray, Any]:
        """Return sums over all rows: losses (f,), gradients (p, f * k), curvatures (f, k, k)."""
        weightings = self._rows.as_array_like(np.array(indices))
        coefs = self._rows.project_coef(side_by_side, self._dtype)
        xp = namespace(coefs)

        def sums_of(some: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray | float]:
            rows = cast_floats(self._rows[some], self._dtype)
            scores = self._rows.scores(rows, coefs)
            scores = xp.reshape(scores, (-1, len(indices), self._n_columns))
            is_own = cast_floats(self._class_indices[some, None] == self._columns, self._dtype)
            losses, residuals = losses_and_residuals(scores, is_own)
            weights = xp.take(self._weightings[:, some], weightings, axis=0).T
            curvature: Any = 0.0
            if with_curvatures:
                curvature = to_numpy(curvatures(residuals, is_own, weights))
            residuals *= weights[:, :, None]
            gradient = self._rows.gradient(rows, xp.reshape(residuals, (rows.shape[0], -1)))
            value = xp.sum(losses * weights, axis=0, dtype=xp.float64)
            return to_numpy(value), to_numpy(gradient), curvature

        values: Any = 0.0
        curvature_sums: Any = 0.0
        gradients = np.zeros(tuple(coefs.shape))
        for value, gradient, curvature in self._each_part(sums_of, side_by_side.shape[1], threads):
            values = values + value
            gradients += gradient
            curvature_sums = curvature_sums + curvature
        return values, self._rows.lift_gradient(gradients), curvature_sums

    def _each_part(
        self, function: Callable[[slice], _Result], n_scores: int, threads: ThreadPoolExecutor
    ) -> Iterable[_Result]:
        """Call a function with each part of the rows, in threads unless the rows are on a GPU."""
        n_at_once = _ROWS_AT_ONCE
        if self._rows.is_array_api:
            n_at_once = max(1, MAX_GPU_ELEMENTS // (self._rows.n_columns + 8 * n_scores))
        n_rows = len(self._rows)
        starts = range(0, n_rows, n_at_once)
        parts = [slice(start, min(start + n_at_once, n_rows)) for start in starts]
        in_threads = len(parts) > 1 and not self._rows.is_array_api
        return threads.map(function, parts) if in_threads else map(function, parts)


class _InverseHessian:
    """Approximate inverse of the second derivatives, for features that are uncorrelated."""

    # (k, k), the mean of the second derivatives by the scores, set after the first evaluation.
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


class LBFGSMemory(NamedTuple):
    """Memory of an L-BFGS minimization at strength `C`."""

    C: float
    pairs: list[Pair]

    def at(self, C: float, rank: int) -> list[Pair]:
        """Return the pairs at another strength, which changes the curvature of coefficients."""
        more = 1 / C - 1 / self.C
        pairs = []
        for step, change, _ in self.pairs:
            change = change.copy()
            change[:rank] += more * step[:rank]
            curvature = float(np.vdot(step, change))
            if curvature > 0:
                pairs.append((step, change, curvature))
        return pairs


# A step, the change of the gradient over it, and the product of both.
Pair = tuple[np.ndarray, np.ndarray, float]


class Tolerances(NamedTuple):
    """Limits at which a minimization ends, also after a few steps that gain mere rounding."""

    step: float  # length of a full step, relative to that of the point
    decrease: float  # decrease of the value by such a step, relative to it
    rounding: float  # relative rounding error of the value
    max_iter: int = 500


class FunctionEvaluation(NamedTuple):
    """Value of a convex function at a point, and its gradient, of the shape of the point."""

    value: float
    gradient: np.ndarray


class Minimum(NamedTuple):
    """Point where a minimization ended."""

    point: np.ndarray
    pairs: list[Pair]  # the memory of the second derivatives, the latest last
    is_converged: bool  # True if it ended before the limit of iterations


def minimize(
    start: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
    tolerances: Tolerances,
    pairs: Sequence[Pair] = (),
    n_measured: int | None = None,
) -> Generator[np.ndarray, FunctionEvaluation, Minimum]:
    """Minimize a convex function by L-BFGS (Nocedal and Wright 2006, algorithm 7.5).

    For each point that the generator yields, it is sent the :class:`FunctionEvaluation` there.
    After the first, `precondition` returns an approximate product of the inverse second derivatives
    and a gradient. `pairs` are a memory of these, the latest last. `n_measured` first rows of a
    point count in its length, all if None.

    Examples
    --------
    >>> tolerances = Tolerances(step=1e-6, decrease=1e-9, rounding=1e-12)
    >>> run = minimize(np.array([3.0, 1.0]), lambda gradient: gradient, tolerances)
    >>> point = next(run)
    >>> try:
    ...     while True:
    ...         point = run.send(FunctionEvaluation(0.5 * point @ point + 1, point))
    ... except StopIteration as end:
    ...     print(end.value.point)
    [0. 0.]
    """
    point = start
    value, gradient = yield point
    known: deque[Pair] = deque(pairs, maxlen=_N_PAIRS)
    n_stalled = 0
    for _ in range(tolerances.max_iter):
        direction = -_lbfgs_two_loop(known, gradient, precondition)
        slope = np.vdot(gradient, direction)
        length = np.linalg.norm(point[:n_measured])
        is_short = np.linalg.norm(direction[:n_measured]) <= tolerances.step * length
        is_low = -slope <= 2 * tolerances.decrease * abs(value)
        if slope >= 0 or (is_short and is_low) or n_stalled == _N_STALLED:
            return Minimum(point, list(known), is_converged=True)
        step = 1.0
        while True:
            trial = point + step * direction
            new_value, new_gradient = yield trial
            bound = value + _SUFFICIENT_DECREASE * step * slope + tolerances.rounding * abs(value)
            if new_value <= bound:
                break
            if step < _SHORTEST_STEP:
                return Minimum(point, list(known), is_converged=True)
            # The minimum of the parabola through both values, with the slope at the first.
            curved = 2 * (new_value - value - step * slope)
            step *= float(np.clip(-slope * step / curved, 0.1, 0.5))
        moved, change = trial - point, new_gradient - gradient
        curvature = np.vdot(moved, change)
        if curvature > 0:
            known.append((moved, change, float(curvature)))
        n_stalled = 0 if value - new_value > tolerances.rounding * abs(value) else n_stalled + 1
        point, value, gradient = trial, new_value, new_gradient
    return Minimum(point, list(known), is_converged=False)


def _lbfgs_two_loop(
    pairs: deque[Pair],
    gradient: np.ndarray,
    precondition: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the product of the inverse second derivatives, approximated by pairs, and a gradient.

    The two-loop recursion, algorithm 7.4 of Nocedal and Wright 2006.
    """
    rest = gradient.copy()
    alphas = []
    for step, change, curvature in reversed(pairs):
        alphas.append(np.vdot(step, rest) / curvature)
        rest -= alphas[-1] * change
    result = precondition(rest)
    if pairs:
        _, change, curvature = pairs[-1]
        result *= curvature / np.vdot(change, precondition(change))
    for (step, change, curvature), alpha in zip(pairs, reversed(alphas), strict=True):
        result += (alpha - np.vdot(change, result) / curvature) * step
    return result


def losses_and_residuals(scores: Any, is_own: Any) -> tuple[Any, Any]:
    """Return log-losses (m, f) of samples, and their derivatives by the scores, (m, f, k).

    Scores (m, f, k) of m samples by f sets of coefficients are overwritten; k is the number of
    classes, or 1 for two. `is_own` (m, k), of the same dtype, is 1 for the class of a sample, else
    0; for two classes it is 1 for the second.

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
        margins = xp.clip(signs * scores, max=_MAX_MARGIN)
        small = xp.exp(-xp.abs(margins))
        losses = xp.log1p(small) - xp.clip(margins, max=0.0)
        residuals = -signs * xp.where(margins < 0, xp.ones_like(small), small) / (1 + small)
        return losses[:, :, 0], residuals
    scores -= xp.linalg.vecdot(scores, own)[:, :, None]
    top = xp.zeros_like(scores[:, :, :1])
    if bool(xp.max(scores) > _MAX_MARGIN):
        top = xp.clip(xp.max(scores, axis=2, keepdims=True), min=0.0)
        scores -= top
    # Subnormal numbers of float32 would make the products ten times slower.
    powers = xp.exp(xp.clip(scores, min=-_MAX_MARGIN))
    # The residual of the true class is computed from the others, since 1 - p would be 0 in float32
    # for p near 1.
    others = xp.linalg.vecdot(powers, 1 - own)[:, :, None]
    unit = xp.exp(-top)
    losses = top + xp.log1p(unit - 1 + others)
    total = unit + others
    powers /= total
    return losses[:, :, 0], xp.where(own > 0, -others / total, powers)


def log_probabilities(scores: Any) -> Any:
    """Return the logarithms of class probabilities, (m, k), from scores (m, k) or (m,).

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
    """Return the sums (f, k, k) of the second derivatives of weighted losses by the scores.

    Residuals (m, f, k) and `is_own` (m, k) are those of :func:`losses_and_residuals`; weights have
    the shape (m, f).
    """
    xp = namespace(residuals)
    if residuals.shape[2] == 1:
        proba = xp.abs(residuals)  # of the other class
        return xp.sum(proba * (1 - proba) * weights[:, :, None], axis=0)[:, :, None]
    proba = residuals + is_own[:, None, :]
    weighted = proba * weights[:, :, None]
    products = xp.matmul(xp.permute_dims(weighted, (1, 2, 0)), xp.permute_dims(proba, (1, 0, 2)))
    unit = as_array_like(np.eye(proba.shape[2]), proba, float_dtype(proba))
    return unit * xp.sum(weighted, axis=0)[:, :, None] - products
