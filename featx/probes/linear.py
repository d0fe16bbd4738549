"""LinearProbe: logistic regression whose strength is selected along a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import compute_class_weight

from featx._validation import ParameterFaults
from featx._warning import warn_caller
from featx.exceptions import InputError
from featx.probes._arrays import float_dtype, namespace, to_numpy
from featx.probes._base import FitData, LinearPathClassifier
from featx.probes._classes_and_folds import check_strengths, encode_classes, last_best
from featx.probes._logistic import LBFGSMemory, LogisticLosses, Tolerances, log_probabilities
from featx.probes._whitening import Rotation

_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
# float32 values have about seven digits.
_FOLD_TOLERANCES = Tolerances(step=1e-3, decrease=1e-6, rounding=1e-7)
_FINAL_TOLERANCES = Tolerances(step=1e-5, decrease=1e-11, rounding=1e-15, max_iter=5000)


class LinearProbe(LinearPathClassifier):
    """Logistic regression that tries many strengths; all folds share each pass over the data.

    The linear probe of Kornblith et al. 2019 (arXiv 1805.08974) and of DINOv2 (Oquab et al. 2023,
    arXiv 2304.07193) selects a strength along a path by cross-validation, and is fitted on all
    samples with it. It then equals scikit-learn's ``LogisticRegression`` with the selected `C`,
    multinomial for more than two classes.

    The path goes from strong to weak regularization. Each strength starts from the optima of those
    before it, on uncorrelated features, and one matrix product serves all folds. Folds are computed
    in float32 and the final fit in float64; float32 rows stay float32.

    After ``sklearn.set_config(array_api_dispatch=True)``, rows may be arrays of another library,
    such as torch tensors on a GPU that supports float64. They are multiplied on their device;
    coefficients agree with those from NumPy arrays within 1e-5 of the largest. Predictions are on
    that device too, unless classes are strings.

    Parameters
    ----------
    Cs : array-like of shape (n_Cs,) or None, default=None
        Inverse strengths of the regularization, above 0, as in ``LogisticRegression(C=...)``. None
        is 45 strengths from 1e-6 to 1e5, evenly spaced on a logarithmic scale.
    fit_intercept : bool, default=True
        True if a constant is added to the scores.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in training, not in scores.
    cv : int, splitter, iterable of (train, test) or None, default=None
        Cross-validation by which the strength is selected; None is five stratified folds.
    scoring : str, callable or None, default=None
        Score by which the strength is selected; None is accuracy.
    patience : int or None, default=8
        Number of strengths in a row after which the path ends, if each mean score is below the best
        one by more than the standard error of the best over its folds. None tries all strengths.

    Attributes
    ----------
    C_ : float
        Inverse strength with the best mean score; the smallest of equal ones.
    best_score_ : float
        Mean score of `C_` over the folds.
    path_ : dict
        ``"Cs"`` (n_tried,), increasing, and ``"scores"`` (n_tried, n_folds).
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients of the features, float64.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Constants that are added to the scores, float64.
    n_features_in_ : int
        Number of features of the embeddings.

    See Also
    --------
    RidgeProbe : Ridge classification along a path of strengths, which takes less time.
    ProbePathDisplay : Plot of the scores along the path.
    TransferClassifier : Estimator from images to classes; ``head="probe"`` is this probe.

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

    def predict_proba(self, X: Any) -> Any:
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.

        Returns
        -------
        array of shape (n_samples, n_classes), float64
            Probabilities, with columns in the order of `classes_`; those of a sample sum to 1.
        """
        logs = log_probabilities(self._decisions(X, "predict_proba"))
        return namespace(logs).exp(logs)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.

        Returns
        -------
        array of shape (n_samples, n_classes), float64
            Natural logarithms of what :meth:`predict_proba` returns.
        """
        return log_probabilities(self._decisions(X, "predict_log_proba"))

    def _check_params(self) -> np.ndarray:
        faults = ParameterFaults(type(self).__name__)
        Cs = check_strengths(faults, "Cs", self.Cs)
        if self.patience is not None:
            faults.check_positive_int("patience", self.patience)
        faults.raise_any()
        return np.unique(Cs)

    def _encode(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.classes_, class_indices = encode_classes(y)
        return y, class_indices

    def _weigh_classes(self, y: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
        if self.class_weight is None:
            return weights
        with np.errstate(divide="ignore"):
            by_class = compute_class_weight(
                self.class_weight, classes=self.classes_, y=y, sample_weight=weights
            )
        # "balanced" gives an infinite weight to a class whose samples have weight 0.
        return weights * np.where(np.isfinite(by_class), by_class, 0)[targets]

    def _fit_path(self, data: FitData, strengths: np.ndarray) -> None:
        _check_fold_classes(data)
        path = _LogisticPath(data, fit_intercept=self.fit_intercept)
        scores: list[np.ndarray] = []
        best: list[np.ndarray] = []
        for C in strengths:
            path.step(C)
            scores.append(self._score_folds(path, data))
            if _first_best(scores) == len(scores) - 1:
                best = path.points
            elif self.patience is not None and _is_past_best(scores, self.patience):
                break
        selected = _first_best(scores)
        self.C_, self.best_score_ = float(strengths[selected]), float(scores[selected].mean())
        self.path_ = {"Cs": strengths[: len(scores)], "scores": np.stack(scores)}
        self._set_linear(*path.fit_all(self.C_, best))

    def _score_folds(self, path: _LogisticPath, data: FitData) -> np.ndarray:
        """Return the score of the last strength in each fold."""
        tests = [test for _, test in data.folds]
        if self.scoring is not None:
            scores = [
                self._score_by_scorer(data, test, *path.linear(fold))
                for fold, test in enumerate(tests)
            ]
            return np.array(scores, np.float64)
        return np.array(
            [
                np.average(predicted == data.targets[test], weights=data.test_weights(test))
                for predicted, test in zip(path.predict(), tests, strict=True)
            ]
        )


class _LogisticPath:
    """Optima of logistic regression from strong to weak regularization, for all folds together.

    Rows are projected onto uncorrelated features, whose spreads determine good steps for their
    coefficients at any strength. The start for each strength is extrapolated linearly from the
    optima of the last two. `points` are the projected coefficients of each fold at the last one.
    """

    def __init__(self, data: FitData, *, fit_intercept: bool) -> None:
        X = data.X
        if X.shape[0] <= X.shape[1]:  # too few rows for a GPU
            X = to_numpy(X)
        self._X, self._data = X, data
        self._rotation = Rotation.fit(X, data.weights, fit_intercept=fit_intercept)
        self._rows = self._rotation.project(X, _SINGLE)
        n_rows = len(data.targets)
        counts = np.stack([np.bincount(train, minlength=n_rows) for train, _ in data.folds])
        self._losses = LogisticLosses(
            self._rows, self._rotation, data.targets, data.weights * counts, dtype=_SINGLE
        )
        self.points = self._before = [np.zeros(self._losses.shape)] * len(data.folds)
        self._memory: list[LBFGSMemory] | None = None

    def step(self, C: float) -> None:
        """Find the optima of the next strength."""
        starts = [2 * a - b for a, b in zip(self.points, self._before, strict=True)]
        self._before = self.points
        minima = self._losses.solve(starts, C, _FOLD_TOLERANCES, self._memory)
        self.points = [minimum.point for minimum in minima]
        self._memory = [LBFGSMemory(C, minimum.pairs) for minimum in minima]

    def predict(self) -> list[np.ndarray]:
        """Return the class indices of the held-out rows of each fold."""
        coefs = [self._rows.project_coef(point, _SINGLE) for point in self.points]
        return self._rows.predict([test for _, test in self._data.folds], coefs)

    def linear(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, d) and intercepts (k,) of a fold."""
        return self._rotation.lift_coef(self.points[fold])

    def fit_all(self, C: float, points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, d) and intercepts (k,) for all rows, computed in float64.

        The search starts from the mean of `points`, the optima of the folds at that strength.
        """
        is_single = float_dtype(self._X) == _SINGLE
        rows = self._rows if is_single else self._rotation.project(self._X, _DOUBLE)
        weights = self._data.weights[np.newaxis]
        losses = LogisticLosses(rows, self._rotation, self._data.targets, weights, dtype=_DOUBLE)
        (minimum,) = losses.solve([np.mean(points, axis=0)], C, _FINAL_TOLERANCES)
        if not minimum.is_converged:
            message = f"no optimum in {_FINAL_TOLERANCES.max_iter} iterations at C={C:.3g}"
            warn_caller(ConvergenceWarning(message))
        coef, intercept = self._rotation.lift_coef(minimum.point)
        if len(intercept) > 1:
            intercept -= intercept.mean()  # as in scikit-learn; it does not change probabilities
        return coef, intercept


def _check_fold_classes(data: FitData) -> None:
    """Raise an InputError that names the folds which train on fewer than two classes."""
    faults = [
        str(fold)
        for fold, (train, _) in enumerate(data.folds)
        if len(np.unique(data.targets[train][data.weights[train] > 0])) < 2
    ]
    if faults:
        raise InputError(f"the training parts of folds {', '.join(faults)} have one class only")


def _first_best(scores: list[np.ndarray]) -> int:
    """Return the index of the strength with the best mean score, the first one of equals."""
    return len(scores) - 1 - last_best(np.mean(scores, axis=1)[::-1])


def _is_past_best(scores: list[np.ndarray], patience: int) -> bool:
    """Return True if the last `patience` strengths are all clearly worse than the best.

    Examples
    --------
    >>> _is_past_best([np.array([0.9, 0.8]), np.array([0.5, 0.4]), np.array([0.5, 0.5])], 2)
    True
    >>> _is_past_best([np.array([0.9, 0.8]), np.array([0.85, 0.84]), np.array([0.5, 0.5])], 2)
    False
    """
    means = np.mean(scores, axis=1)
    best = scores[_first_best(scores)]
    standard_error = best.std() / np.sqrt(len(best))
    worse = means[-patience:] < best.mean() - standard_error
    return len(worse) == patience and bool(worse.all())
