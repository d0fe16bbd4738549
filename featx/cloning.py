"""Clones that share what is frozen.

scikit-learn's ``clone`` copies each parameter that is no estimator. A frozen Keras model is
constant, so its copies would only cost seconds and memory: featx's estimators share it (the way
``sklearn.frozen.FrozenEstimator`` shares its estimator).
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from sklearn.base import BaseEstimator, clone

T = TypeVar("T", bound=BaseEstimator)

# What scikit-learn's own clone carries over beside the parameters.
_CARRIED = ("_metadata_request", "_sklearn_output_config")


def clone_sharing_models(estimator: T) -> T:
    """Clone an unfitted copy of an estimator that shares Keras objects and callables.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    estimator
        Of the same class, unfitted.
    """
    params = estimator.get_params(deep=False)
    twin = type(estimator)(**{name: _share_or_copy(value) for name, value in params.items()})
    for name in _CARRIED:
        if hasattr(estimator, name):
            setattr(twin, name, copy.deepcopy(getattr(estimator, name)))
    return twin


def _share_or_copy(value: Any) -> Any:
    if hasattr(value, "get_params") and not isinstance(value, type):
        return clone(value)
    if callable(value) or _is_of_keras(value):
        return value
    if type(value) in (list, tuple) and any(map(_is_of_keras, value)):
        return type(value)(map(_share_or_copy, value))
    return clone(value, safe=False)


def _is_of_keras(value: Any) -> bool:
    """Tell whether it is an instance of a class of Keras, or of one derived from it."""
    return any(cls.__module__.partition(".")[0] == "keras" for cls in type(value).__mro__)
