"""Tells scikit-learn's callbacks, such as its ``ProgressBar``, of the tasks of a fit.

scikit-learn has callbacks from 1.9 on; with an older one, nobody is told anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sklearn.base import BaseEstimator

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks

    HAS_CALLBACKS = True
except ImportError:
    HAS_CALLBACKS = False

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's, and gives no method."""

    def with_callbacks(method: Any) -> Any:
        """Return a method as it is."""
        return method


__all__ = ["HAS_CALLBACKS", "CallbackSupportMixin", "FitTask", "fit_task", "with_callbacks"]


class FitTask:
    """A fit of an estimator.

    Parameters
    ----------
    estimator : estimator
    context : sklearn.callback.CallbackContext or None
        None if scikit-learn has no callbacks.
    """

    def __init__(self, estimator: Any, context: Any) -> None:
        self._estimator, self._context = estimator, context

    @contextlib.contextmanager
    def part(self, name: str, inner: BaseEstimator | None = None) -> Iterator[None]:
        """Tell of a part of the fit, which may be the fit of another estimator.

        Parameters
        ----------
        name : str
        inner : estimator, default=None
            Which tells of its own parts, if it can.
        """
        if self._context is None:
            yield
            return
        part = self._context.subcontext(task_name=name)
        with contextlib.ExitStack() as stack:
            if hasattr(inner, "set_callbacks"):
                stack.enter_context(part.propagate_callback_context(inner))
            part.call_on_fit_task_begin(estimator=self._estimator)
            yield
            part.call_on_fit_task_end(estimator=self._estimator)


@contextlib.contextmanager
def fit_task(estimator: Any, X: Any, y: Any = None, *, n_parts: int = 0) -> Iterator[FitTask]:
    """Tell of a fit, inside a method that is decorated by ``with_callbacks``.

    Parameters
    ----------
    estimator : estimator
        Derived from ``CallbackSupportMixin``.
    X : samples
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
    n_parts : int, default=0
        How many there will be.

    Yields
    ------
    FitTask
    """
    if not HAS_CALLBACKS:
        yield FitTask(estimator, None)
        return
    context = estimator._init_callback_context(max_subtasks=n_parts)
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    yield FitTask(estimator, context)
    context.call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes={})
