"""The generators of random numbers from which a model draws while it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def generators(model: keras.Model) -> list[Any]:
    """List the states of the generators of a model."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def seed_generators(model: keras.Model, seed: int) -> None:
    """Let all generators of a model start anew, each at numbers of its own."""
    for number, state in enumerate(generators(model)):
        state.assign(np.array([seed % 2**31, number], np.int64).astype(state.dtype))
