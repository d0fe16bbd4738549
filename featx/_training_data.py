"""Data: samples, labels, weights and groups of a fit, their checks, and their split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import (
    GroupShuffleSplit,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedShuffleSplit,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import column_or_1d

from featx._targets import as_labels, as_weights, comparable
from featx.exceptions import InputError, ParameterError
from featx.extractor import FeatureExtractor
from featx.heads.fit import takes_sample_weight

_N_SHOWN = 10


def hold_out(
    y: np.ndarray,
    *,
    validation: Any,
    groups: np.ndarray | None,
    is_classifier: bool,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples into a training part and a validation part, increasing row indices.

    Raises
    ------
    InputError
        There are too few samples, or the training part lacks a class.

    Examples
    --------
    >>> y = np.repeat([0, 1], 10)
    >>> train, held_out = hold_out(y, validation=0.2, groups=None, is_classifier=True, seed=0)
    >>> y[held_out].tolist()
    [0, 0, 1, 1]
    """
    splitter = validation
    if not hasattr(validation, "split"):
        splitter = _hold_out_splitter(
            y, float(validation), groups, is_classifier=is_classifier, seed=seed
        )
    try:
        train, held_out = next(iter(splitter.split(np.zeros(len(y)), y, groups)))
    except (ValueError, StopIteration) as exc:
        raise InputError(
            f"validation={validation!r}: {len(y)} samples cannot be split into a training and a "
            f"validation part: {exc}"
        ) from exc
    train, held_out = np.sort(train), np.sort(held_out)
    if not len(held_out) or not len(train):
        raise InputError(f"validation={validation!r}: one part of {len(y)} samples is empty")
    for column in _label_columns(y) if is_classifier else ():
        if len(lost := np.setdiff1d(column, column[train])):
            raise InputError(
                f"validation={validation!r}: all samples of {lost.tolist()[:_N_SHOWN]} are held "
                "out, so nothing could be trained on them: pass another splitter, or add samples"
            )
    return train, held_out


def _hold_out_splitter(
    y: np.ndarray,
    fraction: float,
    groups: np.ndarray | None,
    *,
    is_classifier: bool,
    seed: int,
) -> Any:
    stratified = is_classifier and np.ndim(y) == 1
    if groups is not None:
        if not stratified:
            return GroupShuffleSplit(1, test_size=fraction, random_state=seed)
        n_folds = max(2, round(1 / fraction))
        return StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    if not is_classifier:
        return ShuffleSplit(1, test_size=fraction, random_state=seed)
    if stratified:
        counts = np.unique(y, return_counts=True)[1]
        n_held_out = round(fraction * len(y))
        if counts.min() > 1 and len(counts) <= n_held_out <= len(y) - len(counts):
            return StratifiedShuffleSplit(1, test_size=fraction, random_state=seed)
    return _SplitKeepingEachClass(fraction, seed)


def _label_columns(y: np.ndarray) -> np.ndarray:
    """Return the labels, (1, n_samples), or each of several labels, (n_labels, n_samples)."""
    return np.asarray(y).reshape(len(y), -1).T


class _SplitKeepingEachClass:
    """A split that never holds out the last sample of a class, nor of a binary label."""

    def __init__(self, fraction: float, seed: int) -> None:
        self._fraction, self._seed = fraction, seed

    def split(self, X: Any, y: np.ndarray, groups: Any = None) -> Any:
        order = np.random.default_rng(self._seed).permutation(len(y))
        firsts = [
            order[np.unique(column[order], return_index=True)[1]] for column in _label_columns(y)
        ]
        others = np.setdiff1d(order, np.concatenate(firsts))
        n_held_out = max(1, round(self._fraction * len(y)))
        if not len(others):
            raise ValueError("each class has only one sample")
        held_out = order[np.isin(order, others)][:n_held_out]
        yield np.setdiff1d(order, held_out), held_out


def _no_row_indices() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Data:
    """Samples, labels or values, weights and groups on which an estimator is fitted.

    The rows of training and validation samples increase; there are none before they are chosen.
    """

    X: Any
    y: np.ndarray  # (n_samples,) or (n_samples, n_outputs)
    sample_weight: np.ndarray | None
    groups: np.ndarray | None
    train: np.ndarray = field(default_factory=_no_row_indices)
    validation: np.ndarray = field(default_factory=_no_row_indices)
    teacher_predictions: np.ndarray | None = None  # (n_samples, n_classes or n_outputs)

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
            np.flatnonzero(np.isin(rows, self.validation)),
            some(self.teacher_predictions),
        )

    def without_validation(self) -> Data:
        """Return the same samples, all in the training part."""
        return replace(self, train=np.arange(len(self.y)), validation=_no_row_indices())

    def split(self, validation: Any, *, is_classifier: bool, seed: int) -> Data:
        """Choose the validation samples: see :func:`hold_out`."""
        train, held_out = hold_out(
            self.y,
            validation=validation,
            groups=self.groups,
            is_classifier=is_classifier,
            seed=seed,
        )
        return replace(self, train=train, validation=held_out)


def draw_seed(random_state: Any) -> int:
    """Draw an int32 seed from a random state."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def training_views(extractor: FeatureExtractor, X: Any) -> np.ndarray:
    """Fit an extractor, and embed augmented views as float32, (n_samples, n_views, n_features)."""
    if extractor.views > 1 or extractor.pooling is None:
        return views_of(extractor.fit(X), X)
    return np.asarray(extractor.fit_transform(X))[:, np.newaxis]


def views_of(extractor: FeatureExtractor, X: Any) -> np.ndarray:
    """Embed augmented views with a fitted extractor: (n_samples, n_views, n_features), float32."""
    check_vectors(extractor)
    if extractor.views == 1:
        return np.asarray(extractor.transform(X))[:, np.newaxis]
    return extractor.transform_views(X)


def check_vectors(extractor: FeatureExtractor) -> None:
    """Raise a ParameterError if the embeddings of a fitted extractor are not vectors."""
    if len(extractor.feature_shape_) != 1:
        raise ParameterError(
            f"extractor has pooling=None, which gives embeddings of shape "
            f"{extractor.feature_shape_}: a head needs vectors, so pass another pooling"
        )


def checked_weights(sample_weight: Any, head: BaseEstimator, n_samples: int) -> np.ndarray:
    """Return the weights of samples, (n_samples,) float64, unless the head takes none."""
    if not takes_sample_weight(head):
        raise InputError(
            f"sample_weight was passed, but the head {type(head).__name__} takes no weights, and "
            "no estimator inside it does (a search with `scoring` passes none on): leave them out, "
            "or pass another head"
        )
    return as_weights(sample_weight, n_samples)


def checked_target(
    y: Any, n_samples: int, *, convert: Callable[[Any], np.ndarray], owner: str
) -> np.ndarray:
    """Return labels or values, (n_samples,) or (n_samples, n_outputs), by as_labels or as_values.

    Raises
    ------
    InputError
        `y` is None, some labels or values are missing or unusable, or their number is wrong.
    """
    if y is None:
        raise InputError(f"{owner} requires y to be passed, but the target y is None")
    target = convert(y)
    if len(target) != n_samples:
        raise InputError(
            f"X has {n_samples} samples and y has {len(target)}: expected the same number"
        )
    is_column = target.ndim == 2 and target.shape[1] == 1
    return column_or_1d(target, warn=True) if is_column else target


def checked_classes(classes: Any, y: np.ndarray) -> np.ndarray:
    """Return all class labels, (n_classes,), sorted; `y` may hold no others."""
    known = np.unique(as_labels(classes, name="classes"))
    check_known(y, known, source="classes")
    return known


def check_known(y: np.ndarray, classes: np.ndarray, *, source: str) -> None:
    """Raise an InputError if labels are not among the classes of a head."""
    is_text = [array.dtype.kind in "OU" for array in (y, classes)]
    unknown = y
    if is_text[0] == is_text[1]:
        labels, known = comparable(y=y, classes=classes)
        unknown = np.setdiff1d(labels, known)
    if len(unknown):
        shown = unknown[:_N_SHOWN].tolist()
        raise InputError(f"y has labels that are not in {source}: {shown}")


def readable_mask(embeddings: np.ndarray) -> np.ndarray:
    """Return True for each sample that could be read, with all of its augmented views."""
    unread = np.isnan(embeddings[..., 0])
    return ~unread.any(axis=tuple(range(1, unread.ndim)))


def check_all_were_read(embeddings: Any) -> None:
    """Raise an InputError that names rows of NaN, which samples that could not be read have."""
    array = np.asarray(embeddings)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        return
    unread = np.flatnonzero(np.isnan(array).all(axis=1))
    if len(unread):
        raise InputError(
            f"X has rows of NaN, of samples that could not be read: {unread[:_N_SHOWN].tolist()}. "
            "Leave them out, here and in labels, images and groups: X[~np.isnan(X[:, 0])]"
        )


def rows_that_were_read(embeddings: np.ndarray) -> np.ndarray:
    """Return :func:`readable_mask`; the pass has warned of unreadable samples.

    Raises
    ------
    InputError
        No sample could be read.
    """
    kept = readable_mask(embeddings)
    if not kept.any():
        raise InputError(f"none of the {len(kept)} samples could be read")
    return kept
