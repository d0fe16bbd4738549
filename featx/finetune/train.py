"""``train``: training with Keras' own ``fit``, evaluated after each epoch on validation samples.

The best epoch is kept; epoch 0 is the head from which training started. After each epoch the state
is written to disk. Training ends early, with the best weights so far, if the loss is not finite, if
it is interrupted, or after `patience` epochs without a better score. When memory runs out, the
batch size is halved and gradients are accumulated.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
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
from featx.finetune.checkpoint import (
    Checkpoint,
    TrainingProgress,
    assign_values,
    model_state,
    trained_weights,
    values_of_variables,
)
from featx.finetune.model import TrainingTask
from featx.finetune.optimizers import (
    averaged_weights,
    make_optimizer,
    new_optimizer,
    rate_from_trial,
)
from featx.finetune.params import FineTune, own_learning_rate

_FIND_STEPS = 100
_FIND_RATES = (1e-7, 1e-1)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training; see also :class:`Progress`."""

    history: dict[str, list[float]]  # ``loss``, ``val_loss`` and ``val_score``, one per epoch
    best_epoch: int
    batch_size: int
    learning_rate: float | None
    epoch_s: float | None  # median; None if no epoch was finished
    was_interrupted: bool  # True if Ctrl-C ended the training

    @property
    def tuned_score(self) -> float | None:
        """Best score of all epochs, which may be below that of the head; None without epochs."""
        return max(self.history["val_score"]) if self.history else None


def train(
    task: TrainingTask,
    params: FineTune,
    *,
    seed: int,
    checkpoint: Checkpoint,
    verbose: Any = 0,
) -> TrainingResult:
    """Train a model, and leave it with the weights of its best epoch.

    `seed` is that of order, mixing and the model's generators; a resumed run continues with its
    own. The checkpoint is written after each epoch; the caller removes it.

    Warns
    -----
    FineTuneWarning
        Training ended early: the loss was not finite, or Ctrl-C was pressed.
    """
    progress = checkpoint.load() or _initial_progress(task, params, seed)
    keeper = _BestEpochCallback(task, params, progress, checkpoint)
    while True:
        try:
            _fit_remaining_epochs(task, params, keeper, verbose)
            break
        except KeyboardInterrupt:
            cure = "Fit again to resume." if checkpoint.is_kept else ""
            keeper.end_early("interrupted", cure)
            break
        except Exception as exc:
            if not is_out_of_memory(exc) or progress.batch_size == 1:
                raise
            progress.batch_size //= 2
    assign_values(trained_weights(task.model), progress.best_weights)
    return TrainingResult(
        history=progress.history,
        best_epoch=progress.best_epoch,
        batch_size=progress.batch_size,
        learning_rate=progress.learning_rate,
        epoch_s=float(np.median(keeper.epochs_s)) if keeper.epochs_s else None,
        was_interrupted=keeper.was_interrupted,
    )


def _initial_progress(task: TrainingTask, params: FineTune, seed: int) -> TrainingProgress:
    seed_generators(task.model, seed)
    score, loss = task.evaluate(params.batch_size)
    return TrainingProgress(
        epoch=0,
        history={},
        best_epoch=0,
        best_score=score,
        best_loss=loss,
        best_weights=values_of_variables(trained_weights(task.model)),
        state=values_of_variables(model_state(task.model)),
        seed=seed,
        batch_size=params.batch_size,
        learning_rate=_highest_rate(task, params, seed),
    )


def _highest_rate(task: TrainingTask, params: FineTune, seed: int) -> float | None:
    if not isinstance(params.optimizer, str):
        return own_learning_rate(params.optimizer)
    if params.learning_rate == "find":
        return _find_learning_rate(task, params, seed)
    return float(params.learning_rate)


def _find_learning_rate(task: TrainingTask, params: FineTune, seed: int) -> float:
    """Train for some batches with rising learning rates, choose one, and undo the training."""
    model = task.model
    variables = model_state(model)
    before = values_of_variables(variables)
    rates = np.geomspace(*_FIND_RATES, _FIND_STEPS)
    rising = keras.optimizers.schedules.ExponentialDecay(rates[0], 1, rates[1] / rates[0])
    _compile_for_training(task, params, new_optimizer(params.optimizer, rising))
    losses: list[float] = []
    batches = task.batches(params.batch_size, seed)
    with contextlib.closing(batches):
        for step in range(len(rates)):
            batch = batches[step % len(batches)]
            losses.append(float(np.asarray(model.train_on_batch(*batch))))
            if not losses[-1] < 4 * losses[0] + 1:
                break
    assign_values(variables, before)
    return rate_from_trial(rates[: len(losses)], np.array(losses))


def _fit_remaining_epochs(
    task: TrainingTask, params: FineTune, keeper: _BestEpochCallback, verbose: Any
) -> None:
    """Run the epochs that remain; batches smaller than requested are accumulated."""
    model, progress = task.model, keeper.progress
    if progress.epoch >= params.epochs or keeper.is_out_of_patience():
        return
    batches = task.batches(progress.batch_size, progress.seed)
    optimizer = make_optimizer(
        params,
        task,
        learning_rate=progress.learning_rate,
        # Batches, not steps: Keras' schedules count batches even where gradients are accumulated.
        n_steps=params.epochs * len(batches),
        n_accumulated=params.batch_size // progress.batch_size,
    )
    _compile_for_training(task, params, optimizer)
    model.optimizer.build(model.trainable_variables)
    keeper.restore()
    n_left = (params.epochs - progress.epoch) * len(batches)
    bar = progress_bar("fine-tuning", total=n_left, verbose=verbose)
    with contextlib.closing(batches), bar as advance:
        bookkeeping = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: batches.start_epoch(epoch),  # before the first read
            on_train_batch_end=lambda batch, logs: advance(1),
        )
        model.fit(
            batches,
            epochs=params.epochs,
            initial_epoch=progress.epoch,
            verbose=0,
            shuffle=False,
            callbacks=[bookkeeping, keeper, *params.callbacks],
        )


def _compile_for_training(
    task: TrainingTask, params: FineTune, optimizer: keras.optimizers.Optimizer
) -> None:
    # XLA makes a network ten times slower on a CPU under TensorFlow (2026-11).
    slow = keras.backend.backend() == "tensorflow" and not has_accelerator()
    loss = task.training_loss(params.label_smoothing)
    task.model.compile(optimizer, loss=loss, jit_compile=False if slow else "auto")


class _BestEpochCallback(keras.callbacks.Callback):
    """Evaluates each epoch, keeps the best one, saves the state, and stops the training."""

    def __init__(
        self,
        task: TrainingTask,
        params: FineTune,
        progress: TrainingProgress,
        checkpoint: Checkpoint,
    ) -> None:
        super().__init__()
        self.progress = progress
        self.epochs_s: list[float] = []
        self.was_interrupted = False
        self._task, self._params, self._checkpoint = task, params, checkpoint
        self._start_s = 0.0

    def restore(self) -> None:
        """Give model and optimizer the state that they had after the last epoch."""
        model, progress = self._task.model, self.progress
        own = model_state(model)
        assign_values(own, progress.state[: len(own)])
        kept = dict(zip(progress.names, progress.state[len(own) :], strict=True))
        n_batches = -(-len(self._task.train_rows) // progress.batch_size)
        for name, variable in _named_variables(model.optimizer.variables):
            if name.startswith("iteration#") and name in kept:
                variable.assign(progress.epoch * n_batches)  # the batch size may have changed
            elif name in kept and variable.shape == kept[name].shape:
                variable.assign(kept[name])

    def is_out_of_patience(self) -> bool:
        """Return True if the score has not risen for `patience` epochs."""
        patience = self._params.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def end_early(self, reason: str, cure: str) -> None:
        """Warn that the best epoch so far is kept."""
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
        """Stop at a loss that is not finite."""
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Evaluate the epoch and save the state, or end early."""
        logs = {} if logs is None else logs
        if not np.isfinite(logs.get("loss", np.nan)):
            self._end_without_numbers("the loss was not finite")
            return
        with averaged_weights(self.model):
            logs["val_score"], logs["val_loss"] = self._task.evaluate(self.progress.batch_size)
            if not np.isfinite(logs["val_score"]):
                self._end_without_numbers("scores were not finite")
                return
            self._keep(epoch, logs)
        self.epochs_s.append(time.perf_counter() - self._start_s)
        self._save()
        if self.is_out_of_patience():
            self.model.stop_training = True

    def _end_without_numbers(self, reason: str) -> None:
        self.model.stop_training = True
        cure = "Lower learning_rate, or pass an optimizer with global_clipnorm=1.0."
        self.end_early(f"since {reason}", cure)

    def _keep(self, epoch: int, logs: dict[str, float]) -> None:
        progress = self.progress
        progress.epoch = epoch + 1
        for name in ("loss", "val_loss", "val_score"):
            progress.history.setdefault(name, []).append(float(logs[name]))
        score, loss = logs["val_score"], logs["val_loss"]
        # The loss decides between equal scores, since accuracy on few samples often ties. Without
        # validation samples there is no score, and the last epoch is kept.
        has_validation = len(self._task.validation_rows) > 0
        is_better = (score, -loss) > (progress.best_score, -progress.best_loss)
        if is_better or not has_validation:
            progress.best_epoch, progress.best_score, progress.best_loss = epoch + 1, score, loss
            progress.best_weights = values_of_variables(trained_weights(self.model))

    def _save(self) -> None:
        of_optimizer = _named_variables(self.model.optimizer.variables)
        self.progress.names = [name for name, _ in of_optimizer]
        variables = model_state(self.model) + [variable for _, variable in of_optimizer]
        self.progress.state = values_of_variables(variables)
        try:
            self._checkpoint.save(self.progress)
        except OSError as exc:
            if self.progress.epoch == 1:
                warn_caller(
                    CacheWriteWarning(
                        f"the state of the training cannot be saved ({exc}): if it is killed, it "
                        "starts again from the head"
                    )
                )


def _named_variables(variables: list[Any]) -> list[tuple[str, Any]]:
    """Return the variables of an optimizer by names that are the same in another process."""
    counts: Counter[str] = Counter()
    named = []
    for variable in variables:
        name = variable.path.partition("/")[2]  # Keras numbers the part before
        named.append((f"{name}#{counts[name]}", variable))
        counts[name] += 1
    return named
