"""Rotation, ProjectedRows: rows in uncorrelated features, in which the losses are minimized.

In this basis, the second derivatives of a loss are nearly diagonal, so that L-BFGS has a good
preconditioner. Lazy rows are only centered when they are read: instead of the many rows, the few
coefficients are projected, and the gradients lifted back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from featx.probes._arrays import (
    as_array_like,
    cast_floats,
    float_dtype,
    in_blocks,
    is_array_api,
    is_lazy,
    namespace,
    take_rows,
    to_numpy,
    weighted_mean,
)
from featx.probes._classes_and_folds import predict_class_indices

_ROWS_AT_ONCE = 2048
_LAZY_ROWS_AT_ONCE = 8192
_DOUBLE = np.dtype(np.float64)


class ProjectedRows:
    """Projected rows (n, p) in memory; the last column is ones if there is an intercept."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.n_columns: int = rows.shape[1]
        self.is_array_api = not isinstance(rows, np.ndarray)

    def __len__(self) -> int:
        return self._rows.shape[0]

    def __getitem__(self, rows: slice) -> Any:
        return self._rows[rows, :]

    def take(self, rows: np.ndarray) -> Any:
        """Return rows by their indices."""
        return take_rows(self._rows, rows)

    def as_array_like(self, array: np.ndarray, dtype: np.dtype | None = None) -> Any:
        """Move a NumPy array to where the rows are."""
        return as_array_like(array, self._rows, dtype)

    def project_coef(self, coef: np.ndarray, dtype: np.dtype) -> Any:
        """Return coefficients (p, m) for multiplication with the rows, on their device."""
        return self.as_array_like(coef, dtype)

    def lift_gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient by the coefficients (p, m) from that by the projected ones."""
        return gradient

    def scores(self, some: Any, coef: Any) -> Any:
        """Return the scores (n_some, m) of some rows by projected coefficients."""
        return some @ coef

    def gradient(self, some: Any, residuals: Any) -> Any:
        """Return the gradient by the projected coefficients from the residuals (n_some, m)."""
        return some.T @ residuals

    def predict(self, tests: Sequence[np.ndarray], coefs: Sequence[Any]) -> list[np.ndarray]:
        """Return class indices for the test rows of each fold by its projected coefficients."""
        return [
            to_numpy(predict_class_indices(self.scores(self.take(test), coef)))
            for test, coef in zip(tests, coefs, strict=True)
        ]


class LazyProjectedRows(ProjectedRows):
    """Rows of a lazy array, read and centered when they are sliced."""

    def __init__(self, X: Any, rotation: Rotation) -> None:
        self._rows, self._center = X, rotation.center.astype(X.dtype)
        self._basis, self._fit_intercept = rotation.basis, rotation.fit_intercept
        self.n_columns, self.is_array_api = rotation.rank + rotation.fit_intercept, False

    def __getitem__(self, rows: Any) -> np.ndarray:
        read = self._rows[rows]
        read -= self._center  # a copy, since it was read
        return read

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Read rows by their indices."""
        return self[rows]

    def project_coef(self, coef: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Return coefficients by the features, and the intercepts as the last row."""
        rank = self._basis.shape[1]
        return self.as_array_like(np.concatenate([self._basis @ coef[:rank], coef[rank:]]), dtype)

    def lift_gradient(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient by the coefficients; its last row is by the intercepts."""
        n_features = len(self._basis)
        return np.concatenate([self._basis.T @ gradient[:n_features], gradient[n_features:]])

    def scores(self, some: np.ndarray, coef: np.ndarray) -> np.ndarray:
        """Return the scores, intercepts included."""
        n_features = len(self._basis)
        scores = some @ coef[:n_features]
        return scores + coef[n_features] if self._fit_intercept else scores

    def gradient(self, some: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Return the gradient by projected coefficients and intercepts."""
        by_coef = some.T @ residuals
        if not self._fit_intercept:
            return by_coef
        return np.concatenate([by_coef, residuals.sum(axis=0, keepdims=True)])

    def predict(self, tests: Sequence[np.ndarray], coefs: Sequence[Any]) -> list[np.ndarray]:
        """Return class indices for the test rows of each fold in one pass over all rows."""
        found = [np.empty(len(test), np.int64) for test in tests]
        orders = [np.argsort(test, kind="stable") for test in tests]
        for start in range(0, len(self), _LAZY_ROWS_AT_ONCE):
            some = self[start : start + _LAZY_ROWS_AT_ONCE]
            for test, order, coef, class_indices in zip(tests, orders, coefs, found, strict=True):
                ends = np.searchsorted(test, [start, start + len(some)], sorter=order)
                places = order[slice(*ends)]
                if len(places):
                    scores = self.scores(some[test[places] - start], coef)
                    class_indices[places] = predict_class_indices(scores)
        return found


class Rotation(NamedTuple):
    """Center and principal axes of rows; without weights, the projected features are uncorrelated.

    Arrays are float64. The rank r is d, or the number of rows where there are fewer.
    """

    basis: np.ndarray  # (d, r), with orthonormal columns
    center: np.ndarray  # (d,), zeros without an intercept
    spreads: np.ndarray  # (r,) or (r + 1,), sums of squares of the new features
    fit_intercept: bool  # True if projected rows have a last column of ones

    @classmethod
    def fit(cls, X: Any, weights: np.ndarray, *, fit_intercept: bool) -> Self:
        """Return the rotation of rows (n, d) with weights (n,) in their mean."""
        center = weighted_mean(X, weights) if fit_intercept else np.zeros(X.shape[1])
        if X.shape[0] <= X.shape[1]:  # a NumPy array
            _, lengths, axes = np.linalg.svd(X - center, full_matrices=False)
            basis, spreads = axes.T, lengths**2
        else:
            gram = np.zeros((X.shape[1], X.shape[1]))
            for _, rows in in_blocks(X):
                centered = rows - as_array_like(center, rows, float_dtype(rows))
                gram += to_numpy(centered.T @ centered)
            spreads, basis = np.linalg.eigh(gram)
        if fit_intercept:
            spreads = np.append(spreads, X.shape[0])
        return cls(basis, center, np.maximum(spreads, 0), fit_intercept)

    @property
    def rank(self) -> int:
        """Number of new features."""
        return self.basis.shape[1]

    def project(self, X: Any, dtype: np.dtype) -> ProjectedRows:
        """Return rows projected onto the new features."""
        if is_lazy(X):
            return LazyProjectedRows(X, self)
        if is_array_api(X):
            return ProjectedRows(self._project_array_api(X, dtype))
        rows = np.ones((len(X), self.rank + self.fit_intercept), dtype)
        basis = self.basis.astype(dtype)
        for start in range(0, len(X), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows[part, : self.rank] = (X[part] - self.center).astype(dtype) @ basis
        return ProjectedRows(rows)

    def _project_array_api(self, X: Any, dtype: np.dtype) -> Any:
        xp, basis = namespace(X), as_array_like(self.basis, X, dtype)
        center = as_array_like(self.center, X)
        parts = [
            cast_floats(cast_floats(rows, _DOUBLE) - center, dtype) @ basis
            for _, rows in in_blocks(X)
        ]
        ones = as_array_like(np.ones((X.shape[0], int(self.fit_intercept))), X, dtype)
        return xp.concat([xp.concat(parts, axis=0), ones], axis=1)

    def lift_coef(self, coef: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (k, d) and intercepts (k,) by the features, from (r or r + 1, k)."""
        lifted = np.ascontiguousarray((self.basis @ coef[: self.rank]).T)
        if not self.fit_intercept:
            return lifted, np.zeros(len(lifted))
        return lifted, coef[self.rank] - lifted @ self.center
