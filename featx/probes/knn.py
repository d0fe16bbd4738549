"""KNNProbe: weighted nearest neighbors, by the protocol of self-supervised learning."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.preprocessing import normalize

from featx._validation import ParameterFaults
from featx.probes._arrays import (
    inner_products,
    largest_of_each_row,
    take_rows,
    to_numpy,
    to_same_device,
)
from featx.probes._base import CosineProbe
from featx.probes._classes_and_folds import last_best, split_folds

_SIMILARITIES_AT_ONCE = 20_000_000  # 80 MB in float32


class KNNProbe(CosineProbe):
    """Nearest neighbors by cosine, whose number is selected and whose votes are weighted.

    A neighbor of similarity ``s`` has a vote of ``exp(s / temperature)`` (Wu et al. 2018, arXiv
    1805.01978). The numbers of neighbors that are tried are those of Caron et al. 2021 (arXiv
    2104.14294). Nothing is trained, so the score measures the embeddings alone. One list of
    neighbors for each held-out sample scores all numbers of neighbors.

    After ``sklearn.set_config(array_api_dispatch=True)``, rows may be arrays of another library,
    such as torch tensors on a GPU. They are compared on their device; predictions are on it too,
    unless classes are strings.

    Parameters
    ----------
    n_neighbors : int or list of int, default=(10, 20, 100, 200)
        Numbers of neighbors to try; if there are fewer samples, all of them vote.
    temperature : float, default=0.07
        Temperature of the votes, above 0; a lower one gives the nearest more weight.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Cross-validation by which the number is selected; None is five stratified folds.

    Attributes
    ----------
    n_neighbors_ : int
        Number with the best mean accuracy; the largest of equal ones.
    best_score_ : float
        Mean accuracy of `n_neighbors_` over the folds.
    path_ : dict
        ``"n_neighbors"`` (n_candidates,), increasing, and ``"scores"`` (n_candidates, n_folds).
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Number of features of the embeddings.

    See Also
    --------
    LinearProbe : Logistic regression whose strength is selected.
    NearestMeanProbe : Classification by the nearest class mean.
    find_similar : Samples that are most similar to a query.

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
        """Store the samples, and select the number of neighbors.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings, stored as unit vectors in their own precision.
        y : array-like of shape (n_samples,)
            Class labels.
        groups : array-like of shape (n_samples,), default=None
            Groups for a splitter that keeps them together.

        Returns
        -------
        self
            The fitted probe itself.

        Raises
        ------
        ParameterError
            Parameters have faulty values; the message lists all of them.
        ValueError
            Lengths differ, values are missing or infinite, or there is only one class.
        """
        candidates = self._check_params()
        X, y, class_indices = self._fit_classes(X, y)
        # scikit-learn requires all fitted arrays on one device, although NumPy counts the votes.
        # Saved files hold these attributes by name.
        self._rows, self._class_numbers = normalize(X), to_same_device(class_indices, X)
        folds = split_folds(self.cv, X, y, groups, stratified=True)
        scores = np.empty((len(candidates), len(folds)))
        for fold, (train, test) in enumerate(folds):
            hits = np.zeros(len(candidates))
            for part, votes in self._votes(take_rows(self._rows, test), train, candidates):
                hits += (votes.argmax(2) == class_indices[test[part]]).sum(1)
            scores[:, fold] = hits / len(test)
        means = scores.mean(axis=1)
        best = last_best(means)
        self.n_neighbors_, self.best_score_ = int(candidates[best]), float(means[best])
        self.path_ = {"n_neighbors": candidates, "scores": scores}
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the fraction of the votes for each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        array of shape (n_samples, n_classes), float64
            Fractions, with columns in the order of `classes_`; those of a sample sum to 1.
        """
        return to_same_device(self._compute_scores(X, "predict_proba"), X)

    def _compute_scores(self, X: Any, method: str) -> np.ndarray:
        rows = self._unit_rows(X, "_rows", method)
        votes = self._votes(rows, None, np.array([self.n_neighbors_]))
        sums = np.concatenate([each[0] for _, each in votes])
        return sums / sums.sum(axis=1, keepdims=True)

    def _votes(
        self, rows: Any, voters: np.ndarray | None, counts: np.ndarray
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of the rows, each with its votes (n_counts, n_rows, n_classes).

        `voters` are row indices of the stored samples, None for all; `counts` increases.
        """
        stored, class_indices = self._rows, to_numpy(self._class_numbers)
        if voters is not None:
            stored, class_indices = take_rows(stored, voters), class_indices[voters]
        counts = np.minimum(counts, len(class_indices))
        n_at_once = max(1, _SIMILARITIES_AT_ONCE // len(class_indices))
        n_rows = rows.shape[0]
        for start in range(0, n_rows, n_at_once):
            part = slice(start, min(start + n_at_once, n_rows))
            nearest, near = largest_of_each_row(
                inner_products(rows[part, :], stored), int(counts[-1])
            )
            # Scaled so that the nearest has a vote of 1: fractions stay the same, without overflow.
            weights = np.exp((near - near[:, :1]).astype(np.float64) / self.temperature)
            yield part, self._sums(class_indices[nearest], weights, counts)

    def _sums(self, voted: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the sums of votes (n_rows, k) for each class, over the first of each count."""
        n_rows, n_classes = len(voted), self.classes_.shape[0]
        places = voted + n_classes * np.arange(n_rows)[:, np.newaxis]
        sums = [
            np.bincount(
                places[:, :count].ravel(), weights[:, :count].ravel(), minlength=n_rows * n_classes
            )
            for count in counts
        ]
        return np.stack(sums).reshape(len(counts), n_rows, n_classes)

    def _check_params(self) -> np.ndarray:
        """Return the numbers of neighbors in increasing order, or raise with all faults."""
        faults = ParameterFaults(type(self).__name__)
        given = self.n_neighbors
        candidates: Any = [given] if isinstance(given, Integral) else given
        is_list = isinstance(candidates, (list, tuple, np.ndarray)) and len(candidates)
        if not is_list or not all(isinstance(n, Integral) and int(n) > 0 for n in candidates):
            faults.add("n_neighbors", given, "a number above 0, or a list of them.")
        faults.check_number("temperature", self.temperature, lambda t: 0 < t < np.inf, "over 0")
        faults.raise_any()
        return np.unique(np.asarray(candidates, np.int64))
