"""``run_trial`` of ``strategy="auto"``: an estimate whether fine-tuning is worth its time.

A few epochs on some samples show whether the validation loss or score improves. There is no trial
if the head is right on all validation samples. The learning curve of the head is reported too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import clone

from featx.finetune.checkpoint import Checkpoint, assign_values, model_state, values_of_variables
from featx.finetune.model import TrainingTask
from featx.finetune.params import FineTune
from featx.finetune.train import train

_MIN_EPOCHS = 2
_MIN_STEPS = 40
_MAX_SAMPLES = 1000
_SMALLEST_GAIN = 0.02  # as a fraction of the loss


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial; losses and minutes are None if nothing was trained."""

    is_worth_it: bool
    reason: str
    head_scores: dict[int, float]  # validation scores by the number of training samples
    losses: tuple[float, float] | None = None  # validation losses before and after the trial
    minutes: float | None = None  # estimated duration of all epochs, at most

    def describe(self) -> str:
        """Return the decision and its reasons as a sentence."""
        curve = ", ".join(f"{score:.3f} with {n} samples" for n, score in self.head_scores.items())
        decision = "fine-tuning" if self.is_worth_it else "not fine-tuning"
        minutes = "" if self.minutes is None else f" (at most {self.minutes:.1f} min)"
        return f"{decision}{minutes}: {self.reason}; the head has {curve}"


def run_trial(
    task: TrainingTask, params: FineTune, *, head_scores: dict[int, float], seed: int
) -> TrialResult:
    """Estimate whether fine-tuning is worth its time; the model ends as it began.

    The last of the head scores is that of the head fitted on all training samples.
    """
    n_validation = len(task.validation_rows)
    score = list(head_scores.values())[-1]
    if task.objective.classes is not None and (1 - score) * n_validation < 1:
        reason = f"the head is right on all {n_validation} held-out samples"
        return TrialResult(False, reason, head_scores)
    rows = task.train_rows
    if len(rows) > _MAX_SAMPLES:
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MAX_SAMPLES, replace=False))
    n_steps = -(-len(rows) // params.batch_size)
    n_epochs = min(params.epochs, max(_MIN_EPOCHS, -(-_MIN_STEPS // n_steps)))
    few_epochs = clone(params).set_params(epochs=n_epochs, patience=None, callbacks=())
    _, before = task.evaluate(params.batch_size)
    variables = model_state(task.model)
    values = values_of_variables(variables)
    no_checkpoint = Checkpoint(None, {})
    trained = train(replace(task, train_rows=rows), few_epochs, seed=seed, checkpoint=no_checkpoint)
    assign_values(variables, values)
    if trained.was_interrupted:
        return TrialResult(False, "the trial was interrupted", head_scores)
    after = min(trained.history.get("val_loss", [math.inf]))
    epoch_s = trained.epoch_s or math.nan
    minutes = epoch_s * len(task.train_rows) / len(rows) * params.epochs / 60
    is_worth_it = after < before * (1 - _SMALLEST_GAIN) or trained.best_epoch > 0
    losses = f"{before:.3g} to {after:.3g}"
    reason = f"in a trial on {len(rows)} samples the held-out loss went from {losses}"
    return TrialResult(bool(is_worth_it), reason, head_scores, (before, after), minutes)
