"""Whether fine-tuning is worth its minutes, judged before they are spent.

Three things are looked at: what is left to gain, how the head's score grew when it was given twice
the samples, and what a trial of a few epochs on some of them does to the held-out loss.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from featx.finetune.checkpoint import Checkpoint, assign, model_state, values_of
from featx.finetune.model import TrainingTask
from featx.finetune.params import FineTune
from featx.finetune.train import train

_TRIAL_EPOCHS = 2
_TRIAL_STEPS = 40  # at least, where samples are few
_TRIAL_SAMPLES = 1000
_LEAST_GAIN = 0.02  # of the loss, in a trial


@dataclass(frozen=True)
class TrialResult:
    """What was found, and what follows from it.

    Attributes
    ----------
    is_worth_it : bool
    why : str
    head_scores : dict
        From numbers of training samples to the head's held-out score.
    losses : tuple of float, or None
        Of held-out samples before and after the trial; None if there was none.
    minutes : float or None
        That all epochs would take, at most; None if there was no trial.
    """

    is_worth_it: bool
    why: str
    head_scores: dict[int, float]
    losses: tuple[float, float] | None
    minutes: float | None

    def describe(self) -> str:
        """Say the decision and its reasons in a sentence."""
        curve = ", ".join(f"{score:.3f} with {n} samples" for n, score in self.head_scores.items())
        decision = "fine-tuning" if self.is_worth_it else "not fine-tuning"
        minutes = "" if self.minutes is None else f" (at most {self.minutes:.1f} min)"
        return f"{decision}{minutes}: {self.why}; the head has {curve}"

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def judge(
    trainee: TrainingTask, params: FineTune, *, head_scores: dict[int, float], seed: int
) -> TrialResult:
    """Judge whether fine-tuning is worth it; the model is left as it was.

    Parameters
    ----------
    trainee : TrainingTask
    params : FineTune
    head_scores : dict
        From numbers of training samples to the head's held-out score; the last is of all.
    seed : int
    """
    n_held = len(trainee.held_rows)
    score = list(head_scores.values())[-1]
    if trainee.objective.classes is not None and (1 - score) * n_held < 1:
        why = f"the head is right on all {n_held} held-out samples"
        return TrialResult(False, why, head_scores, None, None)
    rng = np.random.default_rng(seed)
    some = trainee.train_rows
    if len(some) > _TRIAL_SAMPLES:
        some = np.sort(rng.choice(some, _TRIAL_SAMPLES, replace=False))
    before = trainee.held_loss(params.batch_size)
    variables = model_state(trainee.model)
    values = values_of(variables)
    n_steps = -(-len(some) // params.batch_size)
    n_epochs = min(params.epochs, max(_TRIAL_EPOCHS, -(-_TRIAL_STEPS // n_steps)))
    trial = clone(params).set_params(epochs=n_epochs, patience=None, callbacks=())
    trained = train(
        replace(trainee, train_rows=some), trial, seed=seed, checkpoint=Checkpoint(None, {})
    )
    assign(variables, values)
    if trained.was_interrupted:
        return TrialResult(False, "the trial was interrupted", head_scores, None, None)
    after = min(trained.history.get("val_loss", [math.inf]))
    epoch_s = trained.epoch_s or math.nan
    minutes = epoch_s * len(trainee.train_rows) / len(some) * params.epochs / 60
    gains = after < before * (1 - _LEAST_GAIN) or trained.best_epoch > 0
    why = (
        f"in a trial on {len(some)} samples the held-out loss went from {before:.3g} to {after:.3g}"
    )
    return TrialResult(bool(gains), why, head_scores, (before, after), minutes)
