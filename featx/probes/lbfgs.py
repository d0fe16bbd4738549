"""L-BFGS that asks for its values, so that many minimizations share each pass over the data.

scipy's calls a function, one minimization at a time. Here each is a generator: it yields a point
and is sent the value and the gradient there, while others wait for theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np

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
