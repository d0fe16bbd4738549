"""The weights of samples, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from featx.exceptions import InputError
from featx.probes.arrays import numpy_if_foreign
from featx.probes.folds import Fold
from featx.targets import as_weights


def checked_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return the weights of samples, (n_samples,) float64, or raise; None weighs all the same."""
    if sample_weight is None:
        return np.ones(n_samples)
    return as_weights(numpy_if_foreign(sample_weight), n_samples)


def check_weights_of_folds(
    folds: Sequence[Fold], weights: np.ndarray, scored_by: np.ndarray | None
) -> None:
    """Check that every fold has something to train on and to be scored by.

    Parameters
    ----------
    folds : sequence of (train, test)
    weights : ndarray of shape (n_samples,)
        For the training.
    scored_by : ndarray of shape (n_samples,) or None
        For the scores; None weighs all the same.

    Raises
    ------
    InputError
        All weights are zero in some; all of these are named.
    """
    faults = [
        f"what fold {number} {part}"
        for number, fold in enumerate(folds)
        for part, rows, theirs in zip(
            ("trains on", "is scored by"), fold, (weights, scored_by), strict=True
        )
        if not len(rows) or (theirs is not None and not theirs[rows].any())
    ]
    if faults:
        raise InputError(f"all weights are zero in {', '.join(faults)}")
