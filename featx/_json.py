"""``as_json_values``: plain data that JSON can hold; ``dict_without_repeats`` for reading it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any


def as_json_values(value: Any) -> Any:
    """Return parameters, fitted attributes or reports as values that JSON can hold.

    NaN and infinity, which JSON does not have, become None.

    Examples
    --------
    >>> import numpy as np
    >>> as_json_values({"loss": np.array([0.5, np.nan]), "size": (np.int64(2), 3)})
    {'loss': [0.5, None], 'size': [2, 3]}
    """
    if hasattr(value, "tolist"):  # arrays and numbers of numpy
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): as_json_values(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [as_json_values(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class RepeatedNameError(Exception):
    """A name occurs twice."""


def dict_without_repeats(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return a dict; raise RepeatedNameError if a name is repeated."""
    made: dict[Any, Any] = {}
    for name, value in pairs:
        if name in made:
            raise RepeatedNameError(repr(name))
        made[name] = value
    return made
