"""A model, and the samples that it is trained on and judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from featx.forward.batched import predict_in_batches
from featx.tuning.batches import Batches
from featx.tuning.objectives import Objective
from featx.tuning.readers import Reader


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

    def judge(self, batch_size: int) -> tuple[float, float]:
        """Compute score and loss of the held-out samples; zeros if nothing is held out.

        The score is no number if those of the samples are none.
        """
        if not len(self.held_rows):
            return 0.0, 0.0
        scores = self.scores(self.held_rows, batch_size)
        if not np.isfinite(scores).all():
            return np.nan, np.nan
        objective = self.objective
        return objective.score(scores, self.held_rows), objective.loss_of(scores, self.held_rows)

    def held_loss(self, batch_size: int) -> float:
        """Compute the loss of the held-out samples."""
        scores = self.scores(self.held_rows, batch_size)
        return self.objective.loss_of(scores, self.held_rows)


def predict(model: keras.Model, read: Reader, rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Compute what a model gives for samples, in their order."""
    return predict_in_batches(model, read, rows, batch_size=batch_size, n_threads=read.n_threads)
