"""Labels that are probably wrong, found by confident learning and by the nearest neighbors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest
from sklearn.utils import Bunch
from sklearn.utils.multiclass import type_of_target

from featx._targets import as_groups, as_labels
from featx._threads import blas_threads_for
from featx._training_data import checked_target
from featx._validation import InputFaults
from featx.evaluation.folds import Folds
from featx.evaluation.metrics import best_temperature, probabilities_at_temperature
from featx.evaluation.neighbors import COPY, as_embeddings, nearest_neighbors
from featx.exceptions import InputError
from featx.probes._arrays import (
    cast_floats,
    namespace,
    numpy_if_array_api,
    take_rows,
    to_numpy,
    unchecked_blocks,
)
from featx.probes._classes_and_folds import encode_classes
from featx.probes.linear import LinearProbe

_MAX_ROWS_DRAWN, _MAX_ELEMENTS_DRAWN = 50_000, 2**26  # on which the probe is trained
_MAX_VOTERS = 20_000  # among which neighbors are sought
_MIN_OF_CLASS = 20  # rows of a rare class that are drawn
_N_NEIGHBORS = 10
_TEMPERATURE = 0.07  # of the votes, as in KNNProbe
_NEIGHBOR_WEIGHT = 0.3  # 0, 0.3 and 0.5 were compared on five sets: benchmarks/NOTES.md
_SUREST = 1 / 4  # fraction of the rows in which wrong labels are counted
_CONFIDENCE = 0.95
_ROWS_AT_ONCE = 8192
_N_SHOWN = 10
_OWNER = "find_label_issues"
_SINGLE = np.dtype(np.float32)


def find_label_issues(embeddings: Any, y: Any, *, groups: Any = None, cv: Any = 5) -> Bunch:
    """Find samples whose label is probably wrong.

    A :class:`LinearProbe` predicts the probabilities of the classes for samples that it was not
    trained on, and a temperature calibrates them. The score of a label is its probability: 0.7
    times that of the probe, and 0.3 times the fraction of the votes of the ten nearest neighbors,
    by cosine and weighted as in :class:`KNNProbe`, without copies of the sample. Labels are
    suspect if another class is more probable, and ranked by their score. This is the ranking by
    self-confidence of confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning:
    Estimating Uncertainty in Dataset Labels", JAIR 70).

    Samples that are hard to classify are suspect too, whether their label is wrong or not: look at
    them before you change labels. `n_expected` shows about how far down the list to look.

    Parameters
    ----------
    embeddings : array-like of shape (n_samples, n_features)
        Embeddings; also an array on disk, such as :meth:`EmbeddingCache.open` returns, which is
        read twice, and, with ``array_api_dispatch=True``, an array of another library. Of more than
        50,000 samples (fewer with over 1,342 features), the probe is trained on as many, evenly
        drawn from each class, and neighbors are sought among 20,000 of these. Rows of NaN, samples
        that could not be read, are left out.
    y : array-like of shape (n_samples,)
        Label of each sample.
    groups : array-like of shape (n_samples,), default=None
        Groups of samples that belong together, such as photos of one object. The label of a sample
        is compared with predictions and neighbors from other groups only.
    cv : int, splitter or iterable of (train, test), default=5
        Folds in which the probe predicts. A number is that of stratified, shuffled folds, which
        keep groups together. Others have to test each sample once.

    Returns
    -------
    Bunch
        ``indices`` (n_suspects,), int64: rows of the suspect labels, the most suspect first;
        ``scores`` (n_samples,), float32: from 0, a label that is wrong, to 1, NaN for samples that
        could not be read; ``suggested`` (n_samples,): the most probable class, which is the given
        label of all that are not suspect; ``n_expected``, float: number of wrong labels to expect;
        ``n_expected_interval``, tuple of two floats: its 95 % interval; ``proba`` (n_samples,
        n_classes), float32: out-of-fold probabilities of the probe; ``classes`` (n_classes,).

        The number to expect is that of wrong labels in the quarter of the samples of which the
        probe is surest, times four, with Wilson's interval (1927). A label in this quarter counts
        as wrong if the probe predicts another class. The number is too low if labels of samples
        that are hard to classify are wrong more often, and too high if the probe is often wrong
        even where it is sure. The confident joint of confident learning counts many hard samples
        as wrong: it is further off in all sets that were measured (benchmarks/README.md).

    Raises
    ------
    ParameterError
        `cv` is not a number from 2 on, a splitter or folds, or does not test each sample once.
    InputError
        Labels or groups are faulty: numbers to predict, several labels per sample, other lengths;
        a class has one sample or group only, or there is one class only; rows hold NaN beside
        numbers.

    See Also
    --------
    near_duplicates : Pairs of samples that are nearly the same, whose labels may differ.
    find_similar : Samples that are similar to a suspect.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import find_label_issues
    >>> X, y = load_digits(return_X_y=True)
    >>> true, turned = y.copy(), np.arange(0, 900, 30)
    >>> y[turned] = (y[turned] + 1) % 10
    >>> found = find_label_issues(X, y)
    >>> int(np.isin(turned, found.indices[:60]).sum()) >= 28
    True
    >>> bool((found.suggested[turned] == true[turned]).mean() > 0.9)
    True
    """
    rows = as_embeddings(embeddings, "embeddings")
    labels, groups = _checked_labels(rows.shape[0], y, groups)
    classes, class_indices = encode_classes(labels)
    folds = Folds.of(cv, class_indices, groups)
    sample = _Sample.read(rows, class_indices)
    _check_classes_in_folds(classes, class_indices, folds, sample.is_read)
    found = _predict_out_of_fold(
        rows, sample, folds, n_classes=len(classes), are_grouped=groups is not None
    )
    found.calibrate(class_indices, sample.rows)
    scores = found.of_labels(class_indices)
    suggested = found.most_probable(class_indices)
    suspects = np.flatnonzero(suggested != class_indices)
    n_expected, interval = _expected_issues(found.proba, class_indices)
    return Bunch(
        indices=suspects[np.argsort(scores[suspects], kind="stable")],
        scores=scores,
        suggested=classes[suggested],
        n_expected=n_expected,
        n_expected_interval=interval,
        proba=found.proba,
        classes=classes,
    )


class _Sample(NamedTuple):
    """Drawn rows, (m,) increasing, with embeddings (m, d); and a mask (n,) of all that are read."""

    rows: np.ndarray
    X: Any
    class_indices: np.ndarray
    is_read: np.ndarray

    @classmethod
    def read(cls, X: Any, class_indices: np.ndarray) -> _Sample:
        """Read all rows once, and keep some of them; rows that were not read are not drawn."""
        drawn = _drawn_rows(class_indices, min(_MAX_ROWS_DRAWN, _MAX_ELEMENTS_DRAWN // X.shape[1]))
        is_read = np.empty(X.shape[0], bool)
        parts = []
        for block, rows in unchecked_blocks(X):
            is_read[block] = _complete_rows(rows, block.start)
            local = drawn[slice(*np.searchsorted(drawn, [block.start, block.stop]))]
            kept = local[is_read[local]] - block.start
            parts.append(take_rows(cast_floats(rows, _SINGLE), kept))
        if not is_read.any():
            raise InputError(f"none of the {len(is_read)} samples could be read")
        kept = drawn[is_read[drawn]]
        together = namespace(parts[0]).concat(parts)
        return cls(kept, together, class_indices[kept], is_read)

    def part_of(self, folds: Folds, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions in this sample on which a fold trains and tests."""
        is_train = np.zeros(len(self.is_read), bool)
        is_train[folds.trains[number]] = True
        tests = folds.number[self.rows] == number
        return np.flatnonzero(is_train[self.rows]), np.flatnonzero(tests)


@dataclass
class _OutOfFold:
    """Probabilities (n, n_classes) of a probe, and the votes of neighbors (n, k) for classes."""

    proba: np.ndarray
    voted: np.ndarray  # class indices
    votes: np.ndarray  # fractions, 0 in rows without neighbors

    @classmethod
    def empty(cls, n_rows: int, n_classes: int, k: int) -> _OutOfFold:
        proba = np.full((n_rows, n_classes), np.nan, np.float32)
        return cls(proba, np.zeros((n_rows, k), np.int32), np.zeros((n_rows, k), np.float32))

    def calibrate(self, class_indices: np.ndarray, rows: np.ndarray) -> None:
        """Divide the logits of the probe by the temperature that is best for some rows."""
        temperature = best_temperature(class_indices[rows], self.proba[rows])
        if temperature is None:
            return
        for part in _slices(len(self.proba)):
            self.proba[part] = probabilities_at_temperature(self.proba[part], temperature)

    def of_labels(self, class_indices: np.ndarray) -> np.ndarray:
        """Return the probability of each label, (n,), float32."""
        labels = class_indices[:, np.newaxis]
        agreeing = np.where(self.voted == labels, self.votes, 0).sum(axis=1)
        weights = self._vote_weights(slice(None))
        of_probe = np.take_along_axis(self.proba, labels, axis=1)[:, 0]
        return np.minimum((1 - weights) * of_probe + weights * agreeing, np.float32(1))

    def of_classes(self, part: slice) -> np.ndarray:
        """Return the probabilities of all classes for some rows."""
        weights = self._vote_weights(part)
        combined = (1 - weights)[:, np.newaxis] * self.proba[part]
        rows = np.arange(len(combined))
        for voted, votes in zip(self.voted[part].T, self.votes[part].T, strict=True):
            combined[rows, voted] += weights * votes
        return combined

    def _vote_weights(self, part: slice) -> np.ndarray:
        has_neighbors = self.votes[part].any(axis=1)
        return np.where(has_neighbors, np.float32(_NEIGHBOR_WEIGHT), np.float32(0))

    def most_probable(self, class_indices: np.ndarray) -> np.ndarray:
        """Return the most probable class of each row, the given one of rows that were not read."""
        best = class_indices.copy()
        for part in _slices(len(best)):
            is_read = ~np.isnan(self.proba[part, 0])
            best[part][is_read] = self.of_classes(part)[is_read].argmax(axis=1)
        return best


class _FoldModel(NamedTuple):
    """What predicts the classes of one fold: a probe, and rows with class indices to vote."""

    probe: LinearProbe
    voters: Any
    voter_classes: np.ndarray

    def predict(self, rows: Any, found: _OutOfFold, positions: np.ndarray) -> None:
        """Write the predictions for some rows to their positions."""
        columns = to_numpy(self.probe.classes_)
        proba = np.zeros((len(positions), found.proba.shape[1]), np.float32)
        proba[:, columns] = to_numpy(self.probe.predict_proba(rows))
        found.proba[positions] = proba
        k = found.voted.shape[1]
        nearest, cosines = nearest_neighbors(rows, self.voters, k=k, below=COPY)
        found.voted[positions] = self.voter_classes[nearest]
        found.votes[positions] = _vote_fractions(cosines)


def _vote_fractions(cosines: np.ndarray) -> np.ndarray:
    """Return votes that add up to 1 for each row; all are 0 if all cosines are -inf."""
    largest = np.maximum(cosines[:, :1], -1)
    votes = np.exp((cosines - largest) / _TEMPERATURE)
    return votes / np.maximum(votes.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _predict_out_of_fold(
    X: Any, sample: _Sample, folds: Folds, *, n_classes: int, are_grouped: bool
) -> _OutOfFold:
    """Read all rows once, and predict each with the model of the fold that tests it."""
    models = list(_fold_models(sample, folds, are_grouped=are_grouped))
    k = min(_N_NEIGHBORS, *(len(model.voter_classes) for model in models))
    found = _OutOfFold.empty(X.shape[0], n_classes, k)
    for block, rows in unchecked_blocks(X):
        rows = cast_floats(rows, _SINGLE)
        for number, model in enumerate(models):
            is_tested = (folds.number[block] == number) & sample.is_read[block]
            local = np.flatnonzero(is_tested)
            if len(local):
                model.predict(take_rows(rows, local), found, block.start + local)
    return found


def _fold_models(sample: _Sample, folds: Folds, *, are_grouped: bool) -> Iterator[_FoldModel]:
    """Yield the model of each fold; all probes have the strength that is best over the folds.

    With groups, only the training rows of a fold vote, which are those of other groups.
    """
    parts = [sample.part_of(folds, number) for number in range(len(folds.trains))]
    voters = _drawn_rows(sample.class_indices, _MAX_VOTERS)
    of_all = take_rows(sample.X, voters), sample.class_indices[voters]
    with blas_threads_for(sample.X.shape[0] * sample.X.shape[1] * _SINGLE.itemsize):
        C = LinearProbe(cv=parts).fit(sample.X, sample.class_indices).C_
        for train, _ in parts:
            every = np.arange(len(train))
            probe = LinearProbe(Cs=[C], cv=[(every, every)])
            probe.fit(take_rows(sample.X, train), sample.class_indices[train])
            own = np.intersect1d(voters, train)
            voting = (
                (take_rows(sample.X, own), sample.class_indices[own]) if are_grouped else of_all
            )
            yield _FoldModel(probe, *voting)


def _drawn_rows(class_indices: np.ndarray, n_drawn: int) -> np.ndarray:
    """Return rows, increasing, that are evenly drawn from each class; 20 or more of each."""
    n_rows = len(class_indices)
    if n_rows <= n_drawn:
        return np.arange(n_rows)
    by_class = np.argsort(class_indices, kind="stable")
    counts = np.bincount(class_indices)
    rank = np.arange(n_rows) - np.repeat(np.cumsum(counts) - counts, counts)
    is_drawn = rank < _MIN_OF_CLASS
    is_drawn[np.linspace(0, n_rows - 1, n_drawn).astype(np.int64)] = True
    return np.sort(by_class[is_drawn])


def _complete_rows(rows: Any, start: int) -> np.ndarray:
    """Return a mask of the rows without NaN; raise an InputError for those that are NaN in part."""
    xp = namespace(rows)
    is_complete = to_numpy(xp.all(xp.isfinite(rows), axis=1))
    is_unread = to_numpy(xp.all(xp.isnan(rows), axis=1))
    faulty = np.flatnonzero(~is_complete & ~is_unread)
    if len(faulty):
        shown = ", ".join(str(start + row) for row in faulty[:_N_SHOWN].tolist())
        raise InputError(
            f"embeddings hold NaN or infinite values beside others in rows {shown}: expected "
            "finite numbers, or only NaN for samples that could not be read"
        )
    return is_complete


def _checked_labels(n_samples: int, y: Any, groups: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the labels and groups of samples as arrays; all faults make one InputError."""
    faults = InputFaults()
    y, groups = numpy_if_array_api(y), numpy_if_array_api(groups)
    labels = faults.check(checked_target, y, n_samples, convert=as_labels, owner=_OWNER)
    if labels is not None:
        faults.check(_check_one_class_each, labels)
    if groups is not None:
        groups = faults.check(as_groups, groups, n_samples)
    faults.raise_any()
    return labels, groups


def _check_one_class_each(labels: np.ndarray) -> None:
    """Raise an InputError if labels are not one class for each sample."""
    if labels.ndim > 1:
        raise InputError(
            f"y has shape {labels.shape}: expected one label for each sample. Call it once for "
            "each column"
        )
    if type_of_target(labels) == "continuous":
        raise InputError(
            "y holds values, not classes: expected labels. For values, look at the largest "
            "residuals of cross_val_predict(RidgeProbeRegressor(), embeddings, y)"
        )


def _check_classes_in_folds(
    classes: np.ndarray, class_indices: np.ndarray, folds: Folds, is_read: np.ndarray
) -> None:
    """Raise an InputError that names the classes which a fold tests but does not train on."""
    missing = np.zeros(len(classes), bool)
    for number, train in enumerate(folds.trains):
        tests = (folds.number == number) & is_read
        trained, tested = (
            np.bincount(class_indices[rows], minlength=len(classes)) > 0
            for rows in (train[is_read[train]], tests)
        )
        missing |= tested & ~trained
    if missing.any():
        counts = np.bincount(class_indices[is_read], minlength=len(classes))
        pairs = zip(classes[missing].tolist(), counts[missing].tolist(), strict=True)
        shown = ", ".join(f"{label!r} ({count})" for label, count in list(pairs)[:_N_SHOWN])
        raise InputError(
            f"all samples of {shown} are in the test part of one fold, so that the probe cannot "
            "know the class: expected 2 or more samples of each class, in 2 or more groups if "
            "there are groups"
        )


def _expected_issues(
    proba: np.ndarray, class_indices: np.ndarray
) -> tuple[float, tuple[float, float]]:
    """Return the number of wrong labels to expect, and its interval."""
    certainty = proba.max(axis=1)  # NaN, which is sorted last, for rows that were not read
    n_read = int(np.isfinite(certainty).sum())
    n_surest = int(np.ceil(_SUREST * n_read))
    surest = np.argsort(-certainty, kind="stable")[:n_surest]
    n_wrong = int((proba[surest].argmax(axis=1) != class_indices[surest]).sum())
    ends = binomtest(n_wrong, n_surest).proportion_ci(_CONFIDENCE, method="wilson")
    scale = n_read / n_surest
    return n_wrong * scale, (float(ends.low) * n_read, float(ends.high) * n_read)


def _slices(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        yield slice(start, start + _ROWS_AT_ONCE)
