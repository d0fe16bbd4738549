"""How a ridge probe chooses a strength: each one is scored in each fold, many in one product."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring

from featx.documented import DocumentedEstimator
from featx.exceptions import ParameterError
from featx.probes.arrays import (
    ArrayApiMixin,
    cast,
    check_same_place,
    inner_products,
    is_foreign,
    like,
    moved_beside,
    precision,
    take,
    to_numpy,
)
from featx.probes.folds import last_of_best, split_folds
from featx.probes.moments import rows_of
from featx.probes.ridge_path import Solutions, solve
from featx.probes.shifted_systems import product
from featx.probes.streaming import apply_in_blocks, check_own_score
from featx.probes.weights import check_weights_of_folds

# How many scores of how many samples are computed at once.
_SCORES_AT_ONCE = 4096
_ROWS_AT_ONCE = 2048


class RidgeChoice(ArrayApiMixin, DocumentedEstimator):
    """What both probes share: the path of strengths and the choice among them."""

    coef_: Any
    intercept_: Any

    def __init__(
        self,
        alphas: Any = None,
        *,
        fit_intercept: bool = True,
        cv: Any = None,
        scoring: Any = None,
    ) -> None:
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.scoring = scoring

    def _fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        Y: np.ndarray,
        weights: np.ndarray,
        scored_by: np.ndarray | None,
        groups: Any,
        alphas: np.ndarray,
    ) -> None:
        """Choose a strength by how well targets `Y` (n, t) tell `y`, and train on everything."""
        check_own_score(X, self.scoring)
        folds = split_folds(self.cv, X, y, groups, classes=is_classifier(self))
        check_weights_of_folds(folds, weights, scored_by)
        scores = np.empty((len(alphas), len(folds)))
        solved = solve(X, Y, weights, folds, fit_intercept=self.fit_intercept)
        for number, (_, test) in enumerate(folds):
            scores[:, number] = self._scores(next(solved), X, y, scored_by, test, alphas)
        means = scores.mean(axis=1)
        best = last_of_best(means)
        coefs, intercepts = next(solved).at(alphas[[best]])
        self.alpha_, self.best_score_ = float(alphas[best]), float(means[best])
        self.path_ = {"alphas": alphas, "scores": scores}
        self._take(coefs[:, 0], intercepts[0])
        self.coef_, self.intercept_ = moved_beside(self.coef_, X), moved_beside(self.intercept_, X)

    def _take(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Compute scores with coefficients (d, t) and intercepts (t,) from now on."""
        self.coef_ = np.ascontiguousarray(coef.T)
        self.intercept_ = intercept

    def _scores(
        self,
        solutions: Solutions,
        X: np.ndarray,
        y: np.ndarray,
        scored_by: np.ndarray | None,
        test: np.ndarray,
        alphas: np.ndarray,
    ) -> np.ndarray:
        """Score the samples that were held out by the solutions of each strength, (n_alphas,)."""
        y, weights = y[test], None if scored_by is None else scored_by[test]
        if self.scoring is None:
            predictions = self._predictions(solutions, X, test, alphas)
            return np.array([self._own_score(y, each, weights) for each in predictions])
        scorer = check_scoring(self, scoring=self.scoring)
        trained = copy.copy(self)
        if hasattr(trained, "feature_names_in_"):  # rows are arrays here
            del trained.feature_names_in_
        given = {} if weights is None else {"sample_weight": weights}
        scores = []
        for alpha in alphas:
            coefs, intercepts = solutions.at(alpha[np.newaxis])
            trained._take(coefs[:, 0], intercepts[0])
            scores.append(scorer(trained, to_numpy(take(X, test)), y, **given))
        return np.array(scores)

    def _predictions(
        self, solutions: Solutions, X: np.ndarray, test: np.ndarray, alphas: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yield what is predicted with each strength; many are computed in one product."""
        parts = np.split(test, range(_ROWS_AT_ONCE, len(test), _ROWS_AT_ONCE))
        n_at_once = max(1, _SCORES_AT_ONCE // solutions.n_targets)
        dtype = self._precision_of_scores(X)
        # Float32 has digits for what is around the mean only.
        center = solutions.x_mean.astype(dtype) if dtype == np.float32 else None
        for start in range(0, len(alphas), n_at_once):
            coefs, intercepts = solutions.at(alphas[start : start + n_at_once])
            side_by_side = np.ascontiguousarray(coefs.reshape(X.shape[1], -1))
            at_center = intercepts.ravel()
            if center is not None:
                at_center = at_center + product(center[np.newaxis].astype(np.float64), side_by_side)
            placed = like(side_by_side, X, dtype)
            predicted = []
            for rows in parts:
                scores = _products(X, rows, center, placed)
                scores += at_center.astype(dtype)
                decided = self._decide(scores.reshape(-1, solutions.n_targets))
                predicted.append(decided.reshape(len(rows), len(intercepts), *decided.shape[1:]))
            yield from np.moveaxis(np.concatenate(predicted), 1, 0)

    def _precision_of_scores(self, X: Any) -> np.dtype:
        """Return the dtype in which what is held out is scored."""
        return np.dtype(np.float64)

    @abstractmethod
    def _decide(self, scores: Any) -> Any:
        """Turn scores (n, t) into predictions."""

    @abstractmethod
    def _own_score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        """Score predictions by the score of the estimator."""

    def _checked_alphas(self) -> np.ndarray:
        if self.alphas is None:
            return np.logspace(-6, 5, 45)
        alphas = np.asarray(self.alphas)
        is_sound = alphas.ndim == 1 and len(alphas) and alphas.dtype.kind in "iuf"
        if not is_sound or not (np.isfinite(alphas) & (alphas > 0)).all():
            raise ParameterError(
                f"alphas={self.alphas!r}: expected a list of numbers over 0, or None for 45 from "
                "1e-6 to 1e5"
            )
        return np.sort(alphas.astype(np.float64))

    def _linear(self, X: Any, method: str) -> Any:
        """Return the scores of samples, (n_samples, n_targets), for a method of some name."""

        def scores_of(rows: Any) -> Any:
            check_same_place(self, rows, self.coef_, method)
            coef = self.coef_ if self.coef_.ndim == 2 else self.coef_[None, :]
            return inner_products(rows, coef) + self.intercept_

        return apply_in_blocks(self, X, scores_of)


def _products(X: Any, rows: np.ndarray, center: np.ndarray | None, columns: Any) -> np.ndarray:
    """Multiply some rows, less a center, with columns, where the rows are."""
    if is_foreign(X):
        part = cast(take(X, rows), precision(columns))
        return to_numpy((part if center is None else part - like(center, X)) @ columns)
    part = rows_of(X, rows)
    return product(part if center is None else part - center, columns)
