"""Folds: the parts in which samples are held out, each sample in one of them."""

from __future__ import annotations

import reprlib
import warnings
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from featx.exceptions import InputError, ParameterError, ParameterFault
from featx.probes._classes_and_folds import split_folds

_N_SHOWN = 3
_EXPECTED = "expected an integer from 2 on, a splitter, or pairs of (train, test) row indices"


class Folds(NamedTuple):
    """Folds that test each sample once, and never train on what they test.

    Attributes
    ----------
    number : ndarray of shape (n_samples,), int64
        The fold that tests each sample, from 0.
    trains : list of ndarray
        Rows on which each fold trains, increasing.
    """

    number: np.ndarray
    trains: list[np.ndarray]

    @classmethod
    def of(
        cls, cv: Any, y: np.ndarray, groups: np.ndarray | None = None, *, stratified: bool = True
    ) -> Folds:
        """Return the folds of a number, which are shuffled, or those of a splitter or of pairs.

        Parameters
        ----------
        cv : int, splitter or iterable of (train, test)
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        groups : ndarray of shape (n_samples,), default=None
            Groups whose samples are in one fold.
        stratified : bool, default=True
            True if each fold of a number gets the same fraction of each class in `y`.

        Raises
        ------
        ParameterError
            `cv` is none of these, tests a sample never or twice, trains on samples that it tests,
            or parts a group; or there are too few samples or groups.

        Examples
        --------
        >>> folds = Folds.of(2, np.repeat([0, 1], 4))
        >>> sorted(folds.number.tolist()), [len(train) for train in folds.trains]
        ([0, 0, 0, 0, 1, 1, 1, 1], [4, 4])
        """
        no_rows = np.zeros((len(y), 1))
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of rare classes
            try:
                splitter = _splitter(cv, len(y), groups, stratified=stratified)
                parts = split_folds(splitter, no_rows, y, groups, stratified=stratified)
            except (TypeError, ValueError, IndexError) as exc:
                raise _fault(cv, str(exc)) from exc
        tests = np.concatenate([test for _, test in parts])
        if not np.array_equal(np.sort(tests), np.arange(len(y))):
            raise _fault(cv, "expected folds that test each sample exactly once")
        number = np.empty(len(y), np.int64)
        for fold, (_, test) in enumerate(parts):
            number[test] = fold
        folds = cls(number, [np.unique(train) for train, _ in parts])
        _check_parts(folds, cv, groups)
        return folds

    @property
    def parts(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows on which each fold trains, and those that it tests."""
        tests = (np.flatnonzero(self.number == fold) for fold in range(len(self.trains)))
        return list(zip(self.trains, tests, strict=True))

    def only(self, rows: np.ndarray) -> Folds:
        """Return the folds of some of the samples, in whose rows they count from 0.

        Folds that test none of them are left out.
        """
        place = np.full(len(self.number), -1)
        place[rows] = np.arange(len(rows))
        kept, number = np.unique(self.number[rows], return_inverse=True)
        trains = [place[self.trains[fold]] for fold in kept.tolist()]
        return Folds(number, [train[train >= 0] for train in trains])


def n_possible_folds(y: np.ndarray, groups: np.ndarray | None, *, most: int = 5) -> int:
    """Return how many stratified folds samples allow: as many as the largest class has samples.

    The result is at most `most`, at most the number of groups, and at least 2.
    """
    n_largest = int(np.unique(y, return_counts=True)[1].max(initial=0))
    n_groups = n_largest if groups is None else len(np.unique(groups))
    return max(2, min(most, n_largest, n_groups))


def _splitter(cv: Any, n_samples: int, groups: np.ndarray | None, *, stratified: bool) -> Any:
    """Return the splitter for a number of folds; others are returned unchanged."""
    if isinstance(cv, (bool, str)) or cv is None:
        raise InputError(_EXPECTED)
    if not isinstance(cv, Integral):
        return cv
    if int(cv) < 2:
        raise InputError(_EXPECTED)
    n_most = n_samples if groups is None else len(np.unique(groups))
    if int(cv) > n_most:
        noun = "samples" if groups is None else "groups"
        raise InputError(f"expected at most {n_most}, the number of {noun}")
    kinds = (KFold, GroupKFold, StratifiedKFold, StratifiedGroupKFold)
    splitter = kinds[2 * stratified + (groups is not None)]
    return splitter(int(cv), shuffle=True, random_state=0)


def _check_parts(folds: Folds, cv: Any, groups: np.ndarray | None) -> None:
    """Raise a ParameterError if a fold trains on nothing, on tested samples or on their groups."""
    for number, (train, test) in enumerate(folds.parts):
        if not len(train) or not len(test):
            part = "train on" if len(test) else "test"
            raise _fault(cv, f"expected samples in each part, but fold {number} has none to {part}")
        if np.isin(train, test).any():
            raise _fault(cv, f"expected folds that hold out, but fold {number} trains on its tests")
        parted = [] if groups is None else np.intersect1d(groups[train], groups[test]).tolist()
        if parted:
            shown = ", ".join(map(repr, parted[:_N_SHOWN]))
            raise _fault(
                cv,
                f"expected folds that keep groups together, but fold {number} trains on and tests "
                f"{shown}",
            )


def _fault(cv: Any, reason: str) -> ParameterError:
    fault = ParameterFault("cv", reprlib.repr(cv), f"{reason.rstrip('.')}.")
    return ParameterError(str(fault), [fault])
