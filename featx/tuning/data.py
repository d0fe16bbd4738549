"""What an estimator is fitted on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from featx.tuning.splitting import hold_out


def _none() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Data:
    """What an estimator is fitted on.

    Attributes
    ----------
    X : Samples
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : ndarray of shape (n_samples,) or None
    groups : ndarray of shape (n_samples,) or None
    train, held : ndarray of int64, increasing
        Samples to train on, and to judge by; empty before they are chosen.
    taught : ndarray of shape (n_samples, n_classes) or (n_samples, n_outputs), or None
        Probabilities or values that a teacher gives the samples.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None
    groups: np.ndarray | None
    train: np.ndarray = field(default_factory=_none)
    held: np.ndarray = field(default_factory=_none)
    taught: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Data:
        """Return some of the samples, `rows` increasing, without `X`."""

        def some(part: np.ndarray | None) -> np.ndarray | None:
            return None if part is None else part[rows]

        return Data(
            None,
            self.y[rows],
            some(self.sample_weight),
            some(self.groups),
            np.flatnonzero(np.isin(rows, self.train)),
            np.flatnonzero(np.isin(rows, self.held)),
            some(self.taught),
        )

    def all_to_train_on(self) -> Data:
        """Return the same samples, with nothing held out."""
        return replace(self, train=np.arange(len(self.y)), held=_none())

    def split(self, validation: Any, *, is_classifier: bool, seed: int) -> Data:
        """Choose what is held out: see :func:`hold_out`."""
        train, held = hold_out(
            self.y,
            validation=validation,
            groups=self.groups,
            is_classifier=is_classifier,
            seed=seed,
        )
        return replace(self, train=train, held=held)
