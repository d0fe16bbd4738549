"""HeldOut: predictions for samples that the head was not trained on, by folds or on test samples.

Heads are refitted on embeddings; an estimator that fine-tunes is refitted as a whole in each fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.metrics import r2_score
from sklearn.pipeline import Pipeline

from featx._targets import comparable
from featx._threads import blas_threads_for
from featx._training_data import rows_that_were_read, training_views
from featx._transfer import TransferEstimator
from featx.estimators import TransferClassifier, TransferRegressor
from featx.evaluation.folds import Folds
from featx.evaluation.training_overlap import TrainingOverlap, training_overlap
from featx.exceptions import InputError, ParameterError
from featx.extractor import FeatureExtractor
from featx.heads.fit import as_head_input, fit_on_views, predict
from featx.heads.folds import check_keeps_samples_together
from featx.inputs.samples import Samples

TEST_SAMPLES = "evaluated on the given test samples"
TEST_CAVEAT = "This holds if the model was not fitted on any of these samples."

Fold = tuple[np.ndarray, np.ndarray]


class HeldOut(NamedTuple):
    """Predictions for samples that could be read; all arrays have an entry for each of them.

    Attributes
    ----------
    estimator : TransferClassifier or TransferRegressor
        What was refitted or evaluated.
    extractor : FeatureExtractor
        Fitted; its `report_` is that of the pass.
    rows : ndarray of shape (n,), int64
        Row of each sample in `X`, increasing.
    embeddings : ndarray of shape (n, n_features), float32
    y_true, y_pred : ndarray of shape (n,) or (n, n_outputs)
    proba : ndarray of shape (n, n_classes) or None
        Probabilities, for a head that has them and one label per sample.
    classes : ndarray of shape (n_classes,)
        Labels of the columns of `proba`; empty for several outputs, and for values.
    folds : Folds or None
        Folds in which the samples were tested; None for test samples.
    groups : ndarray of shape (n,) or None
    overlap : TrainingOverlap or None
        Number of test samples that the estimator was trained on; None for folds, or if not known.
    """

    estimator: TransferEstimator
    extractor: FeatureExtractor
    rows: np.ndarray
    embeddings: np.ndarray
    y_true: np.ndarray
    y_pred: np.ndarray
    proba: np.ndarray | None
    classes: np.ndarray
    folds: Folds | None
    groups: np.ndarray | None
    overlap: TrainingOverlap | None

    @property
    def task(self) -> str:
        """Return "classes", "labels" (several per sample) or "values"."""
        if not is_classifier(self.estimator):
            return "values"
        return "classes" if self.y_true.ndim == 1 else "labels"

    @property
    def caveat(self) -> str | None:
        """Return a sentence on test samples of the training, None for folds."""
        if self.folds is not None:
            return None
        if self.overlap is None or not self.overlap.n_trained_on:
            return TEST_CAVEAT
        return f"{self.overlap.describe('the model', noun='samples')}."

    @property
    def fold(self) -> np.ndarray:
        """Return the fold that tested each sample, (n,), from 0; 0 for test samples."""
        return np.zeros(len(self.rows), np.int64) if self.folds is None else self.folds.number

    def fold_scores(self) -> list[float]:
        """Return accuracy, or R², of each fold."""
        folds = (self.fold == number for number in range(self.fold.max() + 1))
        return [self.score(self.y_true[fold], self.y_pred[fold]) for fold in folds]

    def confidences(self) -> np.ndarray | None:
        """Return the probability of each predicted class, which need not be the largest, (n,)."""
        if self.proba is None:
            return None
        columns = np.searchsorted(self.classes, self.y_pred)
        return np.take_along_axis(self.proba, columns[:, np.newaxis], axis=1)[:, 0]

    def is_right(self) -> np.ndarray:
        """Return True for each sample of which all labels are right, (n,)."""
        are_equal = np.asarray(self.y_true == self.y_pred).reshape(len(self.rows), -1)
        return np.asarray(are_equal.all(axis=1))

    def score(self, y_true: np.ndarray, y_pred: np.ndarray) -> float:
        """Return the accuracy of labels, all outputs of a sample right, or R² of values."""
        if self.task == "values":
            scale = float(np.abs(y_true).max(initial=0)) or 1.0  # squares of large values overflow
            return float(r2_score(y_true / scale, y_pred / scale)) if len(y_true) > 1 else np.nan
        is_right = np.asarray(y_true == y_pred).reshape(len(y_true), -1).all(axis=1)
        return float(is_right.mean())


def as_transfer_estimator(estimator: Any) -> TransferEstimator:
    """Return a transfer estimator; a pipeline of an extractor and a head becomes one.

    Raises
    ------
    ParameterError
        It is another estimator.
    """
    if isinstance(estimator, TransferEstimator):
        return estimator
    steps = estimator.steps if isinstance(estimator, Pipeline) else []
    if len(steps) < 2 or not isinstance(steps[0][1], FeatureExtractor):
        raise ParameterError.of(
            "estimator",
            estimator,
            "expected a TransferClassifier, a TransferRegressor, or a Pipeline of a "
            "FeatureExtractor and a head.",
        )
    extractor = steps[0][1]
    head = steps[1][1] if len(steps) == 2 else estimator[1:]
    kind = TransferClassifier if is_classifier(estimator) else TransferRegressor
    made = kind(extractor, head)
    if hasattr(extractor, "space_"):
        made.extractor_, made.head_ = extractor, head
    return made


def on_test_samples(
    estimator: TransferEstimator,
    samples: Samples,
    y: np.ndarray,
    *,
    groups: np.ndarray | None = None,
) -> HeldOut:
    """Evaluate a fitted estimator on samples that it was not fitted on."""
    extractor, head = estimator.extractor_, estimator.head_
    embeddings = np.asarray(extractor.transform(samples))
    overlap = training_overlap(estimator)
    rows = np.flatnonzero(rows_that_were_read(embeddings))
    embeddings, y = embeddings[rows], y[rows]
    predicted = _predictions(head, embeddings)
    if is_classifier(estimator):
        _check_known_outputs(y, predicted.y_pred)
        y, y_pred = comparable(y_true=y, y_pred=predicted.y_pred)
        predicted = predicted._replace(y_pred=y_pred)
    classes = np.empty(0)
    if predicted.proba is not None:
        (classes,) = comparable(classes=np.asarray(head.classes_))
    arrays = rows, embeddings, y, *predicted, classes
    groups = None if groups is None else groups[rows]
    return HeldOut(estimator, extractor, *arrays, None, groups, overlap)


def _check_known_outputs(y: np.ndarray, y_pred: np.ndarray) -> None:
    if y.shape != y_pred.shape:
        raise InputError(
            f"y_test has shape {y.shape}, and the estimator's predictions have {y_pred.shape}: "
            "expected the labels that it was fitted to predict"
        )


def cross_validated(
    estimator: TransferEstimator,
    samples: Samples,
    y: np.ndarray,
    *,
    folds: Folds,
    groups: np.ndarray | None,
) -> HeldOut:
    """Refit an estimator in each fold of all samples, and predict those of its test part."""
    head = estimator.new_head(y)
    extractor = estimator._new_extractor()
    check_keeps_samples_together(head, y, groups, n_views=extractor.views)
    views = training_views(extractor, samples)
    rows = np.flatnonzero(rows_that_were_read(views))
    views, y = (views, y) if len(rows) == len(y) else (views[rows], y[rows])
    groups = None if groups is None else groups[rows]
    folds = folds.only(rows)
    classes = np.unique(y) if is_classifier(estimator) and y.ndim == 1 else np.empty(0)
    training = _Training(estimator, samples, rows, views, y, groups, classes)
    predicted = _joined(folds.parts, [training.predicted(fold) for fold in folds.parts])
    embeddings = views[:, 0] if views.shape[1] == 1 else views.mean(axis=1)
    arrays = rows, embeddings, y, *predicted, classes
    return HeldOut(estimator, extractor, *arrays, folds, groups, None)


class _Predicted(NamedTuple):
    y_pred: np.ndarray
    proba: np.ndarray | None


class _Training(NamedTuple):
    """An estimator, and the samples that could be read, on parts of which it is refitted."""

    estimator: TransferEstimator
    samples: Samples
    rows: np.ndarray  # of the samples that could be read
    views: np.ndarray
    y: np.ndarray
    groups: np.ndarray | None
    classes: np.ndarray

    def predicted(self, fold: Fold) -> _Predicted:
        """Refit on the training part of a fold, and predict its test part."""
        train, test = fold
        groups = None if self.groups is None else self.groups[train]
        if self.estimator.fine_tune is not None:
            known, new = (self.samples.take(self.rows[part]) for part in fold)
            fitted = clone(self.estimator).fit(known, self.y[train], groups=groups)
            return _predictions(fitted.head_, np.asarray(fitted.transform(new)), self.classes)
        head = self.estimator.new_head(self.y)
        fit_on_views(head, self.views[train], self.y[train], sample_weight=None, groups=groups)
        return _predictions(head, self.views[test].mean(axis=1), self.classes)


def _joined(folds: Sequence[Fold], parts: Sequence[_Predicted]) -> _Predicted:
    """Return the predictions of all test parts in the order of the samples.

    There are no probabilities if the head of a fold has none.
    """
    order = np.argsort(np.concatenate([test for _, test in folds]))
    y_pred = np.concatenate([part.y_pred for part in parts])[order]
    probas = [part.proba for part in parts if part.proba is not None]
    return _Predicted(y_pred, np.concatenate(probas)[order] if len(probas) == len(parts) else None)


def _predictions(
    head: BaseEstimator, embeddings: np.ndarray, classes: np.ndarray | None = None
) -> _Predicted:
    """Return predictions, and probabilities with a column for each of `classes`, if it has any."""
    rows = as_head_input(embeddings)
    with blas_threads_for(rows.nbytes):
        y_pred = predict(head, rows)
        if y_pred.ndim > 1 or not is_classifier(head) or not hasattr(head, "predict_proba"):
            return _Predicted(y_pred, None)
        proba = np.asarray(head.predict_proba(rows), np.float32)
    return _Predicted(y_pred, _with_all_columns(proba, head.classes_, classes))


def _with_all_columns(proba: np.ndarray, own: np.ndarray, classes: np.ndarray | None) -> np.ndarray:
    """Return probabilities with a column of zeros for each class that the head has not seen."""
    if classes is None or len(own) == len(classes):
        return proba
    full = np.zeros((len(proba), len(classes)), np.float32)
    full[:, np.isin(classes, own)] = proba
    return full


def describe_split(held_out: HeldOut, cv: Any, *, n_training: int = 0) -> str:
    """Return in words how samples were held out; `n_training` if the report fitted the model."""
    if held_out.folds is None:
        fitted = f"fitted on {n_training:,} samples and " if n_training else ""
        return f"{fitted}{TEST_SAMPLES}"
    is_number = isinstance(cv, Integral)
    how = "shuffled" if is_number else "of your own"
    how = f"by {type(cv).__name__}" if hasattr(cv, "split") else how
    stratified = "stratified and " if is_number and held_out.task == "classes" else ""
    grouped = "" if held_out.groups is None else ", each group in one fold"
    n_folds = len(held_out.folds.trains)
    return f"cross-validation with {n_folds} folds, {stratified}{how}{grouped}"
