"""The generators of random numbers from which a model draws while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def generator_states(model: keras.Model) -> list[Any]:
    """List the variables in which a model's generators keep their states."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def states_from(seed: int, variables: Sequence[Any]) -> list[np.ndarray]:
    """Return for each such variable a state to start from, each at numbers of its own."""
    return [
        np.array([seed % 2**31, number], np.int64).astype(variable.dtype)
        for number, variable in enumerate(variables)
    ]


def seed_generators(model: keras.Model, seed: int) -> None:
    """Let all generators of a model start anew."""
    variables = generator_states(model)
    for variable, state in zip(variables, states_from(seed, variables), strict=True):
        variable.assign(state)
