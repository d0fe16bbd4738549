"""BaseProbe, base of the probes: checks of rows and targets; LinearPathProbe: path of strengths."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, is_classifier
from sklearn.metrics import check_scoring
from sklearn.preprocessing import normalize
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from featx._targets import as_labels, as_values, comparable
from featx.exceptions import InputError, ParameterError
from featx.probes._arrays import (
    apply_in_blocks,
    float_dtypes,
    in_memory,
    inner_products,
    is_array_api,
    is_lazy,
    namespace,
    numpy_if_array_api,
    take_rows,
    to_numpy,
    to_same_device,
    validate_rows,
    without_gradients,
)
from featx.probes._classes_and_folds import (
    Fold,
    check_fold_weights,
    check_weights,
    encode_classes,
    predict_class_indices,
    split_folds,
)

_MAX_BYTES_READ_ONCE = 256 * 2**20  # of a lazy array that is read into memory


class BaseProbe(BaseEstimator, ABC):
    """A probe, which takes NumPy arrays, arrays of other libraries and lazy arrays."""

    @abstractmethod
    def _compute_scores(self, X: Any, method: str) -> Any:
        """Return the scores (n_samples, n_scores) of rows; errors name `method`."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    def _validate_fit(self, X: Any, y: Any, **checks: Any) -> tuple[Any, np.ndarray]:
        """Return validated rows and targets, as ``validate_data`` does, and set `n_features_in_`.

        Lazy arrays are not read unless they are small or have fewer samples than features.
        """
        if y is not None:
            y = (as_values if checks.get("y_numeric") else as_labels)(numpy_if_array_api(y))
        if is_array_api(X):
            X = validate_data(self, without_gradients(X), dtype=float_dtypes(X))
        elif is_lazy(X) and len(X) > X.shape[1] and X.nbytes > _MAX_BYTES_READ_ONCE:
            validate_data(self, X[:1], dtype=[np.float32])
        else:
            floats = [np.float64, np.float32]
            return validate_data(self, in_memory(X), y, dtype=floats, **checks)
        y = validate_data(self, y=y, **checks)
        check_consistent_length(X, y)
        return X, y

    def _check_same_device(self, X: Any, fitted: Any, method: str) -> None:
        """Raise an InputError that names `method` if rows are not where a fitted array is."""
        if isinstance(X, np.ndarray) and isinstance(fitted, np.ndarray):
            return
        import array_api_compat

        given, own = [
            (namespace(a).__name__.removeprefix("array_api_compat."), array_api_compat.device(a))
            for a in (X, fitted)
        ]
        if given != own:
            name = type(self).__name__
            raise InputError(
                f"X is a {given[0]} array on {given[1]}, but this {name} was fitted on {own[0]} "
                f"arrays on {own[1]}: inputs of {name}.{method}() must use the same namespace and "
                "device"
            )


@dataclass(frozen=True, eq=False)
class FitData:
    """Validated rows, targets, weights and folds."""

    X: Any  # (n, d), a NumPy array, an array of another library or a lazy array
    y: np.ndarray  # (n,) or (n, n_outputs), for scorers
    targets: np.ndarray  # for the solver: class indices (n,), or columns (n, t), float64
    weights: np.ndarray  # (n,) float64, in training
    score_weights: np.ndarray | None  # (n,) float64, in scores
    folds: list[Fold]

    def test_weights(self, test: np.ndarray) -> np.ndarray | None:
        """Return the weights of held-out rows in scores."""
        return None if self.score_weights is None else self.score_weights[test]


class ProbeClassifier(ClassifierMixin, BaseProbe):
    """A probe that predicts the class with the largest score."""

    classes_: Any

    def predict(self, X: Any) -> Any:
        """Predict the class of each sample, or its labels if a `RidgeProbe` was fitted on several.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.

        Returns
        -------
        array of shape (n_samples,) or (n_samples, n_labels)
            Class of each sample; with several labels per sample, 1 for each that applies, else 0.
        """
        return self._decide(self._compute_scores(X, "predict"))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on samples; a sample with several labels counts if all are right.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score; None is 1 for each.

        Returns
        -------
        float
            Accuracy, from 0 to 1.
        """
        check_is_fitted(self)
        if not is_array_api(y) and isinstance(self.classes_, np.ndarray):
            y, _ = comparable(y=as_labels(y), classes_=self.classes_)
        return super().score(X, y, sample_weight)

    def _decide(self, scores: Any) -> Any:
        """Return the classes that scores (n, t) predict."""
        return take_rows(self.classes_, to_numpy(predict_class_indices(scores)))


class CosineProbe(ProbeClassifier):
    """A classifier by the cosines of rows, which are unit vectors in memory."""

    def _fit_classes(self, X: Any, y: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Set `classes_`, and return validated rows and labels, and class indices."""
        X, y = self._validate_fit(in_memory(X), y)
        classes, class_indices = encode_classes(y)
        self.classes_ = to_same_device(classes, X)
        return X, y, class_indices

    def _unit_rows(self, X: Any, attribute: str, method: str) -> Any:
        """Return rows as unit vectors, which have to be where a fitted attribute is."""
        rows = validate_rows(self, X)
        self._check_same_device(rows, getattr(self, attribute), method)
        return normalize(rows)


class LinearPathProbe(BaseProbe):
    """A linear model whose strength of regularization is selected along a path."""

    cv: Any
    scoring: Any
    coef_: Any
    intercept_: Any
    _target_checks: ClassVar[dict[str, bool]] = {}  # for validate_data

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Select a strength by cross-validation, then fit all samples with it.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values. `RidgeProbe` takes several columns of 0 and 1, `RidgeProbeRegressor`
            several columns of values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights in training and in scores; None is 1 for each sample.
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
            Lengths differ, values are missing or infinite, or there is only one class in all
            samples or in the training part of a fold.

        Warns
        -----
        ConvergenceWarning
            `LinearProbe` has not reached the optimum on all samples.
        """
        strengths = self._check_params()
        X, y = self._validate_fit(X, y, **self._target_checks)
        if is_lazy(X) and self.scoring is not None:
            raise ParameterError(
                f"scoring={self.scoring!r}: expected None for rows that do not fit in memory"
            )
        y, targets = self._encode(y)
        weights = check_weights(sample_weight, len(y))
        score_weights = None if sample_weight is None else weights
        weights = self._weigh_classes(y, targets, weights)
        folds = split_folds(self.cv, X, y, groups, stratified=is_classifier(self))
        check_fold_weights(folds, weights, score_weights)
        self._fit_path(FitData(X, y, targets, weights, score_weights, folds), strengths)
        for name in ("coef_", "intercept_", "classes_"):
            if hasattr(self, name):
                setattr(self, name, to_same_device(getattr(self, name), X))
        return self

    @abstractmethod
    def _check_params(self) -> np.ndarray:
        """Return the strengths in the order of the path, or raise with all faults."""

    @abstractmethod
    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return labels or values for scorers, and the targets for the solver."""

    def _weigh_classes(self, y: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the weights of samples in training."""
        return weights

    @abstractmethod
    def _fit_path(self, data: FitData, strengths: np.ndarray) -> None:
        """Select a strength, then fit all samples with it and set the fitted attributes."""

    def _set_linear(self, coef: np.ndarray, intercept: np.ndarray) -> None:
        """Set coefficients (t, d) and intercepts (t,)."""
        self.coef_, self.intercept_ = coef, intercept

    def _score_by_scorer(
        self, data: FitData, test: np.ndarray, coef: np.ndarray, intercept: np.ndarray
    ) -> float:
        """Return the score of coefficients on held-out rows, by `scoring`."""
        scorer = check_scoring(self, scoring=self.scoring)
        trained = copy.copy(self)
        if hasattr(trained, "feature_names_in_"):  # rows are arrays here
            del trained.feature_names_in_
        trained._set_linear(coef, intercept)
        weights = data.test_weights(test)
        given = {} if weights is None else {"sample_weight": weights}
        return scorer(trained, to_numpy(take_rows(data.X, test)), data.y[test], **given)

    def _compute_scores(self, X: Any, method: str) -> Any:
        def scores_of(rows: Any) -> Any:
            self._check_same_device(rows, self.coef_, method)
            coef = self.coef_ if self.coef_.ndim == 2 else self.coef_[None, :]
            return inner_products(rows, coef) + self.intercept_

        return apply_in_blocks(self, X, scores_of)


class LinearPathClassifier(ProbeClassifier, LinearPathProbe):
    """A linear classifier whose strength of regularization is selected along a path."""

    def decision_function(self, X: Any) -> Any:
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.

        Returns
        -------
        array of shape (n_samples,) for two classes, else (n_samples, n_classes)
            Scores, the largest for the predicted class. Those of two classes are scores of the
            second one, above 0 where it is predicted.
        """
        return self._decisions(X, "decision_function")

    def _decisions(self, X: Any, method: str) -> Any:
        scores = self._compute_scores(X, method)
        return scores[:, 0] if scores.shape[1] == 1 else scores
