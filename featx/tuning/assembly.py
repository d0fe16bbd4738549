"""The model that is trained: unfrozen layers, pooling, head; from the frontier or from pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from featx.engines.precision import in_precision
from featx.networks.backbones import Backbone
from featx.networks.blocks import cuts_of
from featx.networks.pooling import pooled
from featx.networks.preprocessing import preprocess
from featx.tuning.handover import LinearMap
from featx.tuning.objectives import Objective
from featx.tuning.unfreezing import Unfrozen

_SHIFT, _ZOOM, _TURN, _CONTRAST = 0.1, 0.1, 0.03, 0.2  # shares of size, size, turn, contrast


class TrainedModel:
    """A copy of a backbone with a head, to be trained.

    Parameters
    ----------
    network : keras.Model
        Flat copy of the backbone, to which the trained weights are given in the end.
    backbone : Backbone
        That was copied.
    unfrozen : Unfrozen
    linear : LinearMap
        With which the head begins.
    objective : Objective
    precision : {"float32", "bfloat16", "float16"}

    Attributes
    ----------
    n_trained, n_frozen : int
        Parameters of the backbone.
    """

    def __init__(
        self,
        network: keras.Model,
        backbone: Backbone,
        unfrozen: Unfrozen,
        linear: LinearMap,
        objective: Objective,
        *,
        precision: str,
    ) -> None:
        self._network, self._backbone, self._unfrozen = network, backbone, unfrozen
        self._linear, self._objective = linear, objective
        self._working = in_precision(network, precision)
        unfrozen.apply(self._working)
        self.n_trained = _n_numbers(self._working.trainable_variables)
        self.n_frozen = _n_numbers(self._working.weights) - self.n_trained
        units = replace(
            linear,
            kernel=linear.kernel / objective.spread,
            bias=(linear.bias - objective.center) / objective.spread,
        )
        self._scaling, self._dense = units.layers()

    def from_frontier(self) -> keras.Model:
        """Make the model from activations at the frontier to scores in units of the targets."""
        cut = cuts_of(self._working)[self._unfrozen.frontier.position]
        return keras.Model(list(cut.tensors), self._scores(self._working.outputs[0]))

    def from_pixels(self, augment: Any) -> keras.Model:
        """Make the model from pixels, or whatever the backbone takes, to scores."""
        inputs = keras.Input(self._backbone.input_shape, dtype="float32")
        x = inputs
        for layer in augmentation_layers(augment):
            x = layer(x)
        x = self._working(preprocess(x, self._backbone.preprocessing))
        return keras.Model(inputs, self._scores(x))

    def _scores(self, activations: keras.KerasTensor) -> keras.KerasTensor:
        x = pooled(ops.cast(activations, "float32"), self._backbone.spec.pooling)
        return self._dense(self._scaling(x))

    def finish(self) -> LinearMap:
        """Give the network the trained weights, and return the trained head."""
        if self._working is not self._network:
            self._network.set_weights(self._working.get_weights())
        kernel, bias = (np.asarray(array, np.float64) for array in self._dense.get_weights())
        objective = self._objective
        return replace(
            self._linear,
            kernel=kernel * objective.spread,
            bias=bias * objective.spread + objective.center,
        )


def augmentation_layers(augment: Any) -> Sequence[keras.Layer]:
    """Return the layers that change pixels at random while training.

    Parameters
    ----------
    augment : None, "standard", keras.Layer or sequence of them
    """
    if augment is None:
        return ()
    if augment == "standard":
        return (
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(_SHIFT, _SHIFT),
            layers.RandomZoom(_ZOOM),
            layers.RandomRotation(_TURN),
            layers.RandomContrast(_CONTRAST),
        )
    given = augment if isinstance(augment, Sequence) else [augment]
    # Copies, since their generators change while they are used.
    return tuple(type(layer).from_config(layer.get_config()) for layer in given)


def _n_numbers(variables: Sequence[Any]) -> int:
    return int(sum(np.prod(variable.shape) for variable in variables))
