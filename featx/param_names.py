"""The names of parameters: read once per class, and a misspelt one suggests the right one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Self

from sklearn.base import BaseEstimator

from featx._validation import did_you_mean
from featx.documented import DocumentedEstimator
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


class SuggestingParams(DocumentedEstimator):
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
