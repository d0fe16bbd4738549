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
    splitter = validation
    if not hasattr(validation, "split"):
        share = float(validation)
        splitter = _splitter(y, share, groups, is_classifier=is_classifier, seed=seed)
    try:
        train, held = next(iter(splitter.split(np.zeros(len(y)), y, groups)))
    except (ValueError, StopIteration) as exc:
        raise InputError(
            f"validation={validation!r}: nothing can be held out of {len(y)} samples to judge "
            f"fine-tuning by: {exc}"
        ) from exc
    train, held = np.sort(train), np.sort(held)
    if not len(held) or not len(train):
        raise InputError(f"validation={validation!r}: one part of {len(y)} samples is empty")
    for column in _columns(y) if is_classifier else ():
        if len(lost := np.setdiff1d(column, column[train])):
            raise InputError(
                f"validation={validation!r}: all samples of {lost.tolist()[:10]} are held out, so "
                "nothing could be learnt of them: pass another splitter, or add samples"
            )
    return train, held


def _splitter(
    y: np.ndarray,
    share: float,
    groups: np.ndarray | None,
    *,
    is_classifier: bool,
    seed: int,
) -> Any:
    stratified = is_classifier and np.ndim(y) == 1
    if groups is not None:
        if not stratified:
            return GroupShuffleSplit(1, test_size=share, random_state=seed)
        n_folds = max(2, round(1 / share))
        return StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    if is_classifier and not stratified:
        return _FewOfSome(share, seed)
    if stratified:
        counts = np.unique(y, return_counts=True)[1]
        n_held = round(share * len(y))
        if counts.min() > 1 and len(counts) <= n_held <= len(y) - len(counts):
            return StratifiedShuffleSplit(1, test_size=share, random_state=seed)
        return _FewOfSome(share, seed)
    return ShuffleSplit(1, test_size=share, random_state=seed)


def _columns(y: np.ndarray) -> np.ndarray:
    """Return the labels, (1, n_samples), or each of several labels, (n_labels, n_samples)."""
    return np.asarray(y).reshape(len(y), -1).T


class _FewOfSome:
    """Holds samples out, but never the last one of a class, or without or with a label."""

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, seed

    def split(self, X: Any, y: np.ndarray, groups: Any = None) -> Any:
        order = np.random.default_rng(self._seed).permutation(len(y))
        firsts = [order[np.unique(column[order], return_index=True)[1]] for column in _columns(y)]
        others = np.setdiff1d(order, np.concatenate(firsts))
        n_held = max(1, round(self._share * len(y)))
        if not len(others):
            raise ValueError("there is one sample of each class")
        held = order[np.isin(order, others)][:n_held]
        yield np.setdiff1d(order, held), held
