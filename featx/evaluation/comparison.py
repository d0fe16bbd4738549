"""``compare_heads`` on embeddings, ``compare`` of backbones and heads on images: the same folds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from scipy import stats
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.utils import check_array
from sklearn.utils.multiclass import type_of_target

from featx._targets import as_groups, as_labels
from featx._text import one_line
from featx._threads import blas_threads_for
from featx._training_data import check_all_were_read, checked_target, readable_mask, training_views
from featx._validation import InputFaults, ParameterFaults
from featx.estimators import TransferClassifier
from featx.evaluation.duplicates import warn_of_duplicates
from featx.evaluation.pixel_hashes import ImageHashes, hash_images
from featx.exceptions import (
    BackboneError,
    EngineError,
    FeatxError,
    InputError,
    MissingExtraError,
    WeightsError,
)
from featx.extractor import FeatureExtractor
from featx.heads.fit import as_head_input, fit_on_views, predict
from featx.heads.folds import check_keeps_samples_together
from featx.heads.named import CLASSIFIER_HEADS, head_for_labels, make_head, seed_head
from featx.inputs.kinds import IMAGE, InputForm
from featx.inputs.recognize import as_samples
from featx.inputs.samples import Samples
from featx.probes._arrays import numpy_if_array_api

if TYPE_CHECKING:
    from featx.finetune.params import FineTune

BASELINE = "majority class"
# Parameters that are part of a name only if backbones of otherwise equal names differ in them.
_TELLING_PARAMS = ("weights", "preprocessing", "resize", "in_channels", "n_prefix_tokens")
_ROUNDING = 1e-12  # of a score
# Errors of one backbone, which the others need not have.
_SURVIVED = (BackboneError, EngineError, MissingExtraError, WeightsError)


class Comparison(NamedTuple):
    """Accuracy of a head on the embeddings of a backbone, or fine-tuned with it, over folds."""

    backbone: str  # empty for the baseline, which looks at no embedding
    head: str
    mean: float  # mean accuracy
    spread: float  # standard deviation of the accuracy
    seconds: float  # wall time, without that of the embedding
    scores: list[float]  # accuracy of each fold


class EmbeddingPass(NamedTuple):
    """Cost of the embeddings of a backbone, which its heads share."""

    backbone: str
    n_forward: int  # number of embeddings that the network computed
    n_hits: int  # number of embeddings read from the cache
    seconds: float  # wall time


class BackboneFailure(NamedTuple):
    """Error of a backbone without which the comparison continues."""

    backbone: str
    error: FeatxError


def compare(
    X: Any,
    y: Any,
    *,
    extractors: Sequence[FeatureExtractor],
    heads: Sequence[Any],
    n_folds: int = 5,
    groups: Any = None,
    fine_tune: FineTune | None = None,
    random_state: int = 0,
) -> Iterator[Comparison | EmbeddingPass | BackboneFailure]:
    """Cross-validate each head on the embeddings of each extractor, and yield each result at once.

    After the first pass comes a baseline, which predicts the most frequent class. A backbone or
    weights that cannot be loaded, or a network that cannot run, becomes a BackboneFailure.

    With `fine_tune`, each backbone is also fine-tuned from the first head, in each fold: a
    TransferClassifier, which keeps the head where fine-tuning is not better.

    Samples of a group stay together in training or test. `random_state` seeds the folds, heads that
    take one, and fine-tuning. With ``on_error="nan"``, samples that cannot be read are left out of
    training and test. A warning names near-duplicates in different folds: neighbors, by the
    embeddings of the first extractor, with nearly the same pixels. Up to 300 images are compared,
    of 10,000 or fewer.

    All faults of extractors, heads and fine-tuning make one error, and those of labels and groups
    another, before any pass.
    """
    classifiers = [
        TransferClassifier(
            each, heads[0], fine_tune, random_state=random_state, verbose=each.verbose
        )
        for each in extractors
    ]
    _check_params_of_comparison(classifiers, heads)
    samples = as_samples(X)
    y, groups = _checked_labels_and_groups(len(samples), y, groups)
    _check_comparison_folds(y, n_folds=n_folds, groups=groups)
    n_views = max(extractor.views for extractor in extractors)
    _check_heads(heads, y, groups, n_views=n_views)
    # All are loaded first, so that a backbone that cannot be loaded is reported before any pass.
    names, loaded = _Names(extractors), []
    for classifier in classifiers:
        try:
            loaded.append((classifier, _loaded_embedder(classifier, samples)))
        except _SURVIVED as exc:
            yield BackboneFailure(names.of(classifier.extractor), exc)
    is_first = True
    for classifier, embedder in loaded:
        name = names.of(embedder)
        try:
            views, cost = _embedded(embedder, samples, name)
        except _SURVIVED as exc:
            yield BackboneFailure(name, exc)
            continue
        yield cost
        rows = np.flatnonzero(readable_mask(views))
        cv = _CrossValidation.split(
            y, groups, rows=rows, n_folds=n_folds, random_state=random_state
        )
        if is_first:
            _warn_of_duplicates_in(samples, embedder, rows, views[rows, 0], cv.folds)
            yield cv.compared(DummyClassifier(), views[rows], backbone="")._replace(head=BASELINE)
            is_first = False
        for head in heads:
            yield cv.compared(head, views[rows], backbone=name)
        if fine_tune is not None:
            yield cv.compared_tuned(classifier, samples.take(rows), backbone=name)


def _check_params_of_comparison(
    classifiers: Sequence[TransferClassifier], heads: Sequence[Any]
) -> None:
    """Raise ParameterError for all faults of extractors, heads and fine-tuning."""
    faults = ParameterFaults("compare")
    for classifier in classifiers:
        part = classifier if classifier.fine_tune is not None else classifier.extractor
        faults.check_part(part.check_params)
    for head in heads:
        faults.check_part(partial(make_head, head, CLASSIFIER_HEADS))
    faults.raise_any()


def _loaded_embedder(classifier: TransferClassifier, samples: Samples) -> FeatureExtractor:
    """Fit the extractor of a classifier, and check that it has the layers to be fine-tuned."""
    embedder = clone(classifier.extractor).fit(samples)
    if classifier.fine_tune is not None:
        from featx.finetune.plan import TrainingPlan  # which loads Keras

        TrainingPlan(classifier.fine_tune, embedder)
    return embedder


def _embedded(
    embedder: FeatureExtractor, samples: Samples, name: str
) -> tuple[np.ndarray, EmbeddingPass]:
    """Return the embeddings of all views of samples, and their cost."""
    start_s = time.perf_counter()
    views = training_views(embedder, samples)
    seconds, report = time.perf_counter() - start_s, embedder.report_
    return views, EmbeddingPass(name, report.n_forward, report.n_hits, seconds)


class _Names:
    """Names of extractors: the label, what else was asked for, and what tells equal ones apart."""

    def __init__(self, extractors: Sequence[FeatureExtractor]) -> None:
        self._extractors = extractors

    def of(self, extractor: FeatureExtractor) -> str:
        """Return the name of one of the extractors."""
        details = _details_of_extractor(extractor)
        alike = [
            each
            for each in self._extractors
            if each.label == extractor.label and _details_of_extractor(each) == details
        ]
        for param in _TELLING_PARAMS:
            value = getattr(extractor, param)
            if any(getattr(each, param) != value for each in alike):
                details.append(f"{param}={value}")
        return f"{extractor.label} ({one_line(', '.join(details))})" if details else extractor.label


def _details_of_extractor(extractor: FeatureExtractor) -> list[str]:
    details = [f"{name}={value}" for name, value in (extractor.backbone_params or {}).items()]
    if extractor.input_size is not None:
        details.append(f"input_size={extractor.input_size}")
    if extractor.pooling != "auto":
        details.append(extractor.pooling or "no pooling")
    return details


def _warn_of_duplicates_in(
    samples: Samples,
    embedder: FeatureExtractor,
    rows: np.ndarray,
    embeddings: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
) -> None:
    """Warn of near-duplicates in different folds, among the rows that could be read."""
    names = [f"[{row}] {one_line(samples.name(row))}" for row in rows.tolist()]
    readable = samples.read_by(embedder.reader)
    read_hashes = partial(_hashes_of_rows, readable, rows) if _takes_images(embedder) else None
    warn_of_duplicates(embeddings, folds, names.__getitem__, read_hashes)


def _takes_images(embedder: FeatureExtractor) -> bool:
    return InputForm.of_space(embedder.space_.description).kind is IMAGE


def _hashes_of_rows(samples: Samples, rows: np.ndarray, some: np.ndarray) -> ImageHashes:
    return hash_images(samples, rows[some])[0]


class HeadComparison(NamedTuple):
    """Accuracy of a head over folds.

    Attributes
    ----------
    head : str
        Name that was passed, or the class of an estimator.
    mean, spread : float
        Mean accuracy over the folds, and its standard deviation.
    seconds : float
        Wall time of all folds.
    scores : list of float
        Accuracy of each fold.
    p_value : float
        Probability that the difference from the best head is at least as large by chance; 1 for the
        best itself. See :func:`p_values`.
    """

    head: str
    mean: float
    spread: float
    seconds: float
    scores: list[float]
    p_value: float


def compare_heads(
    X: Any,
    y: Any,
    *,
    heads: Sequence[Any],
    n_folds: int = 5,
    groups: Any = None,
    random_state: int = 0,
) -> list[HeadComparison]:
    """Cross-validate heads on the same folds of embeddings.

    A warning names near-duplicates in different folds, since a head that was trained on one of them
    predicts the other too easily: see :func:`near_duplicates`.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings or other features.
    y : array-like of shape (n_samples,)
        Class of each sample.
    heads : sequence of str or estimator
        Classifiers.
    n_folds : int, default=5
        Number of folds, stratified and shuffled.
    groups : array-like of shape (n_samples,), default=None
        Groups whose samples stay together in training or test.
    random_state : int, default=0
        Seed of the folds, and of heads that take one.

    Returns
    -------
    list of HeadComparison
        Results in the order of the heads, each with ``head``, ``mean`` and ``spread`` of the
        accuracy, ``seconds``, ``scores`` of the folds, and ``p_value``, the probability that the
        difference from the best head is at least as large by chance.

    Raises
    ------
    ParameterError
        Heads are faulty; the message lists all faults.
    InputError
        Labels or groups are faulty, or a class has too few samples or there are too few groups.
    ValueError
        Lengths differ, or values are missing or infinite.

    See Also
    --------
    near_duplicates : Groups that keep copies in one fold.
    report : Evaluation of estimators from images, with such a comparison.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import compare_heads, near_duplicates
    >>> X, y = load_digits(return_X_y=True)
    >>> groups = near_duplicates(X).groups
    >>> rows = compare_heads(X, y, heads=["ridge", "knn", "nearest_mean"], groups=groups)
    >>> [(row.head, row.p_value < 0.05) for row in rows]
    [('ridge', True), ('knn', False), ('nearest_mean', True)]
    """
    faults = ParameterFaults("compare_heads")
    if not heads:
        faults.add("heads", heads, "at least one.")
    for head in heads:
        faults.check_part(partial(make_head, head, CLASSIFIER_HEADS))
    faults.raise_any()
    X, y, groups = (numpy_if_array_api(each) for each in (X, y, groups))
    check_all_were_read(X)
    X = check_array(X, dtype=[np.float64, np.float32])
    y, groups = _checked_labels_and_groups(len(X), y, groups)
    _check_heads(heads, y, groups, n_views=1)
    rows = np.arange(len(y))
    cv = _CrossValidation.split(y, groups, rows=rows, n_folds=n_folds, random_state=random_state)
    warn_of_duplicates(X, cv.folds, "row {}".format)
    scores, seconds = [], []
    for head in heads:
        start_s = time.perf_counter()
        scores.append(cv.scores(head, X[:, np.newaxis]))
        seconds.append(time.perf_counter() - start_s)
    return [
        HeadComparison(
            _name_of_head(head), float(np.mean(own)), float(np.std(own)), took_s, own, p_value
        )
        for head, own, took_s, p_value in zip(heads, scores, seconds, p_values(scores), strict=True)
    ]


def p_values(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return the two-sided p-value of each candidate against the best one; 1 for the best.

    It is the t test of Nadeau and Bengio 2003, "Inference for the Generalization Error": folds
    share training samples, so that the plain paired test finds differences too easily. If the gap
    is the same in all folds, the sign test is used instead. There is no correction for the number
    of candidates, nor for the selection of the best by the same scores: among many equally good
    candidates, some will be below 0.05.

    Examples
    --------
    >>> [round(p, 3) for p in p_values([[0.9, 0.92, 0.91], [0.8, 0.85, 0.81], [0.9, 0.91, 0.91]])]
    [1.0, 0.03, 0.592]
    """
    table = np.asarray(scores, np.float64)
    n_folds = table.shape[1]
    gaps = table[table.mean(axis=1).argmax()] - table
    means, variances = gaps.mean(axis=1), gaps.var(axis=1, ddof=1)
    # A fold tests 1 sample for each n_folds - 1 that it trains on.
    errors = np.sqrt((1 / n_folds + 1 / (n_folds - 1)) * variances)
    differs = errors > _ROUNDING
    statistics = np.divide(means, errors, out=np.zeros_like(means), where=differs)
    by_t = 2 * stats.t.sf(statistics, n_folds - 1)
    by_sign = np.where(means > _ROUNDING, 2.0 ** (1 - n_folds), 1.0)
    return np.where(differs, by_t, by_sign).tolist()


class _CrossValidation(NamedTuple):
    """Labels and groups of samples, and the folds in which heads are scored."""

    y: np.ndarray
    groups: np.ndarray | None
    folds: list[tuple[np.ndarray, np.ndarray]]
    random_state: int

    @classmethod
    def split(
        cls,
        y: np.ndarray,
        groups: np.ndarray | None,
        *,
        rows: np.ndarray,
        n_folds: int,
        random_state: int,
    ) -> Self:
        """Split some rows into stratified, shuffled folds."""
        y, groups = y[rows], None if groups is None else groups[rows]
        _check_comparison_folds(y, n_folds=n_folds, groups=groups)
        splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
        folds = splitter(n_folds, shuffle=True, random_state=random_state)
        return cls(y, groups, list(folds.split(np.zeros(len(y)), y, groups)), random_state)

    def compared(self, head: Any, views: np.ndarray, *, backbone: str) -> Comparison:
        """Return the accuracy of a head on the embeddings of a backbone."""
        return _timed_comparison(backbone, _name_of_head(head), lambda: self.scores(head, views))

    def compared_tuned(
        self, classifier: TransferClassifier, X: Any, *, backbone: str
    ) -> Comparison | BackboneFailure:
        """Return the accuracy of a classifier that fine-tunes, on samples of these labels."""
        name = f"{_name_of_head(classifier.head)} + fine-tuned {classifier.fine_tune.unfreeze}"
        samples = as_samples(X)
        try:
            return _timed_comparison(
                backbone, name, lambda: self._tuned_scores(classifier, samples)
            )
        except _SURVIVED as exc:
            return BackboneFailure(f"{backbone}, fine-tuned", exc)

    def _tuned_scores(self, classifier: TransferClassifier, samples: Samples) -> list[float]:
        scores = []
        for train, test in self.folds:
            groups = None if self.groups is None else self.groups[train]
            tuned = clone(classifier).fit(samples.take(train), self.y[train], groups=groups)
            predicted = tuned.predict(samples.take(test))
            scores.append(float(np.mean(predicted == self.y[test])))
        return scores

    def scores(self, head: Any, views: np.ndarray) -> list[float]:
        """Return the accuracy of each fold; heads train on all augmented views (n, n_views, d)."""
        scores = []
        for train, test in self.folds:
            estimator = head_for_labels(make_head(head, CLASSIFIER_HEADS), self.y)
            seed_head(estimator, self.random_state)
            groups = None if self.groups is None else self.groups[train]
            fit_on_views(estimator, views[train], self.y[train], sample_weight=None, groups=groups)
            means = as_head_input(views[test].mean(axis=1))
            with blas_threads_for(means.nbytes):
                scores.append(float(np.mean(predict(estimator, means) == self.y[test])))
        return scores


def _timed_comparison(backbone: str, head: str, score: Callable[[], list[float]]) -> Comparison:
    start_s = time.perf_counter()
    scores = score()
    seconds = time.perf_counter() - start_s
    return Comparison(
        backbone, head, float(np.mean(scores)), float(np.std(scores)), seconds, scores
    )


def _check_comparison_folds(y: Any, *, n_folds: int, groups: Any = None) -> None:
    """Raise an InputError if classes, all of them named, or groups are too few for the folds."""
    if n_folds < 2:
        raise InputError(f"n_folds={n_folds}: expected at least 2")
    if np.ndim(y) > 1:
        raise InputError("y has several labels for each sample: expected one class")
    if type_of_target(y) == "continuous":
        raise InputError("y holds values, not classes: compare_heads compares classifiers")
    if len(set(y)) < 2:
        raise InputError(f"y has one class, {str(y[0])!r}: expected two or more")
    small = [f"{str(name)!r} ({n})" for name, n in Counter(list(y)).items() if n < n_folds]
    if small:
        raise InputError(
            f"{n_folds} folds need {n_folds} samples of each class, but there are fewer of "
            f"{', '.join(small[:10])}: pass fewer folds, or add samples"
        )
    n_groups = n_folds if groups is None else len(set(groups))
    if n_groups < n_folds:
        raise InputError(f"{n_folds} folds need as many groups, but there are {n_groups}")


def _checked_labels_and_groups(
    n_samples: int, y: Any, groups: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the labels and groups of samples as arrays."""
    faults = InputFaults()
    labels = faults.check(checked_target, y, n_samples, convert=as_labels, owner="compare")
    if groups is not None:
        groups = faults.check(as_groups, groups, n_samples)
    faults.raise_any()
    return labels, groups


def _check_heads(heads: Sequence[Any], y: Any, groups: Any, *, n_views: int) -> None:
    """Check that heads that cross-validate keep groups and augmented views together."""
    for head in heads:
        made = make_head(head, CLASSIFIER_HEADS)
        check_keeps_samples_together(made, y, groups, n_views=n_views)


def _name_of_head(head: Any) -> str:
    return head if isinstance(head, str) else type(head).__name__
