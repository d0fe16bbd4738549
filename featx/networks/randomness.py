"""The generators of random numbers from which a model draws while it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras


def generators(model: keras.Model) -> list[Any]:
    """List the states of the generators of a model."""
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]


def states_from(seed: int, generators: Sequence[Any]) -> list[np.ndarray]:
    """Return states from which generators start, each at numbers of its own."""
    return [
        np.array([seed % 2**31, number], np.int64).astype(generator.dtype)
        for number, generator in enumerate(generators)
    ]


def seed_generators(model: keras.Model, seed: int) -> None:
    """Let all generators of a model start anew, each at numbers of its own."""
    of_model = generators(model)
    for generator, state in zip(of_model, states_from(seed, of_model), strict=True):
        generator.assign(state)
