"""Optimizers, learning rates that follow a schedule, and rates that differ from block to block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers import schedules

from featx.finetune.params import FineTune

_RISING_SHARE = 0.3  # of a cycle
_NOT_DECAYED = ["bias", "gamma", "beta"]


@keras.saving.register_keras_serializable("featx")
class Delayed(schedules.LearningRateSchedule):
    """A schedule that begins at a later step: 0 before, and rising in a line to its first rate.

    Keras' own warm-up traces two branches for each variable whose weights decay.

    Parameters
    ----------
    schedule : LearningRateSchedule
    first_step : int
        At which the rate begins to rise.
    n_rising : int, default=0
        Steps until the schedule begins.

    Examples
    --------
    >>> rates = Delayed(schedules.CosineDecay(1.0, decay_steps=4), first_step=2, n_rising=2)
    >>> [round(float(rates(step)), 2) for step in (0, 2, 3, 4, 6, 8)]
    [0.0, 0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def __init__(
        self, schedule: schedules.LearningRateSchedule, first_step: int, n_rising: int = 0
    ) -> None:
        self.schedule, self.first_step, self.n_rising = schedule, first_step, n_rising

    def __call__(self, step: Any) -> Any:  # noqa: D102
        step = ops.cast(step, "float32") - self.first_step
        rate = self.schedule(ops.maximum(step - self.n_rising, 0.0))
        if not self.n_rising:
            return rate * ops.cast(step >= 0, "float32")
        return rate * ops.clip(step / self.n_rising, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the parameters."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {
            "schedule": schedule,
            "first_step": self.first_step,
            "n_rising": self.n_rising,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Delayed:
        """Make it again."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["first_step"], config["n_rising"])


def make_schedule(
    kind: str, peak: float, *, n_steps: int, warmup: float
) -> schedules.LearningRateSchedule:
    """Make a schedule.

    Parameters
    ----------
    kind : {"cosine", "one-cycle", "constant"}
    peak : float
    n_steps : int
    warmup : float
        Share of the steps in which the rate rises; "one-cycle" has its own.

    Examples
    --------
    >>> rates = make_schedule("cosine", 1.0, n_steps=10, warmup=0.2)
    >>> [round(float(rates(step)), 2) for step in (0, 1, 2, 6, 10)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    share = _RISING_SHARE if kind == "one-cycle" else warmup
    n_rising = min(round(share * n_steps), n_steps - 1)
    if kind == "constant":
        # A polynomial of degree 1 that stays where it ends.
        start = peak / (n_rising + 1)
        return schedules.PolynomialDecay(start, max(1, n_rising), end_learning_rate=peak)
    if not n_rising:
        return schedules.CosineDecay(peak, n_steps)
    return Delayed(schedules.CosineDecay(peak, n_steps - n_rising), 0, n_rising)


def make_optimizer(
    params: FineTune,
    model: keras.Model,
    *,
    depths: dict[str, int],
    learning_rate: float,
    n_steps: int,
    n_accumulated: int,
) -> keras.optimizers.Optimizer:
    """Make the optimizer of a model.

    Parameters
    ----------
    params : FineTune
    model : keras.Model
        What is trainable is set.
    depths : dict
        From the names of layers to how many blocks lie above them; other layers are of the head.
    learning_rate : float
        The highest.
    n_steps : int
        Batches of the whole training.
    n_accumulated : int
        Batches whose gradients make one step.
    """
    given = {} if n_accumulated == 1 else {"gradient_accumulation_steps": n_accumulated}
    if not isinstance(params.optimizer, str):
        config = params.optimizer.get_config() | given
        return type(params.optimizer).from_config(config)

    def make(depth: int) -> keras.optimizers.Optimizer:
        first = round(depth / (n_deep + 1) * n_steps) if params.gradual else 0
        rate = learning_rate * params.layer_decay ** max(0, depth)
        schedule = make_schedule(
            params.schedule, rate, n_steps=n_steps - first, warmup=params.warmup
        )
        if first:
            schedule = Delayed(schedule, first)
        optimizer = named_optimizer(params, schedule, given)
        optimizer.exclude_from_weight_decay(var_names=_NOT_DECAYED)
        return optimizer

    used = {_depth_of(variable, depths) for variable in model.trainable_variables}
    n_deep = max(used)
    if len(used) == 1 or (params.layer_decay == 1 and not params.gradual):
        return make(0)
    optimizers = {depth: make(depth) for depth in sorted(used)}
    mapping = keras.optimizers.OptimizerMap(optimizers.pop(0))
    for variable in model.trainable_variables:
        depth = _depth_of(variable, depths)
        if depth:
            mapping[variable.path] = optimizers[depth]
    return keras.optimizers.MultiOptimizer(mapping)


def _depth_of(variable: Any, depths: dict[str, int]) -> int:
    """Tell in which block a variable is: 0 is the head, and 1 the topmost."""
    layer = variable.path.split("/")[0]
    return depths[layer] + 1 if layer in depths else 0


def named_optimizer(
    params: FineTune, schedule: schedules.LearningRateSchedule, given: dict[str, Any] | None = None
) -> keras.optimizers.Optimizer:
    """Make an optimizer by its name; `given` are further options of its constructor."""
    options: dict[str, Any] = {"learning_rate": schedule, **(given or {})}
    if params.clip_norm is not None:
        options["global_clipnorm"] = params.clip_norm
    if params.weight_decay is not None:
        options["weight_decay"] = params.weight_decay
    if params.ema is not None:
        options |= {"use_ema": True, "ema_momentum": params.ema}
    optimizers = keras.optimizers
    if params.optimizer == "sgd":
        return optimizers.SGD(momentum=0.9, nesterov=True, **options)
    kinds = {
        "adamw": optimizers.AdamW,
        "adam": optimizers.Adam,
        "rmsprop": optimizers.RMSprop,
        "adagrad": optimizers.Adagrad,
    }
    return kinds[params.optimizer](**options)


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Give a model the moving averages of its weights for a while, if its optimizer keeps them."""
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
    # Copies: in JAX two variables would share an array, and a step on one of them takes it away.
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
    """Choose a learning rate from the losses of a trial with rising ones.

    A tenth of the rate at which the smoothed loss is lowest (Smith 2017, arXiv 1506.01186).

    Examples
    --------
    >>> rates = np.logspace(-6, 0, 61)
    >>> losses = np.where(rates < 1e-2, 1 - 10 * rates, 1 + rates)
    >>> 5e-4 < rate_from_trial(rates, losses) < 2e-3
    True
    """
    sound = np.isfinite(losses)
    width = max(1, len(losses) // 20)
    smoothed = np.convolve(np.where(sound, losses, np.inf), np.ones(width) / width, mode="same")
    smoothed[~sound] = np.inf
    lowest = int(np.argmin(smoothed[width : len(smoothed) - width])) + width
    return float(rates[lowest] / 10)
