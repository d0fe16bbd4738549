"""RidgeProbe and RidgeProbeRegressor: ridge regression with all strengths and folds at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from featx._validation import ParameterFaults
from featx.probes._arrays import (
    as_array_like,
    cast_floats,
    float_dtype,
    is_array_api,
    namespace,
    take_rows,
    to_numpy,
)
from featx.probes._base import FitData, LinearPathClassifier, LinearPathProbe
from featx.probes._classes_and_folds import check_strengths, check_two_classes, last_best
from featx.probes._ridge_solver import Solutions, matrix_product, slice_or_take, solve_ridge

_SCORES_AT_ONCE = 4096  # of each held-out sample
_ROWS_AT_ONCE = 2048


class _RidgePathProbe(LinearPathProbe):
    """The path of strengths and the selection among them, for both probes."""

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

    def _check_params(self) -> np.ndarray:
        faults = ParameterFaults(type(self).__name__)
        alphas = check_strengths(faults, "alphas", self.alphas)
        faults.raise_any()
        return alphas

    def _fit_path(self, data: FitData, strengths: np.ndarray) -> None:
        solved = solve_ridge(
            data.X, data.targets, data.weights, data.folds, fit_intercept=self.fit_intercept
        )
        scores = np.empty((len(strengths), len(data.folds)))
        for fold, (_, test) in enumerate(data.folds):
            scores[:, fold] = self._score_fold(next(solved), data, test, strengths)
        means = scores.mean(axis=1)
        best = last_best(means)
        coefs, intercepts = next(solved).at(strengths[[best]])
        self.alpha_, self.best_score_ = float(strengths[best]), float(means[best])
        self.path_ = {"alphas": strengths, "scores": scores}
        self._set_linear(np.ascontiguousarray(coefs[:, 0].T), intercepts[0])

    def _score_fold(
        self, solutions: Solutions, data: FitData, test: np.ndarray, alphas: np.ndarray
    ) -> np.ndarray:
        """Return the scores (n_alphas,) of held-out samples with each strength."""
        if self.scoring is None:
            y, weights = data.y[test], data.test_weights(test)
            predictions = self._predictions(solutions, data.X, test, alphas)
            return np.array([self._score(y, each, weights) for each in predictions])
        scores = []
        for alpha in alphas:
            coefs, intercepts = solutions.at(alpha[np.newaxis])
            coef = np.ascontiguousarray(coefs[:, 0].T)
            scores.append(self._score_by_scorer(data, test, coef, intercepts[0]))
        return np.array(scores)

    def _predictions(
        self, solutions: Solutions, X: Any, test: np.ndarray, alphas: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yield the predictions with each strength; one product serves many."""
        parts = np.split(test, range(_ROWS_AT_ONCE, len(test), _ROWS_AT_ONCE))
        n_at_once = max(1, _SCORES_AT_ONCE // solutions.n_targets)
        dtype = self._score_dtype(X)
        # Rows are centered in float32, which would lose digits of large means.
        center = solutions.x_mean.astype(dtype) if dtype == np.float32 else None
        for start in range(0, len(alphas), n_at_once):
            coefs, intercepts = solutions.at(alphas[start : start + n_at_once])
            side_by_side = np.ascontiguousarray(coefs.reshape(X.shape[1], -1))
            at_center = intercepts.ravel()
            if center is not None:
                at_center = at_center + matrix_product(
                    center[np.newaxis].astype(np.float64), side_by_side
                )
            columns = as_array_like(side_by_side, X, dtype)
            predicted = []
            for rows in parts:
                scores = _centered_products(X, rows, center, columns)
                scores += at_center.astype(dtype)
                decided = self._decide(scores.reshape(-1, solutions.n_targets))
                predicted.append(decided.reshape(len(rows), len(intercepts), *decided.shape[1:]))
            yield from np.moveaxis(np.concatenate(predicted), 1, 0)

    def _score_dtype(self, X: Any) -> np.dtype:
        """Return the dtype in which held-out samples are scored."""
        return np.dtype(np.float64)

    @abstractmethod
    def _decide(self, scores: Any) -> Any:
        """Return the predictions from scores (n, t)."""

    @abstractmethod
    def _score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        """Return the estimator's own score of predictions."""


def _centered_products(
    X: Any, rows: np.ndarray, center: np.ndarray | None, columns: Any
) -> np.ndarray:
    """Multiply centered rows by columns, on the device of the rows."""
    if is_array_api(X):
        part = cast_floats(take_rows(X, rows), float_dtype(columns))
        return to_numpy((part if center is None else part - as_array_like(center, X)) @ columns)
    part = slice_or_take(X, rows)
    return matrix_product(part if center is None else part - center, columns)


class RidgeProbe(LinearPathClassifier, _RidgePathProbe):
    """Ridge classification that tries many strengths in all folds at the price of a few fits.

    After ``fit`` it behaves like scikit-learn's ``RidgeClassifier`` with the selected `alpha`:
    least squares on targets of -1 and 1. The moments of the training part of a fold are those of
    all samples minus those of the test part, and one decomposition of them gives the coefficients
    for every strength (Hastie et al. 2009, section 3.4.1; Eldén 1977). With fewer samples than
    features, the products of samples are decomposed instead. Held-out float32 rows are centered and
    scored in float32.

    After ``sklearn.set_config(array_api_dispatch=True)``, rows may be arrays of another library,
    such as torch tensors on a GPU that supports float64. They are multiplied on their device;
    coefficients agree with those from NumPy arrays within 1e-5 of the largest. Predictions are on
    that device too, unless classes are strings.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,) or None, default=None
        Strengths of the regularization, above 0. None is 45 strengths from 1e-6 to 1e5, evenly
        spaced on a logarithmic scale, as in Kornblith et al. 2019 (arXiv 1805.08974).
    fit_intercept : bool, default=True
        True if a constant is added to the scores.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in training, not in scores.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Cross-validation by which the strength is selected; None is five stratified folds.
    scoring : str, callable or None, default=None
        Score by which the strength is selected; None is accuracy. Others take longer, since they
        score the strengths one by one.

    Attributes
    ----------
    alpha_ : float
        Strength with the best mean score; the largest of equal ones.
    best_score_ : float
        Mean score of `alpha_` over the folds.
    path_ : dict
        ``"alphas"`` (n_alphas,), increasing, and ``"scores"`` (n_alphas, n_folds).
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted; the indices of the columns, if `y` has several.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients of the features, float64.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Constants that are added to the scores, float64.
    n_features_in_ : int
        Number of features of the embeddings.

    See Also
    --------
    RidgeProbeRegressor : The same for numbers instead of classes.
    LinearProbe : Logistic regression along a path of strengths.
    ProbePathDisplay : Plot of the scores along the path.

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

    _target_checks: ClassVar[dict[str, bool]] = {"multi_output": True}

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        check_classification_targets(y)
        if type_of_target(y) != "multilabel-indicator":
            y = column_or_1d(y, warn=True)
        self._is_multilabel = y.ndim == 2
        binarizer = LabelBinarizer(neg_label=-1)
        targets = binarizer.fit_transform(y).astype(np.float64)
        self.classes_ = binarizer.classes_
        if not self._is_multilabel:
            check_two_classes(self.classes_, y)
        return y, targets

    def _weigh_classes(self, y: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if self.class_weight is None:
            return weights
        return weights * compute_sample_weight(self.class_weight, y)

    def _decide(self, scores: Any) -> Any:
        if self._is_multilabel:
            xp = namespace(scores)
            return xp.astype(scores > 0, xp.int64)
        return super()._decide(scores)

    def _score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        right = predicted == y  # accuracy_score takes longer
        if right.ndim == 2:
            right = right.all(axis=1)
        return float(np.average(right, weights=weights))

    def _score_dtype(self, X: Any) -> np.dtype:
        return float_dtype(X)  # rounding changes the class of the largest score in near ties only

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class RidgeProbeRegressor(RegressorMixin, _RidgePathProbe):
    """Ridge regression that tries many strengths in all folds at the price of a few fits.

    After ``fit`` it behaves like scikit-learn's ``Ridge`` with the selected `alpha`. See
    :class:`RidgeProbe` for the method, and for rows on a GPU.

    Parameters
    ----------
    alphas : array-like of shape (n_alphas,) or None, default=None
        Strengths of the regularization, above 0; None is 45 strengths from 1e-6 to 1e5.
    fit_intercept : bool, default=True
        True if a constant is added to the predictions.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Cross-validation by which the strength is selected; None is five folds.
    scoring : str, callable or None, default=None
        Score by which the strength is selected; None is R².

    Attributes
    ----------
    alpha_ : float
        Strength with the best mean score; the largest of equal ones.
    best_score_ : float
        Mean score of `alpha_` over the folds.
    path_ : dict
        ``"alphas"`` (n_alphas,), increasing, and ``"scores"`` (n_alphas, n_folds).
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features)
        Coefficients of the features, float64.
    intercept_ : float or ndarray of shape (n_targets,)
        Constants that are added to the predictions, float64.
    n_features_in_ : int
        Number of features of the embeddings.

    See Also
    --------
    RidgeProbe : The same for classes instead of numbers.
    ProbePathDisplay : Plot of the scores along the path.
    TransferRegressor : Estimator from images to numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from featx import RidgeProbeRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> RidgeProbeRegressor().fit(X, y).score(X, y) > 0.5
    True
    """

    _target_checks: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    def predict(self, X: Any) -> Any:
        """Predict the values of samples.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_targets)
            Predicted values.
        """
        return self._decide(self._compute_scores(X, "predict"))

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._is_flat = y.ndim == 1
        return y, y.reshape(len(y), -1).astype(np.float64)

    def _set_linear(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        super()._set_linear(coef, intercept)
        if self._is_flat:
            self.coef_, self.intercept_ = coef[0], float(intercept[0])

    def _decide(self, scores: Any) -> Any:
        return scores[:, 0] if self._is_flat else scores

    def _score(self, y: np.ndarray, predicted: np.ndarray, weights: Any) -> float:
        return float(r2_score(y, predicted, sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
