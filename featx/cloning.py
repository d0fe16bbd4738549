"""Clones that share what is frozen.

scikit-learn's ``clone`` copies each parameter that is no estimator. A frozen Keras model is
constant, so its copies would only cost seconds and memory: featx's estimators share it (the way
``sklearn.frozen.FrozenEstimator`` shares its estimator).
"""

from __future__ import annotations

from typing import Any, TypeVar

from sklearn.base import BaseEstimator

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
