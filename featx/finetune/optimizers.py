"""``make_optimizer``, ``make_schedule``: learning rates over time, and from block to block."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from featx.finetune.params import FineTune

if TYPE_CHECKING:
    from featx.finetune.model import TrainingTask

_WARMUP = 0.1  # of all steps
_ONE_CYCLE_WARMUP = 0.3
_NOT_DECAYED = ["bias", "gamma", "beta"]
_BY_NAME: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adamw": keras.optimizers.AdamW,
    "adam": keras.optimizers.Adam,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
}


def make_optimizer(
    params: FineTune,
    task: TrainingTask,
    *,
    learning_rate: float | None,
    n_steps: int,
    n_accumulated: int,
) -> keras.optimizers.Optimizer:
    """Make the optimizer of a training of `n_steps` batches, `n_accumulated` of which make a step.

    `learning_rate` is the highest rate of the topmost block; None keeps the optimizer's schedule.
    """
    if learning_rate is None:
        return new_optimizer(params.optimizer, None, n_accumulated)

    def make(depth: int) -> keras.optimizers.Optimizer:
        rate = learning_rate * params.layer_decay**depth
        schedule = make_schedule(params.schedule, rate, n_steps=n_steps)
        return new_optimizer(params.optimizer, schedule, n_accumulated)

    variables = task.model.trainable_variables
    depths = {variable.path: _depth_of(variable, task.depths) for variable in variables}
    if params.layer_decay == 1 or len(set(depths.values())) == 1:
        return make(0)
    optimizers = {depth: make(depth) for depth in sorted(set(depths.values()))}
    mapping = keras.optimizers.OptimizerMap(optimizers.pop(0))
    for path, depth in depths.items():
        if depth:
            mapping[path] = optimizers[depth]
    return keras.optimizers.MultiOptimizer(mapping)


def _depth_of(variable: Any, depths: dict[str, int]) -> int:
    """Return the depth of a variable's block: 0 for the head, 1 for the topmost block."""
    layer = variable.path.split("/")[0]
    return depths[layer] + 1 if layer in depths else 0


def new_optimizer(
    optimizer: str | keras.optimizers.Optimizer,
    schedule: schedules.LearningRateSchedule | None,
    n_accumulated: int = 1,
) -> keras.optimizers.Optimizer:
    """Make an optimizer by name, or copy one; with ``schedule=None`` it keeps its own."""
    options: dict[str, Any] = {} if schedule is None else {"learning_rate": schedule}
    if n_accumulated > 1:
        options["gradient_accumulation_steps"] = n_accumulated
    if isinstance(optimizer, str):
        made = _BY_NAME[optimizer](**options)
    else:
        made = type(optimizer).from_config(optimizer.get_config() | options)
    made.exclude_from_weight_decay(var_names=_NOT_DECAYED)
    return made


def make_schedule(kind: str, peak: float, *, n_steps: int) -> schedules.LearningRateSchedule:
    """Make the schedule "cosine", "one-cycle" or "constant" that reaches a peak.

    Examples
    --------
    >>> rates = make_schedule("cosine", 1.0, n_steps=20)
    >>> [round(float(rates(step)), 2) for step in (0, 1, 2, 11, 20)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    fraction = _ONE_CYCLE_WARMUP if kind == "one-cycle" else _WARMUP
    n_rising = min(round(fraction * n_steps), n_steps - 1)
    if kind == "constant":
        # Keras has no constant schedule with warm-up; a polynomial of degree 1 stays at its end.
        start = peak / (n_rising + 1)
        return schedules.PolynomialDecay(start, max(1, n_rising), end_learning_rate=peak)
    if not n_rising:
        return schedules.CosineDecay(peak, n_steps)
    return _WarmUp(schedules.CosineDecay(peak, n_steps - n_rising), n_rising)


@keras.saving.register_keras_serializable("featx")
class _WarmUp(schedules.LearningRateSchedule):
    """A schedule after a linear warm-up to its first rate.

    The warm-up of Keras' own schedules traces two branches for each variable with weight decay.
    """

    def __init__(self, schedule: schedules.LearningRateSchedule, n_rising: int) -> None:
        self.schedule, self.n_rising = schedule, n_rising

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rate = self.schedule(ops.maximum(step - self.n_rising, 0.0))
        return rate * ops.clip(step / self.n_rising, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "n_rising": self.n_rising}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> _WarmUp:
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["n_rising"])


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give a model the averages of its weights inside the context, if its optimizer keeps them."""
    optimizer = model.optimizer
    parts = optimizer.optimizers if hasattr(optimizer, "optimizers") else [optimizer]
    pairs = [
        pair
        for part in parts
        if part.use_ema
        for pair in zip(
            part._trainable_variables, part._model_variables_moving_average, strict=True
        )
    ]
    # Copies: in JAX two variables would share an array, and a step on one of them deletes it.
    own, averages = (
        [np.array(ops.convert_to_numpy(pair[number])) for pair in pairs] for number in (0, 1)
    )
    for (variable, _), average in zip(pairs, averages, strict=True):
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, own, strict=True):
            variable.assign(value)


def rate_from_trial(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return a tenth of the rate at which the smoothed loss of a trial with rising rates is lowest.

    Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017 (arXiv 1506.01186).

    Examples
    --------
    >>> rates = np.logspace(-6, 0, 61)
    >>> losses = np.where(rates < 1e-2, 1 - 10 * rates, 1 + rates)
    >>> 5e-4 < rate_from_trial(rates, losses) < 2e-3
    True
    """
    finite = np.isfinite(losses)
    width = max(1, len(losses) // 20)
    smoothed = np.convolve(np.where(finite, losses, np.inf), np.ones(width) / width, mode="same")
    smoothed[~finite] = np.inf
    lowest = int(np.argmin(smoothed[width : len(smoothed) - width])) + width
    return float(rates[lowest] / 10)
