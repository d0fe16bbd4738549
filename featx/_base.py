"""FeatxEstimator, base of all estimators: names, cloning, last report; FitTask, a task of a fit.

Clones share frozen Keras models. scikit-learn's ``clone`` copies each parameter that is not an
estimator. Copies of a constant model would cost seconds and memory for nothing, so featx's
estimators share it, as ``sklearn.frozen.FrozenEstimator`` shares its estimator.

scikit-learn has callbacks, such as its ``ProgressBar``, from 1.9 on. With an older version, the
tasks of a fit are not reported.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils import Bunch, estimator_html_repr

from featx._html import Record, facts_html
from featx._progress import show_activities
from featx._validation import did_you_mean
from featx.exceptions import ParameterError

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Replace scikit-learn's class, without its methods."""

    def with_callbacks(method: Any) -> Any:
        """Return a method as it is."""
        return method


_CONTAINER = '<div class="sk-container" hidden>'

__all__ = ["FeatxEstimator", "FitTask", "with_callbacks"]


class FeatxEstimator(CallbackSupportMixin, BaseEstimator):
    """An estimator that suggests parameter names, shares models with its clones, and reports."""

    _reports: list[Bunch]

    def set_params(self, **params: Any) -> Self:
        """Set parameters.

        Parameters
        ----------
        **params : dict
            Values by name. A nested parameter has the name of its owner before two underscores, as
            in ``fine_tune__epochs``.

        Returns
        -------
        self
            The estimator itself.

        Raises
        ------
        ParameterError
            There is no such parameter; similar names are suggested, and nothing was set.

        Examples
        --------
        >>> from featx import FeatureExtractor
        >>> FeatureExtractor("tiny").set_params(polling="max")
        Traceback (most recent call last):
            ...
        featx.exceptions.ParameterError: Invalid parameter 'polling' ... Did you mean 'pooling'? ...
        """
        self._check_param_names(params, self.get_params())
        return super().set_params(**params)

    def _check_param_names(self, names: Iterable[str], options: Collection[str]) -> None:
        """Raise for names that are not among the options, in scikit-learn's words."""
        faults = [
            f"Invalid parameter {name!r} for estimator {self}.{_nearest_name(name, options)}"
            for name in names
            if name not in options
        ]
        if faults:
            shown = sorted(name for name in options if "__" not in name)
            raise ParameterError(" ".join([*faults, f"Valid parameters are: {shown}."]), faults)

    def __sklearn_clone__(self) -> Self:
        stand_in: Any = object.__new__(type(self))
        params = self.get_params(deep=False)
        shared = {name: _share_models(value) for name, value in params.items()}
        vars(stand_in).update({**vars(self), **shared})
        return BaseEstimator.__sklearn_clone__(stand_in)

    def _facts(self) -> list[tuple[str, str]]:
        """Return names and values that notebooks show above the parameters."""
        return []

    def _html_repr(self) -> str:
        """Return scikit-learn's diagram, with a table of facts instead of hundreds of features."""
        shown = copy.copy(self)
        facts: list[tuple[str, str]] = []
        with contextlib.suppress(Exception):  # a faulty parameter is an error of `fit` only
            facts = self._facts()
        if facts:
            shown.__dict__["get_feature_names_out"] = _no_feature_names
        diagram = estimator_html_repr(shown)
        table = facts_html(facts) if facts else ""
        before, container, after = diagram.partition(_CONTAINER)
        return f"{before}{container}{table}{after}" if container else f"{table}{diagram}"

    @property
    def report_(self) -> Bunch:
        """Report of the last call."""
        if not getattr(self, "_reports", None):
            raise AttributeError("there is no report_ yet")
        return self._reports[-1]

    @report_.setter
    def report_(self, report: Bunch) -> None:
        # In a list, since scikit-learn requires that no attribute of a fitted estimator changes.
        self.__dict__.setdefault("_reports", [])[:] = [Record(**report)]

    @contextlib.contextmanager
    def _fit_task(self, X: Any, y: Any = None, *, n_parts: int = 0) -> Iterator[FitTask]:
        """Report a fit to callbacks, inside a method that is decorated by ``with_callbacks``."""
        with show_activities(getattr(self, "verbose", 0)):
            yield from self._reported_fit(X, y, n_parts)

    def _reported_fit(self, X: Any, y: Any, n_parts: int) -> Iterator[FitTask]:
        if not hasattr(self, "_init_callback_context"):
            yield FitTask(self, None)
            return
        context = self._init_callback_context(max_subtasks=n_parts)
        context.call_on_fit_task_begin(estimator=self, X=X, y=y)
        yield FitTask(self, context)
        context.call_on_fit_task_end(estimator=self, X=X, y=y, reconstruction_attributes={})


class FitTask:
    """A fit of an estimator, whose parts are reported to callbacks, if scikit-learn has them."""

    def __init__(self, estimator: Any, context: Any) -> None:
        self._estimator, self._context = estimator, context

    @contextlib.contextmanager
    def part(self, name: str, inner: BaseEstimator | None = None) -> Iterator[None]:
        """Report a part of the fit; an `inner` estimator reports its own parts, if it can."""
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


def _no_feature_names() -> None:
    raise AttributeError("not shown")


def _nearest_name(name: str, options: Collection[str]) -> str:
    part = name.partition("__")[0]
    if part not in options:
        return did_you_mean(part, options)
    return did_you_mean(name, options, cutoff=0.8)


class _SharedByClones:
    """A value that comes out of scikit-learn's ``clone`` as it went in."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __sklearn_clone__(self) -> Any:
        return self.value


def _share_models(value: Any) -> Any:
    """Mark Keras objects and callables in a value, which scikit-learn's ``clone`` would copy."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        return value
    if callable(value) or _is_of_keras(value):
        return _SharedByClones(value)
    if type(value) in (list, tuple) and any(map(_is_of_keras, value)):
        return type(value)(map(_share_models, value))
    return value


def _is_of_keras(value: Any) -> bool:
    """Return True for an instance of a class of Keras, or of one derived from it."""
    return any(cls.__module__.partition(".")[0] == "keras" for cls in type(value).__mro__)
