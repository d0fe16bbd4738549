"""The names of parameters: a misspelt one is an error that suggests the right one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Self

from sklearn.base import BaseEstimator

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


class SuggestingParams(BaseEstimator):
    """Gives an estimator a `set_params` that suggests the right name for a misspelt one."""

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
