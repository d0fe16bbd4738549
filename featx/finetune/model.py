"""TrainedModel: unfrozen layers, pooling and head; TrainingTask: what it is trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from featx.backbones.augment import augmentation_layers
from featx.backbones.blocks import cuts_of
from featx.backbones.registry import preprocess
from featx.engines.registry import in_precision
from featx.extraction.batched import as_keras_inputs, predict_in_batches
from featx.finetune.batches import Batches
from featx.finetune.objective import Objective
from featx.finetune.plan import TrainingPlan
from featx.finetune.readers import Reader
from featx.heads.linear_map import LinearMap


class TrainedModel:
    """A copy of a backbone that is trained, whose weights the plan's copy gets at the end.

    `features` is the model from inputs to float32 embeddings. `n_trained` and `n_frozen` are the
    numbers of parameters of the backbone.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self._network, backbone, unfrozen = plan.copy.model, plan.backbone, plan.unfrozen
        self._working = in_precision(self._network, plan.params.precision)
        unfrozen.apply(self._working)
        self.n_trained = _n_numbers_in_variables(self._working.trainable_variables)
        self.n_frozen = _n_numbers_in_variables(self._working.weights) - self.n_trained
        if plan.frontier_skipped_because:
            pixels, activations = self._from_pixels(plan)
            inputs = [pixels]
        else:
            inputs = list(cuts_of(self._working)[unfrozen.frontier.position].tensors)
            activations = self._working.outputs[0]
        self.features = keras.Model(as_keras_inputs(inputs), backbone.pooled(activations))

    def with_head(self, linear: LinearMap, objective: Objective) -> keras.Model:
        """Make the model from inputs to scores in units of the targets, starting from a head."""
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
        """Give the plan's network the trained weights, and return the trained head."""
        if self._working is not self._network:
            self._network.set_weights(self._working.get_weights())
        kernel, bias = (np.asarray(array, np.float64) for array in self._dense.get_weights())
        return replace(
            linear,
            kernel=kernel * objective.spread,
            bias=bias * objective.spread + objective.center,
        )

    def _from_pixels(self, plan: TrainingPlan) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return pixels and the output of the network, in inference mode below the frontier."""
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
        return inputs, above(_InferenceMode(below)(x))


class _InferenceMode(keras.Layer):
    """A model that is always called in inference mode."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(autocast=False, dtype="float32")
        self._model = model

    def call(self, inputs: Any) -> Any:
        return self._model(inputs, training=False)


def _frozen_copy(preprocessing: Any, input_shape: tuple[int, ...]) -> Any:
    """Return preprocessing that training cannot change: a layer of the caller is copied."""
    if not isinstance(preprocessing, keras.Layer):
        return preprocessing
    copied = type(preprocessing).from_config(preprocessing.get_config())
    copied(keras.Input(input_shape, dtype="float32"))
    copied.set_weights(preprocessing.get_weights())
    copied.trainable = False
    return copied


def _n_numbers_in_variables(variables: Sequence[Any]) -> int:
    return int(sum(np.prod(variable.shape) for variable in variables))


def predict(model: keras.Model, read: Reader, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Compute the output of a model for samples, in their order."""
    return predict_in_batches(model, read, rows, batch_size=batch_size, n_threads=read.n_threads)


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A model, the samples it is trained on, and those it is validated on."""

    model: keras.Model  # from inputs to scores in units of the targets; its ``trainable`` are set
    depths: dict[str, int]  # number of blocks above each trained layer, by its name
    read: Reader
    objective: Objective
    train_rows: np.ndarray
    validation_rows: np.ndarray
    mixing: Callable[..., Any] | None = None
    n_augmented: int = 0

    def batches(self, batch_size: int, seed: int) -> Batches:
        """Make batches of the training samples."""
        return Batches(
            self.read,
            self.train_rows,
            self.objective.training_targets,
            self.objective.weights,
            batch_size=batch_size,
            seed=seed,
            mixing=self.mixing,
            n_augmented=self.n_augmented,
        )

    def training_loss(self, label_smoothing: float) -> keras.losses.Loss:
        """Make the loss of scores, given the training targets."""
        objective = self.objective
        loss = objective.loss(label_smoothing)
        if objective.teacher_targets is None:
            return loss
        return DistillationLoss(loss, objective.loss(), objective.temperature)

    def scores(self, rows: np.ndarray, batch_size: int) -> np.ndarray:
        """Compute the scores of samples, (len(rows), n_scores) in units of the targets."""
        return predict(self.model, self.read, rows, batch_size)

    def evaluate(self, batch_size: int) -> tuple[float, float]:
        """Compute validation score and loss; 0 without samples, NaN if scores are not finite."""
        rows, objective = self.validation_rows, self.objective
        if not len(rows):
            return 0.0, 0.0
        scores = self.scores(rows, batch_size)
        if not np.isfinite(scores).all():
            return np.nan, np.nan
        return objective.score(scores, rows), objective.mean_loss(scores, rows)


class DistillationLoss(keras.losses.Loss):
    """The mean of a loss of the labels and one of the teacher targets.

    As in Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network" (arXiv
    1503.02531): scores are divided by the temperature, and the loss is multiplied by its square,
    which keeps the size of its gradients.
    """

    def __init__(
        self, label_loss: keras.losses.Loss, teacher_loss: keras.losses.Loss, temperature: float
    ) -> None:
        super().__init__("distillation")
        self._label_loss, self._teacher_loss = label_loss, teacher_loss
        self._temperature = temperature

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each sample; teacher targets follow the labels in `y_true`."""
        labels, teacher_targets = ops.split(y_true, 2, axis=-1)
        by_labels = self._label_loss.call(labels, y_pred)
        by_teacher = self._teacher_loss.call(teacher_targets, y_pred / self._temperature)
        return (by_labels + self._temperature**2 * by_teacher) / 2
