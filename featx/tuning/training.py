"""Training with Keras' own ``fit``, judged after each epoch on what was held out.

The best epoch is kept, the head with which training began being epoch 0. After each epoch the state
is on disk; a loss that is no number, an interruption or a lack of patience end the training with
the best weights so far; a lack of memory halves the batch and accumulates gradients instead.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from featx.engines.batch_sizes import is_out_of_memory
from featx.engines.devices import has_accelerator
from featx.exceptions import CacheWriteWarning, FineTuneWarning
from featx.progress import progress_bar
from featx.tuning.batches import Batches
from featx.tuning.checkpoints import (
    Checkpoint,
    Progress,
    assign,
    generators,
    model_state,
    trained_weights,
    values_of,
)
from featx.tuning.objectives import Objective
from featx.tuning.optimizers import (
    averaged_weights,
    make_optimizer,
    named_optimizer,
    rate_from_trial,
)
from featx.tuning.params import FineTune
from featx.tuning.readers import Reader

_TRIAL_STEPS = 100
_TRIAL_RATES = (1e-7, 1e-1)


@dataclass(frozen=True, eq=False)
class Trainee:
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

    def held_loss(self, batch_size: int) -> float:
        """Compute the loss of the held-out samples."""
        scores = self.scores(self.held_rows, batch_size)
        return self.objective.loss_of(scores, self.held_rows)


def predict(model: keras.Model, read: Reader, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Compute what a model gives for samples, in their order."""
    return model.predict(Batches(read, rows, batch_size=batch_size), verbose=0)


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
        Of the held-out samples.
    batch_size : int
        That fitted into memory.
    learning_rate : float or None
        The highest; None is that of an optimizer object.
    epoch_s : float
        Seconds of an epoch, the median; NaN if none was begun.
    """

    history: dict[str, list[float]]
    best_epoch: int
    best_score: float
    batch_size: int
    learning_rate: float | None
    epoch_s: float


def train(
    trainee: Trainee,
    params: FineTune,
    *,
    seed: int,
    checkpoint: Checkpoint,
    verbose: Any = 0,
) -> Trained:
    """Train a model, and leave it with the weights of its best epoch.

    Parameters
    ----------
    trainee : Trainee
    params : FineTune
    seed : int
        Of order, mixing and whatever the model draws; that of a resumed run goes on instead.
    checkpoint : Checkpoint
    verbose : int or callable, default=0
        See :class:`FeatureExtractor`.

    Warns
    -----
    FineTuneWarning
        It ended early: the loss was no number, or somebody pressed Ctrl-C.
    """
    progress = checkpoint.load()
    if progress is None:
        _set_generators(trainee.model, seed)
        score = trainee.objective.score(
            trainee.scores(trainee.held_rows, params.batch_size), trainee.held_rows
        )
        best, state = trained_weights(trainee.model), model_state(trainee.model)
        progress = Progress(0, {}, 0, score, values_of(best), values_of(state), seed)
    learning_rate = None
    if isinstance(params.optimizer, str):
        rate = params.learning_rate
        learning_rate = _found_rate(trainee, params, seed) if rate == "find" else float(rate)
    batch_size = params.batch_size
    keeper = _EpochKeeper(trainee, params, progress, checkpoint)
    while True:
        keeper.batch_size = batch_size
        try:
            _fit(trainee, params, keeper, learning_rate, batch_size, verbose)
            break
        except KeyboardInterrupt:
            keeper.end_early("interrupted", "Fit again to go on from there.")
            break
        except Exception as exc:
            if not is_out_of_memory(exc) or batch_size == 1:
                raise
            batch_size //= 2
    assign(trained_weights(trainee.model), keeper.progress.best_weights)
    if not keeper.was_interrupted:
        checkpoint.remove()
    return Trained(
        history=keeper.progress.history,
        best_epoch=keeper.progress.best_epoch,
        best_score=keeper.progress.best_score,
        batch_size=batch_size,
        learning_rate=learning_rate,
        epoch_s=float(np.median(keeper.epochs_s)) if keeper.epochs_s else float("nan"),
    )


def _fit(
    trainee: Trainee,
    params: FineTune,
    keeper: _EpochKeeper,
    learning_rate: float | None,
    batch_size: int,
    verbose: Any,
) -> None:
    """Run epochs from the last that is kept; batches smaller than asked for are accumulated."""
    model, progress = trainee.model, keeper.progress
    if progress.epoch >= params.epochs or keeper.is_out_of_patience():
        return
    batches = trainee.batches(trainee.train_rows, batch_size, progress.seed)
    _compile(
        trainee,
        params,
        learning_rate=learning_rate or 0.0,
        # Where gradients are accumulated, Keras' schedules count batches all the same.
        n_steps=params.epochs * len(batches),
        n_accumulated=params.batch_size // batch_size,
    )
    model.optimizer.build(model.trainable_variables)
    keeper.restore()
    batches.start_epoch(progress.epoch)
    left = (params.epochs - progress.epoch) * len(batches)
    with progress_bar("fine-tuning", total=left, verbose=verbose) as advance:
        model.fit(
            batches,
            epochs=params.epochs,
            initial_epoch=progress.epoch,
            verbose=0,
            shuffle=False,
            callbacks=[keeper, _Teller(advance), *params.callbacks],
        )


def _compile(
    trainee: Trainee,
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


def _compile_with(optimizer: Any, trainee: Trainee, params: FineTune) -> None:
    # XLA makes a network ten times slower on a CPU under TensorFlow (2026-11).
    slow = keras.backend.backend() == "tensorflow" and not has_accelerator()
    loss = trainee.objective.training_loss(params.label_smoothing)
    trainee.model.compile(optimizer, loss=loss, jit_compile=False if slow else "auto")


def _found_rate(trainee: Trainee, params: FineTune, seed: int) -> float:
    """Train for some batches with rising learning rates, choose one, and undo the training."""
    model = trainee.model
    variables = model_state(model)
    before = values_of(variables)
    rates = np.geomspace(*_TRIAL_RATES, _TRIAL_STEPS)
    rising = keras.optimizers.schedules.ExponentialDecay(rates[0], 1, rates[1] / rates[0])
    _compile_with(named_optimizer(params, rising), trainee, params)
    batches = trainee.batches(trainee.train_rows, params.batch_size, seed)
    losses: list[float] = []
    for step in range(len(rates)):
        losses.append(float(np.asarray(model.train_on_batch(*batches[step % len(batches)]))))
        if not losses[-1] < 4 * losses[0] + 1:
            break
    assign(variables, before)
    return rate_from_trial(rates[: len(losses)], np.array(losses))


def _set_generators(model: keras.Model, seed: int) -> None:
    """Make what a model draws follow a seed."""
    for number, state in enumerate(generators(model)):
        state.assign(np.array([seed % 2**31, number], np.int64).astype(state.dtype))


class _EpochKeeper(keras.callbacks.Callback):
    """Judges each epoch, keeps the best, saves the state, and says when it is enough."""

    def __init__(
        self, trainee: Trainee, params: FineTune, progress: Progress, checkpoint: Checkpoint
    ) -> None:
        super().__init__()
        self.progress = progress
        self.batch_size = params.batch_size
        self.epochs_s: list[float] = []
        self.was_interrupted = False
        self._trainee, self._params, self._checkpoint = trainee, params, checkpoint
        self._start_s = 0.0

    def restore(self) -> None:
        """Give model and optimizer the state in which the last epoch left them."""
        model, state = self._trainee.model, self.progress.state
        own, others = model_state(model), model.optimizer.variables
        assign(own, state[: len(own)])
        if len(state) == len(own) + len(others):
            assign(others, state[len(own) :])

    def is_out_of_patience(self) -> bool:
        """Tell whether the score has not risen for too long."""
        patience = self._params.patience
        return patience is not None and self.progress.epoch - self.progress.best_epoch >= patience

    def end_early(self, reason: str, cure: str) -> None:
        """Say that the best epoch so far is what there is."""
        self.was_interrupted = reason == "interrupted"
        warnings.warn(
            FineTuneWarning(
                f"fine-tuning ended in epoch {self.progress.epoch + 1} of {self._params.epochs}, "
                f"{reason}; the weights of epoch {self.progress.best_epoch}, the best so far, are "
                f"kept. {cure}"
            ),
            stacklevel=6,
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start_s = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs = {} if logs is None else logs
        if not np.isfinite(logs.get("loss", np.nan)):
            self.model.stop_training = True
            cure = "Lower learning_rate, or pass clip_norm=1.0."
            self.end_early("since the loss was no finite number", cure)
            return
        with averaged_weights(self.model):
            scores = self._trainee.scores(self._trainee.held_rows, self.batch_size)
            if not np.isfinite(scores).all():
                scores = np.zeros_like(scores)
            logs["val_score"] = self._trainee.objective.score(scores, self._trainee.held_rows)
            logs["val_loss"] = self._trainee.objective.loss_of(scores, self._trainee.held_rows)
            self._keep(epoch, logs)
        self.epochs_s.append(time.perf_counter() - self._start_s)
        self._save()
        if self.is_out_of_patience():
            self.model.stop_training = True

    def _keep(self, epoch: int, logs: dict[str, float]) -> None:
        progress = self.progress
        progress.epoch = epoch + 1
        for name in ("loss", "val_loss", "val_score"):
            progress.history.setdefault(name, []).append(float(logs[name]))
        if logs["val_score"] > progress.best_score:
            progress.best_epoch, progress.best_score = epoch + 1, logs["val_score"]
            progress.best_weights = values_of(trained_weights(self.model))

    def _save(self) -> None:
        self.progress.state = values_of(model_state(self.model) + self.model.optimizer.variables)
        try:
            self._checkpoint.save(self.progress)
        except OSError as exc:
            if self.progress.epoch == 1:
                warnings.warn(
                    CacheWriteWarning(
                        f"the state of the training cannot be saved ({exc}): if it is killed, it "
                        "begins anew"
                    ),
                    stacklevel=6,
                )


class _Teller(keras.callbacks.Callback):
    """Tells a progress bar."""

    def __init__(self, advance: Callable[[int], object]) -> None:
        super().__init__()
        self._advance = advance

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._advance(1)
