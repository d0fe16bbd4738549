"""What is held out to judge by: stratified, and groups never part."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import (
    GroupShuffleSplit,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedShuffleSplit,
)

from featx.exceptions import InputError


def hold_out(
    y: np.ndarray,
    *,
    validation: Any,
    groups: np.ndarray | None,
    is_classifier: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples into those to train on and those to judge by.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
    validation : float or cross-validator
        See :class:`FineTune`.
    groups : ndarray of shape (n_samples,) or None
    is_classifier : bool
    seed : int

    Returns
    -------
    train, held : ndarray of int64, increasing

    Raises
    ------
    InputError
        They are too few, or a class is not among those to train on.

    Examples
    --------
    >>> y = np.repeat([0, 1], 10)
    >>> train, held = hold_out(y, validation=0.2, groups=None, is_classifier=True, seed=0)
    >>> y[held].tolist()
    [0, 0, 1, 1]
    """
    stratified = is_classifier and np.ndim(y) == 1
    splitter = validation
    if not hasattr(validation, "split"):
        splitter = _splitter(y, float(validation), groups, stratified=stratified, seed=seed)
    try:
        train, held = next(iter(splitter.split(np.zeros(len(y)), y, groups)))
    except ValueError as exc:
        raise InputError(
            f"validation={validation!r}: nothing can be held out of {len(y)} samples to judge "
            f"fine-tuning by: {exc}"
        ) from exc
    train, held = np.sort(train), np.sort(held)
    if not len(held) or not len(train):
        raise InputError(f"validation={validation!r}: one part of {len(y)} samples is empty")
    if stratified and len(lost := np.setdiff1d(y, y[train])):
        raise InputError(
            f"validation={validation!r}: all samples of {lost.tolist()[:10]} are held out, so "
            "nothing could be learnt of them: pass another splitter, or add samples"
        )
    return train, held


def _splitter(
    y: np.ndarray, share: float, groups: np.ndarray | None, *, stratified: bool, seed: int
) -> Any:
    if groups is not None:
        if not stratified:
            return GroupShuffleSplit(1, test_size=share, random_state=seed)
        n_folds = max(2, round(1 / share))
        return StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    if stratified:
        counts = np.unique(y, return_counts=True)[1]
        n_held = round(share * len(y))
        if counts.min() > 1 and len(counts) <= n_held <= len(y) - len(counts):
            return StratifiedShuffleSplit(1, test_size=share, random_state=seed)
        return _FewOfSome(share, seed)
    return ShuffleSplit(1, test_size=share, random_state=seed)


class _FewOfSome:
    """Holds samples out, but never the last one of a class."""

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, seed

    def split(self, X: Any, y: np.ndarray, groups: Any = None) -> Any:
        order = np.random.default_rng(self._seed).permutation(len(y))
        firsts = order[np.unique(y[order], return_index=True)[1]]
        others = np.setdiff1d(order, firsts)
        n_held = max(1, round(self._share * len(y)))
        if not len(others):
            raise ValueError("there is one sample of each class")
        held = order[np.isin(order, others)][:n_held]
        yield np.setdiff1d(order, held), held
