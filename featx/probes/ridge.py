"""RidgeProbe and RidgeProbeRegressor: ridge regression that tries all strengths in all folds."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_classifier
from sklearn.metrics import check_scoring, r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_consistent_length, compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from featx.exceptions import InputError, ParameterError
from featx.probes._arrays import (
    ArrayApiMixin,
    apply_in_blocks,
    cast,
    check_own_score,
    check_same_place,
    inner_products,
    is_foreign,
    like,
    namespace,
    numpy_if_foreign,
    precision,
    take,
    to_numpy,
    to_same_device,
    validated,
)
from featx.probes._ridge_solver import Solutions, product, rows_of, solve
from featx.probes._validation import (
    check_weights_of_folds,
    checked_weights,
    last_of_best,
    predict_class_indices,
    split_folds,
)

# How many scores of how many samples are computed at once.
_SCORES_AT_ONCE = 4096
_ROWS_AT_ONCE = 2048


class RidgeChoice(ArrayApiMixin, BaseEstimator):
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
        self.coef_, self.intercept_ = (
            to_same_device(self.coef_, X),
            to_same_device(self.intercept_, X),
        )

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
                class_indices = self._decide(scores.reshape(-1, solutions.n_targets))
                predicted.append(
                    class_indices.reshape(len(rows), len(intercepts), *class_indices.shape[1:])
                )
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


class RidgeProbe(ClassifierMixin, RidgeChoice):
    """Ridge classification that tries many strengths in all folds at the price of a few fits.

    With the strength that it chooses it is scikit-learn's ``RidgeClassifier``: least squares on
    targets of -1 and 1. The moments of what a fold trains on are those of everything less those of
    the fold, and one decomposition of them gives the coefficients of every strength (Hastie et al.
    2009, section 3.4.1; Eldén 1977). With fewer samples than features it works on the products of
    samples. The classes of float32 rows are told in float32, around their mean.

    With ``array_api_dispatch=True`` rows may be arrays of another library, such as torch tensors on
    a GPU that computes in float64: they are multiplied there, coefficients agree with numpy's
    within 1e-5 of the largest, and answers are there, too, but for classes that are words.

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
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
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
        alphas = self._checked_alphas()
        X, y = validated(self, X, y, multi_output=True)
        check_classification_targets(y)
        if type_of_target(y) != "multilabel-indicator":
            y = column_or_1d(y, warn=True)
        check_consistent_length(y, groups)
        binarizer = LabelBinarizer(neg_label=-1)
        Y = binarizer.fit_transform(y).astype(np.float64)
        self.classes_ = binarizer.classes_
        if len(self.classes_) < 2 and y.ndim == 1:
            raise InputError(f"y holds one class only, {y.tolist()[0]!r}: expected 2 or more")
        weights = checked_weights(sample_weight, len(y))
        scored_by = None if sample_weight is None else weights
        if self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, y)
        self._is_multilabel = y.ndim == 2
        self._fit(X, y, Y, weights, scored_by, numpy_if_foreign(groups), alphas)
        self.classes_ = to_same_device(self.classes_, X)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) for two classes, else (n_samples, n_classes)
        """
        scores = self._linear(X, "decision_function")
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class, or the labels, of samples.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_labels)
        """
        return self._decide(self._linear(X, "predict"))

    def _decide(self, scores: Any) -> Any:
        if self._is_multilabel:
            xp = namespace(scores)
            return xp.astype(scores > 0, xp.int64)
        return take(self.classes_, to_numpy(predict_class_indices(scores)))

    def _own_score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        right = predicted == y  # accuracy_score takes longer
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=weights))

    def _precision_of_scores(self, X: Any) -> np.dtype:
        return precision(X)  # the largest decides, which rounding changes for near ties only

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class RidgeProbeRegressor(RegressorMixin, RidgeChoice):
    """Ridge regression that tries many strengths in all folds at the price of a few fits.

    With the strength that it chooses it is scikit-learn's ``Ridge``; see :class:`RidgeProbe`, for
    rows on a GPU, too.

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
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
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
        alphas = self._checked_alphas()
        X, y = validated(self, X, y, multi_output=True, y_numeric=True)
        check_consistent_length(y, groups)
        weights = checked_weights(sample_weight, len(y))
        self._is_flat = y.ndim == 1
        Y = y.reshape(len(y), -1).astype(np.float64)
        scored_by = None if sample_weight is None else weights
        self._fit(X, y, Y, weights, scored_by, numpy_if_foreign(groups), alphas)
        return self

    def _take(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        super()._take(coef, intercept)
        if self._is_flat:
            self.coef_, self.intercept_ = self.coef_[0], float(intercept[0])

    def predict(self, X: Any) -> np.ndarray:
        """Predict the values of samples.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_targets)
        """
        return self._decide(self._linear(X, "predict"))

    def _decide(self, scores: np.ndarray) -> np.ndarray:
        return scores[:, 0] if self._is_flat else scores

    def _own_score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        return float(r2_score(y, predicted, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
