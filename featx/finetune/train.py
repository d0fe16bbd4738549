"""Training with Keras' own ``fit``, judged after each epoch on what was held out.

The best epoch is kept, the head with which training began being epoch 0. After each epoch the state
is on disk; a loss that is no number, an interruption or a lack of patience end the training with
the best weights so far; a lack of memory halves the batch and accumulates gradients instead.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from featx._progress import progress_bar
from featx._warning import warn_caller
from featx.backbones.augment import seed_generators
from featx.engines.devices import has_accelerator
from featx.engines.runner import is_out_of_memory
from featx.exceptions import CacheWriteWarning, FineTuneWarning
from featx.finetune.batches import Batches
from featx.finetune.checkpoint import (
    Checkpoint,
    Progress,
    assign,
    model_state,
    trained_weights,
    values_of,
)
from featx.finetune.model import TrainingTask
from featx.finetune.optimizers import (
    averaged_weights,
    make_optimizer,
    named_optimizer,
    rate_from_trial,
)
from featx.finetune.params import FineTune


class BestEpochCallback(keras.callbacks.Callback):
    """Judges each epoch, keeps the best, saves the state, and says when it is enough."""

    def __init__(
        self, trainee: TrainingTask, params: FineTune, progress: Progress, checkpoint: Checkpoint
    ) -> None:
        super().__init__()
        self.progress = progress
        self.epochs_s: list[float] = []
        self.was_interrupted = False
        self._trainee, self._params, self._checkpoint = trainee, params, checkpoint
        self._start_s = 0.0

    def restore(self) -> None:
        """Give model and optimizer the state in which the last epoch left them."""
        model, state = self._trainee.model, self.progress.state
        own = model_state(model)
        assign(own, state[: len(own)])
        kept = dict(zip(self.progress.names, state[len(own) :], strict=True))
        n_batches = self.progress.epoch * self._n_batches()
        for name, variable in named_variables(model.optimizer.variables):
            if name.startswith("iteration#") and name in kept:
                variable.assign(n_batches)  # of the size that they have now
            elif name in kept and variable.shape == kept[name].shape:
                variable.assign(kept[name])

    def is_out_of_patience(self) -> bool:
        """Tell whether the score has not risen for too long."""
        patience = self._params.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def end_early(self, reason: str, cure: str) -> None:
        """Say that the best epoch so far is what there is."""
        self.was_interrupted = reason == "interrupted"
        warn_caller(
            FineTuneWarning(
                f"fine-tuning ended in epoch {self.progress.epoch + 1} of {self._params.epochs}, "
                f"{reason}; the weights of epoch {self.progress.best_epoch}, the best so far, are "
                f"kept. {cure}"
            )
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._start_s = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Stop at a loss that is no number."""
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge and keep, or end early."""
        logs = {} if logs is None else logs
        if not np.isfinite(logs.get("loss", np.nan)):
            self._end_without_numbers("the loss was no finite number")
            return
        with averaged_weights(self.model):
            logs["val_score"], logs["val_loss"] = self._trainee.judge(self.progress.batch_size)
            if not np.isfinite(logs["val_score"]):
                self._end_without_numbers("scores were no finite numbers")
                return
            self._keep(epoch, logs)
        self.epochs_s.append(time.perf_counter() - self._start_s)
        self._save()
        if self.is_out_of_patience():
            self.model.stop_training = True

    def _end_without_numbers(self, reason: str) -> None:
        self.model.stop_training = True
        self.end_early(f"since {reason}", "Lower learning_rate, or pass clip_norm=1.0.")

    def _n_batches(self) -> int:
        return -(-len(self._trainee.train_rows) // self.progress.batch_size)

    def _keep(self, epoch: int, logs: dict[str, float]) -> None:
        progress = self.progress
        progress.epoch = epoch + 1
        for name in ("loss", "val_loss", "val_score"):
            progress.history.setdefault(name, []).append(float(logs[name]))
        score, loss = logs["val_score"], logs["val_loss"]
        # Of two epochs that are right as often, the one that is surer of it; the last if nobody
        # can tell.
        is_judged = len(self._trainee.held_rows) > 0
        if not is_judged or (score, -loss) > (progress.best_score, -progress.best_loss):
            progress.best_epoch, progress.best_score, progress.best_loss = epoch + 1, score, loss
            progress.best_weights = values_of(trained_weights(self.model))

    def _save(self) -> None:
        others = named_variables(self.model.optimizer.variables)
        self.progress.names = [name for name, _ in others]
        variables = model_state(self.model) + [variable for _, variable in others]
        self.progress.state = values_of(variables)
        try:
            self._checkpoint.save(self.progress)
        except OSError as exc:
            if self.progress.epoch == 1:
                warn_caller(
                    CacheWriteWarning(
                        f"the state of the training cannot be saved ({exc}): if it is killed, it "
                        "begins anew"
                    )
                )


class EpochShuffler(keras.callbacks.Callback):
    """Puts samples in the order of each epoch."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put them in order before the first is read."""
        self._batches.start_epoch(epoch)


class ProgressCallback(keras.callbacks.Callback):
    """Tells a progress bar."""

    def __init__(self, advance: Callable[[int], object]) -> None:
        super().__init__()
        self._advance = advance

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a batch."""
        self._advance(1)


def named_variables(variables: list[Any]) -> list[tuple[str, Any]]:
    """Name the variables of an optimizer so that they have these names in another process too."""
    counts: Counter[str] = Counter()
    named = []
    for variable in variables:
        name = variable.path.partition("/")[2]  # what is before it, Keras numbers
        named.append((f"{name}#{counts[name]}", variable))
        counts[name] += 1
    return named


_TRIAL_STEPS = 100
_TRIAL_RATES = (1e-7, 1e-1)


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes
    ----------
    history : dict
        ``loss``, ``val_loss`` and ``val_score``, a number an epoch.
    best_epoch : int
        0 is the head with which training began.
    best_score : float
        Of the held-out samples; 0 if there are none.
    batch_size : int
        That fitted into memory.
    learning_rate : float or None
        The highest; None is that of an optimizer object.
    epoch_s : float or None
        Seconds of an epoch, the median; None if none was begun.
    was_interrupted : bool
        By Ctrl-C.
    """

    history: dict[str, list[float]]
    best_epoch: int
    best_score: float
    batch_size: int
    learning_rate: float | None
    epoch_s: float | None
    was_interrupted: bool

    @property
    def tuned_score(self) -> float | None:
        """The best score of the epochs, which may be below that of the head; None if none ended."""
        return max(self.history["val_score"]) if self.history else None


def train(
    trainee: TrainingTask,
    params: FineTune,
    *,
    seed: int,
    checkpoint: Checkpoint,
    verbose: Any = 0,
) -> Trained:
    """Train a model, and leave it with the weights of its best epoch.

    Parameters
    ----------
    trainee : TrainingTask
    params : FineTune
    seed : int
        Of order, mixing and whatever the model draws; that of a resumed run goes on instead.
    checkpoint : Checkpoint
        Written after each epoch; whoever called removes it when all is done.
    verbose : int or callable, default=0
        See :class:`FeatureExtractor`.

    Warns
    -----
    FineTuneWarning
        It ended early: the loss was no number, or somebody pressed Ctrl-C.
    """
    progress = checkpoint.load()
    if progress is None:
        seed_generators(trainee.model, seed)
        score, loss = trainee.judge(params.batch_size)
        best, state = trained_weights(trainee.model), model_state(trainee.model)
        best, state = values_of(best), values_of(state)
        progress = Progress(0, {}, 0, score, loss, best, state, seed, params.batch_size)
        if isinstance(params.optimizer, str):
            rate = params.learning_rate
            found = _found_rate(trainee, params, seed) if rate == "find" else float(rate)
            progress.learning_rate = found
    keeper = BestEpochCallback(trainee, params, progress, checkpoint)
    while True:
        try:
            _fit(trainee, params, keeper, verbose)
            break
        except KeyboardInterrupt:
            cure = "Fit again to go on from there." if checkpoint.is_kept else ""
            keeper.end_early("interrupted", cure)
            break
        except Exception as exc:
            if not is_out_of_memory(exc) or progress.batch_size == 1:
                raise
            progress.batch_size //= 2
    assign(trained_weights(trainee.model), keeper.progress.best_weights)
    return Trained(
        history=keeper.progress.history,
        best_epoch=keeper.progress.best_epoch,
        best_score=keeper.progress.best_score,
        batch_size=progress.batch_size,
        learning_rate=progress.learning_rate,
        epoch_s=float(np.median(keeper.epochs_s)) if keeper.epochs_s else None,
        was_interrupted=keeper.was_interrupted,
    )


def _fit(
    trainee: TrainingTask,
    params: FineTune,
    keeper: BestEpochCallback,
    verbose: Any,
) -> None:
    """Run epochs from the last that is kept; batches smaller than asked for are accumulated."""
    model, progress = trainee.model, keeper.progress
    if progress.epoch >= params.epochs or keeper.is_out_of_patience():
        return
    batches = trainee.batches(trainee.train_rows, progress.batch_size, progress.seed)
    _compile(
        trainee,
        params,
        learning_rate=progress.learning_rate or 0.0,
        # Where gradients are accumulated, Keras' schedules count batches all the same.
        n_steps=params.epochs * len(batches),
        n_accumulated=params.batch_size // progress.batch_size,
    )
    model.optimizer.build(model.trainable_variables)
    keeper.restore()
    left = (params.epochs - progress.epoch) * len(batches)
    bar = progress_bar("fine-tuning", total=left, verbose=verbose)
    with contextlib.closing(batches), bar as advance:
        model.fit(
            batches,
            epochs=params.epochs,
            initial_epoch=progress.epoch,
            verbose=0,
            shuffle=False,
            callbacks=[
                EpochShuffler(batches),
                keeper,
                ProgressCallback(advance),
                *params.callbacks,
            ],
        )


def _compile(
    trainee: TrainingTask,
    params: FineTune,
    *,
    learning_rate: float,
    n_steps: int,
    n_accumulated: int,
) -> None:
    optimizer = make_optimizer(
        params,
        trainee.model,
        depths=trainee.depths,
        learning_rate=learning_rate,
        n_steps=n_steps,
        n_accumulated=n_accumulated,
    )
    _compile_with(optimizer, trainee, params)


def _compile_with(optimizer: Any, trainee: TrainingTask, params: FineTune) -> None:
    # XLA makes a network ten times slower on a CPU under TensorFlow (2026-11).
    slow = keras.backend.backend() == "tensorflow" and not has_accelerator()
    loss = trainee.objective.training_loss(params.label_smoothing)
    trainee.model.compile(optimizer, loss=loss, jit_compile=False if slow else "auto")


def _found_rate(trainee: TrainingTask, params: FineTune, seed: int) -> float:
    """Train for some batches with rising learning rates, choose one, and undo the training."""
    model = trainee.model
    variables = model_state(model)
    before = values_of(variables)
    rates = np.geomspace(*_TRIAL_RATES, _TRIAL_STEPS)
    rising = keras.optimizers.schedules.ExponentialDecay(rates[0], 1, rates[1] / rates[0])
    _compile_with(named_optimizer(params, rising), trainee, params)
    losses: list[float] = []
    batches = trainee.batches(trainee.train_rows, params.batch_size, seed)
    with contextlib.closing(batches):
        for step in range(len(rates)):
            batch = batches[step % len(batches)]
            losses.append(float(np.asarray(model.train_on_batch(*batch))))
            if not losses[-1] < 4 * losses[0] + 1:
                break
    assign(variables, before)
    return rate_from_trial(rates[: len(losses)], np.array(losses))
