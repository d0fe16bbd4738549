"""LinearProbe: logistic regression whose strength is chosen along a path.

Logistic regression for one strength after another, on what each fold trains on.

Rows are turned so that their features are uncorrelated: there, the step to take is known for each
coefficient from the spread of its feature, whatever the strength. Each strength starts where a
straight line through the last two ends.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring
from sklearn.utils import check_consistent_length, compute_class_weight

from featx._warning import warn_caller
from featx.exceptions import InputError, ParameterError
from featx.probes._arrays import (
    ArrayApiMixin,
    apply_in_blocks,
    check_own_score,
    check_same_place,
    inner_products,
    namespace,
    numpy_if_foreign,
    precision,
    take,
    to_numpy,
    to_same_device,
    validated,
)
from featx.probes._logistic import Losses, Memory, Tolerances, log_probabilities
from featx.probes._validation import (
    Fold,
    check_weights_of_folds,
    checked_weights,
    encode_classes,
    last_of_best,
    predict_class_indices,
    split_folds,
)
from featx.probes._whitening import LazyProjectedRows, Rotation

_ROWS_AT_ONCE = 8192
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
# In float32 a value is known to about seven digits.
_FOR_FOLDS = Tolerances(step=1e-3, decrease=1e-6, rounding=1e-7)
_FOR_EVERYTHING = Tolerances(step=1e-5, decrease=1e-11, rounding=1e-15, max_iter=5000)


class LogisticPath:
    """Walks from strong to weak regularization, all folds in step.

    Parameters
    ----------
    X : array of shape (n, d), float32 or float64
    numbers : ndarray of shape (n,), int64
        The classes of the rows.
    weights : ndarray of shape (n,), float64
    folds : sequence of (train, test)
        Row numbers.
    fit_intercept : bool

    Attributes
    ----------
    points : list of ndarray
        For each fold, where the function of the last strength is least.
    """

    def __init__(
        self,
        X: np.ndarray,
        numbers: np.ndarray,
        weights: np.ndarray,
        folds: Sequence[Fold],
        *,
        fit_intercept: bool,
    ) -> None:
        if X.shape[0] <= X.shape[1]:  # too few to be worth the way to a GPU
            X = to_numpy(X)
        self._X, self._numbers, self._weights, self._folds = X, numbers, weights, folds
        self._rotation = Rotation.of(X, weights, fit_intercept=fit_intercept)
        self._rows = self._rotation.rows(X, _SINGLE)
        counts = np.stack([np.bincount(train, minlength=len(numbers)) for train, _ in folds])
        self._losses = Losses(self._rows, self._rotation, numbers, weights * counts, dtype=_SINGLE)
        self.points = self._before = [np.zeros(self._losses.shape)] * len(folds)
        self._memory: list[Memory] | None = None

    def step(self, C: float) -> None:
        """Go on to a weaker strength."""
        starts = [2 * a - b for a, b in zip(self.points, self._before, strict=True)]
        self._before = self.points
        minima = self._losses.solve(starts, C, _FOR_FOLDS, self._memory)
        self.points = [minimum.point for minimum in minima]
        self._memory = [Memory(C, minimum.pairs) for minimum in minima]

    def held_out_classes(self) -> list[np.ndarray]:
        """Return, for each fold, the numbers of the classes (m,) that held-out rows get."""
        rows, tests = self._rows, [test for _, test in self._folds]
        of_rows = [rows.project_coef(point, _SINGLE) for point in self.points]
        if not isinstance(rows, LazyProjectedRows):
            pairs = zip(tests, of_rows, strict=True)
            return [
                to_numpy(predict_class_indices(rows.scores(rows.take(test), point)))
                for test, point in pairs
            ]
        found = [np.empty(len(test), np.int64) for test in tests]
        orders = [np.argsort(test, kind="stable") for test in tests]
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            for test, order, point, classes in zip(tests, orders, of_rows, found, strict=True):
                ends = np.searchsorted(test, [start, start + len(some)], sorter=order)
                places = order[slice(*ends)]
                if len(places):
                    classes[places] = predict_class_indices(
                        rows.scores(some[test[places] - start], point)
                    )
        return found

    def coefficients(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, d) and intercepts (k,) of a fold."""
        return self._rotation.coefficients(self.points[number])

    def fit_everything(
        self, C: float, points: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit all rows, in float64.

        Parameters
        ----------
        C : float
        points : sequence of ndarray
            What the folds found with that strength.

        Returns
        -------
        coef : ndarray of shape (k, d), float64
        intercept : ndarray of shape (k,), float64
        """
        rows = (
            self._rows if precision(self._X) == _SINGLE else self._rotation.rows(self._X, _DOUBLE)
        )
        losses = Losses(
            rows, self._rotation, self._numbers, self._weights[np.newaxis], dtype=_DOUBLE
        )
        start = np.mean(points, axis=0)
        (minimum,) = losses.solve([start], C, _FOR_EVERYTHING)
        if not minimum.is_reached:
            message = f"no optimum in {_FOR_EVERYTHING.max_iter} iterations at C={C:.3g}"
            warn_caller(ConvergenceWarning(message))
        coef, intercept = self._rotation.coefficients(minimum.point)
        if len(intercept) > 1:
            intercept -= intercept.mean()  # which changes no probability
        return coef, intercept


class LinearProbe(ArrayApiMixin, ClassifierMixin, BaseEstimator):
    """Logistic regression that tries many strengths in all folds in the same passes over the rows.

    The linear probe of Kornblith et al. 2019 (arXiv 1805.08974) and of DINOv2 (Oquab et al. 2023,
    arXiv 2304.07193): a path of strengths, the best by validation, trained on everything. With the
    strength that it chooses it is scikit-learn's ``LogisticRegression``, multinomial for more than
    two classes.

    The path goes from strong to weak regularization. Each strength starts where the one before
    ended, features are made uncorrelated first, and one product of matrices serves all folds. The
    folds are computed in float32, and what is trained on everything in float64; float32 rows stay
    float32.

    With ``array_api_dispatch=True`` rows may be arrays of another library, such as torch tensors on
    a GPU that computes in float64: they are multiplied there, coefficients agree with numpy's
    within 1e-5 of the largest, and answers are there, too, but for classes that are words.

    Parameters
    ----------
    Cs : array-like of shape (n_Cs,) or None, default=None
        Inverse strengths of the regularization, over 0, as ``LogisticRegression(C=...)`` has them.
        None tries 45 from 1e-6 to 1e5, evenly spaced on a logarithmic scale.
    fit_intercept : bool, default=True
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in training; scores do without.
    cv : int, splitter, iterable of (train, test) or None, default=None
        How samples are held out to choose by; None is five folds, of equal shares of each class.
    scoring : str, callable or None, default=None
        What to choose by; None is accuracy.
    patience : int or None, default=8
        The path ends early once so many strengths in a row have a mean score that is lower than the
        best by more than the standard error of the best over its folds. None walks all of it.

    Attributes
    ----------
    C_ : float
        The strength with the best mean score; of equals the strongest, which has the least `C`.
    best_score_ : float
        Mean score over the folds with it.
    path_ : dict
        ``"Cs"`` (n_walked,), increasing, and ``"scores"`` (n_walked, n_folds).
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
    intercept_ : ndarray of shape (n_classes,) or (1,)
    n_features_in_ : int

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import LinearProbe
    >>> X, y = load_digits(return_X_y=True)
    >>> probe = LinearProbe().fit(X, y)
    >>> probe.path_["scores"].shape[1], probe.best_score_ > 0.9
    (5, True)
    >>> probe.predict_proba(X[:3]).shape
    (3, 10)
    """

    def __init__(
        self,
        Cs: Any = None,
        *,
        fit_intercept: bool = True,
        class_weight: Any = None,
        cv: Any = None,
        scoring: Any = None,
        patience: int | None = 8,
    ) -> None:
        self.Cs = Cs
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.cv = cv
        self.scoring = scoring
        self.patience = patience

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Choose a strength, and train with it on everything.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
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
            `Cs` is no list of numbers over 0, or `patience` no number over 0.
        ValueError
            Lengths differ, numbers are missing, there is one class only, in all or in what a fold
            trains on, and so on.

        Warns
        -----
        ConvergenceWarning
            The optimum was not reached in training on everything.
        """
        Cs = self._checked_params()
        groups = numpy_if_foreign(groups)
        X, y = validated(self, X, y)
        check_own_score(X, self.scoring)
        check_consistent_length(y, groups)
        self.classes_, numbers = encode_classes(y)
        weights = checked_weights(sample_weight, len(y))
        scored_by = None if sample_weight is None else weights
        if self.class_weight is not None:
            with np.errstate(divide="ignore"):
                own = compute_class_weight(
                    self.class_weight, classes=self.classes_, y=y, sample_weight=weights
                )
            # Of a class without any weight, "balanced" makes infinity.
            weights = weights * np.where(np.isfinite(own), own, 0)[numbers]
        folds = split_folds(self.cv, X, y, groups, classes=True)
        check_weights_of_folds(folds, weights, scored_by)
        _check_classes_of_folds(folds, numbers, weights)
        path = LogisticPath(X, numbers, weights, folds, fit_intercept=self.fit_intercept)
        scores: list[np.ndarray] = []
        best: list[np.ndarray] = []
        for C in Cs:
            path.step(C)
            scores.append(self._scores(path, X, y, numbers, scored_by, folds))
            if _first_of_best(scores) == len(scores) - 1:
                best = path.points
            elif self.patience is not None and _has_turned(scores, self.patience):
                break
        chosen = _first_of_best(scores)
        self.C_, self.best_score_ = float(Cs[chosen]), float(scores[chosen].mean())
        self.path_ = {"Cs": Cs[: len(scores)], "scores": np.stack(scores)}
        coef, intercept = path.fit_everything(self.C_, best)
        self.coef_, self.intercept_ = to_same_device(coef, X), to_same_device(intercept, X)
        self.classes_ = to_same_device(self.classes_, X)
        return self

    def _scores(
        self,
        path: LogisticPath,
        X: np.ndarray,
        y: np.ndarray,
        numbers: np.ndarray,
        scored_by: np.ndarray | None,
        folds: list[Fold],
    ) -> np.ndarray:
        """Score what the folds hold out by what they have found for the last strength."""
        tests = [test for _, test in folds]
        weights_of = [None if scored_by is None else scored_by[test] for test in tests]
        if self.scoring is None:
            held_out = zip(path.held_out_classes(), tests, weights_of, strict=True)
            return np.array(
                [
                    np.average(classes == numbers[test], weights=weights)
                    for classes, test, weights in held_out
                ]
            )
        scorer = check_scoring(self, scoring=self.scoring)
        scores = np.empty(len(folds))
        for number, (test, weights) in enumerate(zip(tests, weights_of, strict=True)):
            trained = copy.copy(self)
            if hasattr(trained, "feature_names_in_"):  # rows are arrays here
                del trained.feature_names_in_
            trained.coef_, trained.intercept_ = path.coefficients(number)
            given = {} if weights is None else {"sample_weight": weights}
            scores[number] = scorer(trained, to_numpy(take(X, test)), y[test], **given)
        return scores

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the scores of the classes, before they become probabilities.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,) for two classes, else (n_samples, n_classes)
        """
        return self._decisions(X, "decision_function")

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes), float64
        """
        logs = log_probabilities(self._decisions(X, "predict_proba"))
        return namespace(logs).exp(logs)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithms of the probabilities.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes), float64
        """
        return log_probabilities(self._decisions(X, "predict_log_proba"))

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class with the largest score.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,)
        """
        scores = self._decisions(X, "predict")
        return take(self.classes_, to_numpy(predict_class_indices(scores)))

    def _decisions(self, X: Any, method: str) -> Any:
        """Return the scores of samples for a method of some name."""

        def scores_of(rows: Any) -> Any:
            check_same_place(self, rows, self.coef_, method)
            return inner_products(rows, self.coef_) + self.intercept_

        scores = apply_in_blocks(self, X, scores_of)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def _checked_params(self) -> np.ndarray:
        """Return the inverse strengths, increasing, or raise with all faults."""
        faults = []
        Cs = np.logspace(-6, 5, 45) if self.Cs is None else np.asarray(self.Cs)
        is_sound = Cs.ndim == 1 and len(Cs) and Cs.dtype.kind in "iuf"
        if not is_sound or not (np.isfinite(Cs) & (Cs > 0)).all():
            faults.append(
                f"Cs={self.Cs!r}: expected a list of numbers over 0, or None for 45 of them"
            )
        is_count = isinstance(self.patience, Integral) and int(self.patience) > 0
        if self.patience is not None and not is_count:
            faults.append(f"patience={self.patience!r}: expected a number over 0, or None")
        if faults:
            raise ParameterError("; ".join(faults))
        return np.unique(Cs.astype(np.float64))


def _check_classes_of_folds(
    folds: Sequence[Fold], numbers: np.ndarray, weights: np.ndarray
) -> None:
    """Check that every fold trains on two classes at least."""
    faults = [
        str(number)
        for number, (train, _) in enumerate(folds)
        if len(np.unique(numbers[train][weights[train] > 0])) < 2
    ]
    if faults:
        raise InputError(f"what folds train on holds one class only, in folds {', '.join(faults)}")


def _first_of_best(scores: list[np.ndarray]) -> int:
    """Return the number of the strength with the best mean score; of equals the first."""
    return len(scores) - 1 - last_of_best(np.mean(scores, axis=1)[::-1])


def _has_turned(scores: list[np.ndarray], patience: int) -> bool:
    """Tell whether the last few strengths are all clearly worse than the best.

    Examples
    --------
    >>> _has_turned([np.array([0.9, 0.8]), np.array([0.5, 0.4]), np.array([0.5, 0.5])], 2)
    True
    >>> _has_turned([np.array([0.9, 0.8]), np.array([0.85, 0.84]), np.array([0.5, 0.5])], 2)
    False
    """
    means = np.mean(scores, axis=1)
    best = scores[_first_of_best(scores)]
    standard_error = best.std() / np.sqrt(len(best))
    worse = means[-patience:] < best.mean() - standard_error
    return len(worse) == patience and bool(worse.all())
