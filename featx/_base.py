"""What every estimator of featx has: parameter names, cloning, the last report, fit tasks.

Clones share frozen Keras models. scikit-learn's ``clone`` copies each parameter that is no
estimator; copies of a constant model would only cost seconds and memory, so featx' estimators
share it, as ``sklearn.frozen.FrozenEstimator`` shares its estimator.

scikit-learn has callbacks, such as its ``ProgressBar``, from 1.9 on. With an older version, the
tasks of a fit are not reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Self, TypeVar

from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from featx._validation import did_you_mean
from featx.exceptions import ParameterError


def check_param_names(
    estimator: BaseEstimator, names: Iterable[str], options: Collection[str]
) -> None:
    """Check that an estimator has the parameters that are to be set.

    Raises
    ------
    ParameterError
        Some it has not, as scikit-learn says; near names are suggested.
    """
    faults = [
        f"Invalid parameter {name!r} for estimator {estimator}.{_nearest_name(name, options)}"
        for name in names
        if name not in options
    ]
    if faults:
        shown = sorted(name for name in options if "__" not in name)
        raise ParameterError(" ".join([*faults, f"Valid parameters are: {shown}."]), faults)


def _nearest_name(name: str, options: Collection[str]) -> str:
    part = name.partition("__")[0]
    if part not in options:
        return did_you_mean(part, options)
    return did_you_mean(name, options, cutoff=0.8)


# The names of the parameters of featx's own classes, for which scikit-learn reads a signature each
# time: a tenth of a millisecond, dozens of times in the fit of one candidate. Others may change.
_NAMES: dict[type, tuple[str, ...]] = {}


class FeatxEstimator(BaseEstimator):
    """Gives an estimator a `set_params` that suggests the right name for a misspelt one."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return the parameters of parameters as well.

        Returns
        -------
        dict
        """
        if not type(self).__module__.startswith("featx."):
            return super().get_params(deep)
        names = _NAMES.get(type(self))
        if names is None:
            names = _NAMES[type(self)] = tuple(super().get_params(deep=False))
        params = {name: getattr(self, name) for name in names}
        nested = {
            f"{name}__{inner}": inner_value
            for name, value in params.items()
            if deep and hasattr(value, "get_params") and not isinstance(value, type)
            for inner, inner_value in value.get_params().items()
        }
        return params | nested

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            There is no such parameter; near names are suggested, and nothing was set.
        """
        check_param_names(self, params, self.get_params())
        return super().set_params(**params)


T = TypeVar("T", bound=BaseEstimator)


class _Shared:
    """A value that comes out of scikit-learn's ``clone`` as it went in."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __sklearn_clone__(self) -> Any:
        return self.value


def clone_sharing_models(estimator: T) -> T:
    """Clone an unfitted copy of an estimator that shares Keras objects and callables.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    estimator
        Of the same class, unfitted, with all else that scikit-learn's clones have.
    """
    stand_in = object.__new__(type(estimator))
    params = estimator.get_params(deep=False)
    shared = {name: _share_models(value) for name, value in params.items()}
    vars(stand_in).update({**vars(estimator), **shared})
    return BaseEstimator.__sklearn_clone__(stand_in)


def _share_models(value: Any) -> Any:
    """Mark what of a value is constant, wherever scikit-learn's ``clone`` would copy it."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        return value
    if callable(value) or _is_of_keras(value):
        return _Shared(value)
    if type(value) in (list, tuple) and any(map(_is_of_keras, value)):
        return type(value)(map(_share_models, value))
    return value


def _is_of_keras(value: Any) -> bool:
    """Tell whether it is an instance of a class of Keras, or of one derived from it."""
    return any(cls.__module__.partition(".")[0] == "keras" for cls in type(value).__mro__)


class LastReport:
    """Gives an estimator a `report_` that `transform` may replace.

    It is in a list, since scikit-learn asks that no attribute of a fitted estimator changes.
    """

    _reports: list[Bunch]

    @property
    def report_(self) -> Bunch:
        """What was done last."""
        if not getattr(self, "_reports", None):
            raise AttributeError("there is no report_ yet")
        return self._reports[-1]

    @report_.setter
    def report_(self, report: Bunch) -> None:
        self.__dict__.setdefault("_reports", [])[:] = [report]

    def forget_report(self) -> None:
        """Begin anew, as `fit` does."""
        self._reports = []


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
