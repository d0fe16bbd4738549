"""What an estimator is fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Data:
    """What an estimator is fitted on.

    Attributes
    ----------
    X : samples
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    sample_weight : ndarray of shape (n_samples,) or None
    groups : ndarray of shape (n_samples,) or None
    taught : ndarray of shape (n_samples, n_classes) or (n_samples, n_outputs), or None
        Probabilities or values that a teacher gives the samples.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None
    groups: np.ndarray | None
    taught: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Data:
        """Return some of the samples, without `X`."""
        parts = (self.sample_weight, self.groups, self.taught)
        taken = (None if part is None else part[rows] for part in parts)
        return Data(None, self.y[rows], *taken)
