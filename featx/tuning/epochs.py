"""What happens around each epoch: samples are put in order; it is judged, kept and saved."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from featx._warning import warn_caller
from featx.exceptions import CacheWriteWarning, FineTuneWarning
from featx.tuning.batches import Batches
from featx.tuning.checkpoints import (
    Checkpoint,
    Progress,
    assign,
    model_state,
    trained_weights,
    values_of,
)
from featx.tuning.optimizers import averaged_weights
from featx.tuning.params import FineTune
from featx.tuning.trainee import Trainee


class EpochKeeper(keras.callbacks.Callback):
    """Judges each epoch, keeps the best, saves the state, and says when it is enough."""

    def __init__(
        self, trainee: Trainee, params: FineTune, progress: Progress, checkpoint: Checkpoint
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


class Shuffler(keras.callbacks.Callback):
    """Puts samples in the order of each epoch."""

    def __init__(self, batches: Batches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Put them in order before the first is read."""
        self._batches.start_epoch(epoch)


class Teller(keras.callbacks.Callback):
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
