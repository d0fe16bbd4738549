"""Faulty parameters of a head are found before there are embeddings to train it on."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, clone

from featx.exceptions import ParameterError

_MAX_SOUND = 10_000
# Parameters of heads in which nothing was found; asking scikit-learn takes milliseconds, and a
# search asks for each fold.
_sound: set[Hashable] = set()


def check_head_params(head: BaseEstimator) -> None:
    """Check the parameters of a head before there are embeddings.

    scikit-learn's estimators check them before they look at the samples, of which there are none
    here. Others are not called.

    Raises
    ------
    ParameterError
        Some have faulty values.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> check_head_params(LogisticRegression(C=-1))
    Traceback (most recent call last):
        ...
    featx.exceptions.ParameterError: The 'C' parameter of LogisticRegression must be a float in \
the range (0.0, inf]. Got -1 instead.
    """
    try:
        params = _plain(head)
    except TypeError:
        params = None
    if params in _sound or get_config()["skip_parameter_validation"]:
        return
    parts = [part for part in (head, *head.get_params().values()) if _is_of_scikit_learn(part)]
    faults = [fault for part in parts if (fault := _fault_of(part))]
    if faults:
        raise ParameterError("\n".join(faults), faults)
    if params is not None:
        if len(_sound) >= _MAX_SOUND:
            _sound.clear()
        _sound.add(params)


def _plain(value: Any) -> Hashable:
    """Say in plain, hashable data what decides the verdict; a TypeError tells that it cannot."""
    if value is None or isinstance(value, (str, int, float)):
        return type(value), value
    if isinstance(value, (list, tuple)):
        return type(value), *map(_plain, value)
    if _is_of_scikit_learn(value):
        params = value.get_params(deep=False)
        return type(value), *((name, _plain(inner)) for name, inner in params.items())
    raise TypeError(f"{type(value)} is not plain")


def _is_of_scikit_learn(part: Any) -> bool:
    is_estimator = hasattr(part, "fit") and not isinstance(part, type)
    return is_estimator and type(part).__module__.startswith("sklearn.")


def _fault_of(part: BaseEstimator) -> str:
    """Say what is wrong with the parameters of an estimator; an empty string if nothing is."""
    try:
        with warnings.catch_warnings(action="ignore"):
            clone(part).fit(np.empty((0, 1)), np.empty(0))
    except Exception as exc:
        # What scikit-learn raises for a parameter is both, and nothing else is.
        if isinstance(exc, ValueError) and isinstance(exc, TypeError):
            return str(exc)
    return ""
