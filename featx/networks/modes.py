"""A model inside another that behaves as in training, or as in use, whatever the other does."""

from __future__ import annotations

from typing import Any

import keras


class InMode(keras.Layer):
    """Calls a model in one mode.

    Parameters
    ----------
    model : keras.Model
    training : bool
        Whether as in training.
    """

    def __init__(self, model: keras.Model, *, training: bool) -> None:
        super().__init__(autocast=False, dtype="float32")
        self._model, self._training = model, training

    def call(self, inputs: Any) -> Any:
        """Return what the model gives."""
        return self._model(inputs, training=self._training)
