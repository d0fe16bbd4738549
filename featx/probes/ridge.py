"""RidgeProbe and RidgeProbeRegressor: ridge regression that tries all strengths in all folds."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.metrics import check_scoring, r2_score
from sklearn.model_selection import check_cv
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_array, check_consistent_length, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from featx.exceptions import InputError, ParameterError
from featx.probes.ridge_path import Solutions, solve

# How many scores of how many samples are computed at once.
_SCORES_AT_ONCE = 4096
_ROWS_AT_ONCE = 8192
# Means of the same scores in another order differ by this much.
_ROUNDING = 1e-12


class _RidgePath(BaseEstimator):
    """What both probes share: the path of strengths and the choice among them."""

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
    ) -> None:
        """Choose a strength by how well targets `Y` (n, t) tell `y`, and train on everything."""
        alphas = self._checked_alphas()
        cv = check_cv(self.cv, y, classifier=is_classifier(self))
        folds = [(np.asarray(a), np.asarray(b)) for a, b in cv.split(X, y, groups)]
        scores = np.empty((len(alphas), len(folds)))
        solved = solve(X, Y, weights, folds, fit_intercept=self.fit_intercept)
        for number, (_, test) in enumerate(folds):
            scores[:, number] = self._scores(next(solved), X, y, scored_by, test, alphas)
        means = scores.mean(axis=1)
        best = np.flatnonzero(means >= means.max() - _ROUNDING)[-1]
        coefs, intercepts = next(solved).at(alphas[[best]])
        self.alpha_, self.best_score_ = float(alphas[best]), float(means[best])
        self.path_ = {"alphas": alphas, "scores": scores}
        self._take(coefs[:, 0], intercepts[0])

    def _take(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Compute scores with coefficients (d, t) and intercepts (t,) from now on."""
        self.coef_: np.ndarray = np.ascontiguousarray(coef.T)
        self.intercept_: Any = intercept

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
            scores.append(scorer(trained, X[test], y, **given))
        return np.array(scores)

    def _predictions(
        self, solutions: Solutions, X: np.ndarray, test: np.ndarray, alphas: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yield what is predicted with each strength; many are computed in one product."""
        parts = np.split(test, range(_ROWS_AT_ONCE, len(test), _ROWS_AT_ONCE))
        n_targets = solutions.at(alphas[:1])[1].shape[1]
        n_at_once = max(1, _SCORES_AT_ONCE // n_targets)
        for start in range(0, len(alphas), n_at_once):
            coefs, intercepts = solutions.at(alphas[start : start + n_at_once])
            side_by_side = coefs.reshape(X.shape[1], -1)
            products = np.concatenate([X[rows] @ side_by_side for rows in parts])
            scores = products.reshape(len(test), *intercepts.shape)
            scores += intercepts
            for number in range(len(intercepts)):
                yield self._decide(scores[:, number])

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

    def _linear(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return X @ np.atleast_2d(self.coef_).T + self.intercept_


def _checked_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    if sample_weight is None:
        return np.ones(n_samples)
    weights = check_array(
        sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight"
    )
    if weights.shape != (n_samples,):
        raise InputError(f"sample_weight.shape == {weights.shape}, expected {(n_samples,)}")
    if (weights < 0).any():
        raise InputError("sample_weight: expected no weight below 0")
    if not weights.any():
        raise InputError("sample_weight: all are zero")
    return weights


class RidgeProbe(ClassifierMixin, _RidgePath):
    """Ridge classification that tries many strengths in all folds at about the price of one fit.

    With the strength that it chooses it is scikit-learn's ``RidgeClassifier``: least squares on
    targets of -1 and 1. The moments of what a fold trains on are those of everything less those of
    the fold, and one eigendecomposition of them gives the coefficients of every strength (Hastie et
    al. 2009, section 3.4.1). With fewer samples than features it works on the products of samples.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,) or None, default=None
        Strengths of the regularization, over 0. None tries 45 from 1e-6 to 1e5, evenly spaced on a
        logarithmic scale, as Kornblith et al. 2019 (arXiv 1805.08974) do.
    fit_intercept : bool, default=True
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in training; scores do without.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How samples are held out to choose by; None is five folds, of equal shares of each class.
    scoring : str, callable or None, default=None
        What to choose by; None is accuracy. Others take longer: each strength is scored on its own.

    Attributes
    ----------
    alpha_ : float
        The strength with the best mean score; of equals the strongest.
    best_score_ : float
        Mean score over the folds with it.
    path_ : dict
        ``"alphas"`` (n_alphas,), increasing, and ``"scores"`` (n_alphas, n_folds).
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
    intercept_ : ndarray of shape (n_classes,) or (1,)
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import RidgeProbe
    >>> X, y = load_digits(return_X_y=True)
    >>> probe = RidgeProbe().fit(X, y)
    >>> probe.path_["scores"].shape
    (45, 5)
    >>> probe.score(X, y) > 0.9
    True
    """

    def __init__(
        self,
        alphas: Any = None,
        *,
        fit_intercept: bool = True,
        class_weight: Any = None,
        cv: Any = None,
        scoring: Any = None,
    ) -> None:
        super().__init__(alphas, fit_intercept=fit_intercept, cv=cv, scoring=scoring)
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose a strength, and train with it on everything.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), or (n_samples, n_labels) of 0 and 1
        sample_weight : array-like of shape (n_samples,), default=None
            For the training and the scores.
        groups : array-like of shape (n_samples,), default=None
            For a splitter that holds groups out.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            `alphas` is no list of numbers over 0.
        ValueError
            Lengths differ, numbers are missing, there is one class only, and so on.
        """
        self._checked_alphas()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True)
        check_classification_targets(y)
        if type_of_target(y) != "multilabel-indicator":
            y = column_or_1d(y, warn=True)
        check_consistent_length(X, groups)
        binarizer = LabelBinarizer(neg_label=-1)
        Y = binarizer.fit_transform(y).astype(np.float64)
        self.classes_ = binarizer.classes_
        if len(self.classes_) < 2 and y.ndim == 1:
            raise InputError(f"y holds one class only, {y.tolist()[0]!r}: expected 2 or more")
        weights = _checked_weights(sample_weight, len(X))
        scored_by = None if sample_weight is None else weights
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        self._is_multilabel = y.ndim == 2
        self._fit(X, y, Y, weights, scored_by, groups)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) for two classes, else (n_samples, n_classes)
        """
        scores = self._linear(X)
        return scores.ravel() if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class, or the labels, of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        return self._decide(self._linear(X))

    def _decide(self, scores: np.ndarray) -> np.ndarray:
        if self._is_multilabel:
            return (scores > 0).astype(np.int64)
        which = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
        return self.classes_[which.astype(np.intp)]

    def _own_score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        right = (predicted == y).reshape(len(y), -1).all(axis=1)  # accuracy_score takes longer
        return float(np.average(right, weights=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class RidgeProbeRegressor(RegressorMixin, _RidgePath):
    """Ridge regression that tries many strengths in all folds at about the price of one fit.

    With the strength that it chooses it is scikit-learn's ``Ridge``; see :class:`RidgeProbe`.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,) or None, default=None
        Strengths of the regularization, over 0; None tries 45 from 1e-6 to 1e5.
    fit_intercept : bool, default=True
    cv : int, splitter, iterable of (train, test) or None, default=None
        How samples are held out to choose by; None is five folds.
    scoring : str, callable or None, default=None
        What to choose by; None is R².

    Attributes
    ----------
    alpha_ : float
        The strength with the best mean score; of equals the strongest.
    best_score_ : float
        Mean score over the folds with it.
    path_ : dict
        ``"alphas"`` (n_alphas,), increasing, and ``"scores"`` (n_alphas, n_folds).
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features)
    intercept_ : float or ndarray of shape (n_targets,)
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from featx import RidgeProbeRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> RidgeProbeRegressor().fit(X, y).score(X, y) > 0.5
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose a strength, and train with it on everything.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
        sample_weight : array-like of shape (n_samples,), default=None
            For the training and the scores.
        groups : array-like of shape (n_samples,), default=None
            For a splitter that holds groups out.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            `alphas` is no list of numbers over 0.
        ValueError
            Lengths differ, numbers are missing, and so on.
        """
        self._checked_alphas()
        X, y = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        check_consistent_length(X, groups)
        weights = _checked_weights(sample_weight, len(X))
        self._is_flat = y.ndim == 1
        Y = y.reshape(len(y), -1).astype(np.float64)
        scored_by = None if sample_weight is None else weights
        self._fit(X, y, Y, weights, scored_by, groups)
        return self

    def _take(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        super()._take(coef, intercept)
        if self._is_flat:
            self.coef_, self.intercept_ = self.coef_[0], float(intercept[0])

    def predict(self, X: Any) -> np.ndarray:
        """Predict the values of samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_targets)
        """
        return self._decide(self._linear(X))

    def _decide(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, 0] if self._is_flat else scores

    def _own_score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        return float(r2_score(y, predicted, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
