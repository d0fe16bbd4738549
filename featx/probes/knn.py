"""KNNProbe: weighted nearest neighbours, by the protocol of self-supervised learning."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import normalize
from sklearn.utils import check_consistent_length

from featx.exceptions import ParameterError
from featx.probes._arrays import (
    ArrayApiMixin,
    check_same_place,
    in_memory,
    inner_products,
    namespace,
    numpy_if_foreign,
    rows_for,
    take,
    to_numpy,
    to_same_device,
    validated,
)
from featx.probes._validation import encode_classes, last_of_best, split_folds

_SIMILARITIES_AT_ONCE = 20_000_000  # 80 MB in float32


class KNNProbe(ArrayApiMixin, ClassifierMixin, BaseEstimator):
    """Nearest neighbours by cosine that vote by how near they are; how many vote is chosen.

    A neighbour of similarity ``s`` has a vote of ``exp(s / temperature)`` (Wu et al. 2018, arXiv
    1805.01978). The numbers of neighbours tried are those of Caron et al. 2021 (arXiv 2104.14294).
    Nothing is trained, so that the score tells about the embeddings alone. All numbers of
    neighbours are scored from one list of neighbours for each sample that a fold holds out.

    With ``array_api_dispatch=True`` rows may be arrays of another library, such as torch tensors on
    a GPU: they are compared there, and answers are there, too, but for classes that are words.

    Parameters
    ----------
    n_neighbors : int or list of int, default=(10, 20, 100, 200)
        What is tried; where fewer samples are at hand, all of them vote.
    temperature : float, default=0.07
        Over 0; the lower, the more the nearest decide.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How samples are held out to choose by; None is five folds, of equal shares of each class.

    Attributes
    ----------
    n_neighbors_ : int
        The number with the best mean accuracy; of equals the largest.
    best_score_ : float
        Mean accuracy over the folds with it.
    path_ : dict
        ``"n_neighbors"`` (n_candidates,), increasing, and ``"scores"`` (n_candidates, n_folds).
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import KNNProbe
    >>> X, y = load_digits(return_X_y=True)
    >>> probe = KNNProbe().fit(X, y)
    >>> probe.n_neighbors_, probe.best_score_ > 0.95
    (10, True)
    """

    def __init__(
        self, n_neighbors: Any = (10, 20, 100, 200), *, temperature: float = 0.07, cv: Any = None
    ) -> None:
        self.n_neighbors = n_neighbors
        self.temperature = temperature
        self.cv = cv

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Keep the samples, and choose how many neighbours vote.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Kept with rows of length 1, in float32 or float64 as given.
        y : array-like of shape (n_samples,)
        groups : array-like of shape (n_samples,), default=None
            For a splitter that holds groups out.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            `n_neighbors` or `temperature` is no number, or no list of numbers, over 0.
        ValueError
            Lengths differ, numbers are missing, there is one class only, and so on.
        """
        candidates = self._checked_params()
        groups = numpy_if_foreign(groups)
        X, y = validated(self, in_memory(X), y)
        check_consistent_length(y, groups)
        self.classes_, numbers = encode_classes(y)
        # scikit-learn wants all that is fitted in one place, though the votes are numpy's.
        self._rows, self._class_numbers = normalize(X), to_same_device(numbers, X)
        folds = split_folds(self.cv, X, y, groups, classes=True)
        scores = np.empty((len(candidates), len(folds)))
        for column, (train, test) in enumerate(folds):
            hits = np.zeros(len(candidates))
            for part, votes in self._votes(take(self._rows, test), train, candidates):
                hits += (votes.argmax(2) == numbers[test[part]]).sum(1)
            scores[:, column] = hits / len(test)
        means = scores.mean(axis=1)
        best = last_of_best(means)
        self.n_neighbors_, self.best_score_ = int(candidates[best]), float(means[best])
        self.path_ = {"n_neighbors": candidates, "scores": scores}
        self.classes_ = to_same_device(self.classes_, X)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the share of the votes that each class has.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes), float64
        """
        return to_same_device(self._shares(X, "predict_proba"), X)

    def _shares(self, X: Any, method: str) -> np.ndarray:
        rows = rows_for(self, X)
        check_same_place(self, rows, self._rows, method)
        votes = self._votes(normalize(rows), None, np.array([self.n_neighbors_]))
        shares = np.concatenate([each[0] for _, each in votes])
        return shares / shares.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class with most votes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,)
        """
        shares = self._shares(X, "predict")
        return take(self.classes_, shares.argmax(axis=1))

    def _votes(
        self, rows: Any, voters: np.ndarray | None, counts: np.ndarray
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield a part of the rows, and what the nearest voters give the classes; None is everyone.

        The votes are of shape (n_counts, n_rows, n_classes); `counts` increases.
        """
        theirs, class_numbers = self._rows, to_numpy(self._class_numbers)
        if voters is not None:
            theirs, class_numbers = take(theirs, voters), class_numbers[voters]
        counts = np.minimum(counts, len(class_numbers))
        n_at_once = max(1, _SIMILARITIES_AT_ONCE // len(class_numbers))
        n_rows = rows.shape[0]
        for start in range(0, n_rows, n_at_once):
            part = slice(start, min(start + n_at_once, n_rows))
            nearest, near = _largest(inner_products(rows[part, :], theirs), int(counts[-1]))
            # The nearest has a vote of 1: shares stay the same, and nothing overflows.
            weights = np.exp((near - near[:, :1]).astype(np.float64) / self.temperature)
            yield part, self._sums(class_numbers[nearest], weights, counts)

    def _sums(self, voted: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Add up the votes (n_rows, k) for classes, of the first few as of all."""
        n_rows, n_classes = len(voted), self.classes_.shape[0]
        places = voted + n_classes * np.arange(n_rows)[:, np.newaxis]
        sums = [
            np.bincount(
                places[:, :count].ravel(), weights[:, :count].ravel(), minlength=n_rows * n_classes
            )
            for count in counts
        ]
        return np.stack(sums).reshape(len(counts), n_rows, n_classes)

    def _checked_params(self) -> np.ndarray:
        """Return the numbers of neighbours, increasing, or raise with all faults."""
        faults = []
        given = self.n_neighbors
        candidates: Any = [given] if isinstance(given, Integral) else given
        is_list = isinstance(candidates, (list, tuple, np.ndarray)) and len(candidates)
        if not is_list or not all(
            isinstance(each, Integral) and int(each) > 0 for each in candidates
        ):
            faults.append(f"n_neighbors={given!r}: expected a number over 0, or a list of them")
        if not isinstance(self.temperature, Real) or not 0 < self.temperature < np.inf:
            faults.append(f"temperature={self.temperature!r}: expected a number over 0")
        if faults:
            raise ParameterError("; ".join(faults))
        return np.unique(np.asarray(candidates, np.int64))


def _largest(values: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the largest of each row are, and these, (n_rows, count), from the largest on."""
    if not isinstance(values, np.ndarray):
        xp = namespace(values)  # which has no partition: all are sorted
        places = xp.argsort(values, axis=1, descending=True)[:, :count]
        return to_numpy(places), to_numpy(xp.take_along_axis(values, places, axis=1))
    places = np.argpartition(-values, count - 1)[:, :count]
    largest = np.take_along_axis(values, places, 1)
    order = np.argsort(-largest, axis=1, kind="stable")
    return np.take_along_axis(places, order, 1), np.take_along_axis(largest, order, 1)
