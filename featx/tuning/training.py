"""Training with Keras' own ``fit``, judged after each epoch on what was held out.

The best epoch is kept, the head with which training began being epoch 0. After each epoch the state
is on disk; a loss that is no number, an interruption or a lack of patience end the training with
the best weights so far; a lack of memory halves the batch and accumulates gradients instead.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from featx.engines.batch_sizes import is_out_of_memory
from featx.engines.devices import has_accelerator
from featx.networks.randomness import seed_generators
from featx.progress import progress_bar
from featx.tuning.checkpoints import (
    Checkpoint,
    Progress,
    assign,
    model_state,
    trained_weights,
    values_of,
)
from featx.tuning.epochs import EpochKeeper, Shuffler, Teller
from featx.tuning.optimizers import (
    make_optimizer,
    named_optimizer,
    rate_from_trial,
)
from featx.tuning.params import FineTune
from featx.tuning.trainee import Trainee

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
    keeper = EpochKeeper(trainee, params, progress, checkpoint)
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
    trainee: Trainee,
    params: FineTune,
    keeper: EpochKeeper,
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
            callbacks=[Shuffler(batches), keeper, Teller(advance), *params.callbacks],
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
