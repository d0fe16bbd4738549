"""The model that is trained: unfrozen layers, pooling, head; from the frontier or from pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from featx.backbones.augment import augmentation_layers
from featx.backbones.blocks import cuts_of
from featx.backbones.registry import preprocess
from featx.engines.registry import in_precision
from featx.extraction.batched import as_keras_inputs, predict_in_batches
from featx.finetune.batches import Batches
from featx.finetune.objective import Objective
from featx.finetune.plan import Plan
from featx.finetune.readers import Reader
from featx.heads.linear_map import LinearMap


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


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A model and what it is trained on.

    Attributes
    ----------
    model : keras.Model
        From whatever `read` gives to scores in units of the targets; what is trainable is set.
    depths : dict
        See :func:`make_optimizer`.
    read : Reader
    objective : Objective
    train_rows, held_rows : ndarray of int64
    mixing : callable or None
    n_versions : int
        See :class:`Batches`.
    """

    model: keras.Model
    depths: dict[str, int]
    read: Reader
    objective: Objective
    train_rows: np.ndarray
    held_rows: np.ndarray
    mixing: Callable[..., Any] | None = None
    n_versions: int = 0

    def batches(self, rows: np.ndarray, batch_size: int, seed: int) -> Batches:
        """Make batches of samples to train on."""
        return Batches(
            self.read,
            rows,
            self.objective.training_targets,
            self.objective.weights,
            batch_size=batch_size,
            seed=seed,
            mixing=self.mixing,
            n_versions=self.n_versions,
        )

    def scores(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Compute the scores of samples, (len(rows), n_scores) in units of the targets."""
        return predict(self.model, self.read, rows, batch_size)

    def judge(self, batch_size: int) -> tuple[float, float]:
        """Compute score and loss of the held-out samples; zeros if nothing is held out.

        The score is no number if those of the samples are none.
        """
        if not len(self.held_rows):
            return 0.0, 0.0
        scores = self.scores(self.held_rows, batch_size)
        if not np.isfinite(scores).all():
            return np.nan, np.nan
        objective = self.objective
        return objective.score(scores, self.held_rows), objective.loss_of(scores, self.held_rows)

    def held_loss(self, batch_size: int) -> float:
        """Compute the loss of the held-out samples."""
        scores = self.scores(self.held_rows, batch_size)
        return self.objective.loss_of(scores, self.held_rows)


def predict(model: keras.Model, read: Reader, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Compute what a model gives for samples, in their order."""
    return predict_in_batches(model, read, rows, batch_size=batch_size, n_threads=read.n_threads)


class TrainedModel:
    """A copy of a backbone that is trained, and the head on it.

    Parameters
    ----------
    plan : Plan
        To whose copy of the backbone the trained weights are given in the end.

    Attributes
    ----------
    features : keras.Model
        From inputs to embeddings, (n, n_features) float32.
    n_trained, n_frozen : int
        Parameters of the backbone.
    """

    def __init__(self, plan: Plan) -> None:
        self._network, backbone, unfrozen = plan.copy.model, plan.backbone, plan.unfrozen
        self._working = in_precision(self._network, plan.params.precision)
        unfrozen.apply(self._working)
        self.n_trained = _n_numbers(self._working.trainable_variables)
        self.n_frozen = _n_numbers(self._working.weights) - self.n_trained
        if plan.frontier_skipped_because:
            pixels, activations = self._from_pixels(plan)
            inputs = [pixels]
        else:
            inputs = list(cuts_of(self._working)[unfrozen.frontier.position].tensors)
            activations = self._working.outputs[0]
        vectors = backbone.pooled(activations)
        self.features = keras.Model(as_keras_inputs(inputs), vectors)

    def _from_pixels(self, plan: Plan) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return pixels and what the network makes of them; below the frontier as in use."""
        backbone, position = plan.backbone, plan.unfrozen.frontier.position
        inputs = keras.Input(backbone.input_shape, dtype="float32")
        x = inputs
        for layer in augmentation_layers(plan.params.augment):
            x = layer(x)
        scaling = _frozen_copy(backbone.preprocessing, backbone.input_shape)
        x = preprocess(x, scaling, 1 if backbone.takes_channels_first else -1)
        if not position:
            return inputs, self._working(x)
        tensors = list(cuts_of(self._working)[position].tensors)
        below = keras.Model(self._working.inputs, tensors)
        above = keras.Model(tensors, self._working.outputs[0])
        return inputs, above(InMode(below, training=False)(x))

    def with_head(self, linear: LinearMap, objective: Objective) -> keras.Model:
        """Put a head on it: from inputs to scores in units of the targets.

        Parameters
        ----------
        linear : LinearMap
            With which the head begins.
        objective : Objective
        """
        units = replace(
            linear,
            kernel=linear.kernel / objective.spread,
            bias=(linear.bias - objective.center) / objective.spread,
        )
        taken = [layer.name for layer in self.features._flatten_layers()]
        scaling, self._dense = units.layers(taken)
        scores = self._dense(scaling(self.features.outputs[0]))
        return keras.Model(as_keras_inputs(self.features.inputs), scores)

    def finish(self, linear: LinearMap, objective: Objective) -> LinearMap:
        """Give the network the trained weights, and return the trained head."""
        if self._working is not self._network:
            self._network.set_weights(self._working.get_weights())
        kernel, bias = (np.asarray(array, np.float64) for array in self._dense.get_weights())
        return replace(
            linear,
            kernel=kernel * objective.spread,
            bias=bias * objective.spread + objective.center,
        )


def _frozen_copy(preprocessing: Any, input_shape: tuple[int, ...]) -> Any:
    """Return preprocessing that training cannot change: the caller's layer is copied."""
    if not isinstance(preprocessing, keras.Layer):
        return preprocessing
    copied = type(preprocessing).from_config(preprocessing.get_config())
    copied(keras.Input(input_shape, dtype="float32"))
    copied.set_weights(preprocessing.get_weights())
    copied.trainable = False
    return copied


def _n_numbers(variables: Sequence[Any]) -> int:
    return int(sum(np.prod(variable.shape) for variable in variables))
