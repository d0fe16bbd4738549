"""Rows as the losses see them, centred and turned: in memory, or read whenever they are needed.

Rows that do not fit in memory are not turned, but only centred: it is the coefficients and the
gradients that are turned, of which there are few.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np

from featx.probes._arrays import (
    cast,
    in_blocks,
    is_foreign,
    is_streamed,
    like,
    namespace,
    precision,
    take,
    to_numpy,
    weighted_mean,
)


class ProjectedRows:
    """Rows of new features, in memory.

    Parameters
    ----------
    rows : array of shape (n, p)
        With a last column of ones if there is an intercept. Of numpy, or of another library.

    Attributes
    ----------
    n_columns : int
        How many new features there are, p.
    is_foreign : bool
        Whether they are in memory as an array of another library than numpy.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows
        self.n_columns: int = rows.shape[1]
        self.is_foreign = not isinstance(rows, np.ndarray)

    def __len__(self) -> int:
        return self._rows.shape[0]

    def __getitem__(self, rows: slice) -> Any:
        return self._rows[rows, :]

    def take(self, rows: np.ndarray) -> Any:
        """Return rows by their numbers."""
        return take(self._rows, rows)

    def like(self, array: np.ndarray, dtype: np.dtype | None = None) -> Any:
        """Move an array to where the rows are."""
        return like(array, self._rows, dtype)

    def project_coef(self, points: np.ndarray, dtype: np.dtype) -> Any:
        """Turn coefficients (p, m) into those that multiply the rows, and move them there."""
        return self.like(points, dtype)

    def lift_gradient(self, gradients: np.ndarray) -> np.ndarray:
        """Turn derivatives by those back into derivatives by the coefficients."""
        return gradients

    def scores(self, some: Any, coefs: Any) -> Any:
        """Multiply some of the rows with coefficients that were turned: (n_some, m)."""
        return some @ coefs

    def gradient(self, some: Any, residuals: Any) -> Any:
        """Return the derivatives by such coefficients, from those by the scores."""
        return some.T @ residuals


class LazyProjectedRows(ProjectedRows):
    """Rows of a view, read and centred whenever they are asked for.

    Parameters
    ----------
    X : view of shape (n, d)
    center : ndarray of shape (d,)
    basis : ndarray of shape (d, r)
    fit_intercept : bool
    """

    def __init__(
        self, X: Any, center: np.ndarray, basis: np.ndarray, *, fit_intercept: bool
    ) -> None:
        self._rows, self._center = X, center.astype(X.dtype)
        self._basis, self._fit_intercept = basis, fit_intercept
        self.n_columns, self.is_foreign = basis.shape[1] + fit_intercept, False

    def __getitem__(self, rows: Any) -> np.ndarray:
        read = self._rows[rows]
        read -= self._center  # which changes an array of its own
        return read

    def like(self, array: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
        """Return an array, of another dtype if one is given: the rows are read into memory."""
        return array if dtype is None else array.astype(dtype, copy=False)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows by their numbers."""
        return self[rows]

    def project_coef(self, points: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Turn coefficients; the last are the intercepts."""
        rank = self._basis.shape[1]
        return self.like(np.concatenate([self._basis @ points[:rank], points[rank:]]), dtype)

    def lift_gradient(self, gradients: np.ndarray) -> np.ndarray:
        """Turn derivatives; the last are by the intercepts."""
        n_features = len(self._basis)
        return np.concatenate([self._basis.T @ gradients[:n_features], gradients[n_features:]])

    def scores(self, some: np.ndarray, coefs: np.ndarray) -> np.ndarray:
        """Multiply, and add the intercepts."""
        n_features = len(self._basis)
        scores = some @ coefs[:n_features]
        return scores + coefs[n_features] if self._fit_intercept else scores

    def gradient(self, some: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Return the derivatives by coefficients, and by intercepts."""
        by_coefs = some.T @ residuals
        if not self._fit_intercept:
            return by_coefs
        return np.concatenate([by_coefs, residuals.sum(axis=0, keepdims=True)])


_ROWS_AT_ONCE = 2048
_DOUBLE = np.dtype(np.float64)


class Rotation(NamedTuple):
    """Centres rows and turns them so that their features are uncorrelated, about.

    Attributes
    ----------
    basis : ndarray of shape (d, r), float64
        Orthonormal; r is d, or the number of rows where these are fewer.
    center : ndarray of shape (d,), float64
        Zero without an intercept.
    spreads : ndarray of shape (r,) or (r + 1,), float64
        Sums of squares of the new features.
    fit_intercept : bool
        Whether rows get a last column of ones.
    """

    basis: np.ndarray
    center: np.ndarray
    spreads: np.ndarray
    fit_intercept: bool

    @classmethod
    def of(cls, X: np.ndarray, weights: np.ndarray, *, fit_intercept: bool) -> Self:
        """Find the rotation of some rows.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        weights : ndarray of shape (n,)
        fit_intercept : bool
        """
        center = np.zeros(X.shape[1])
        if fit_intercept:
            center = weighted_mean(X, weights)
        if X.shape[0] <= X.shape[1]:  # which is no view, and of numpy
            _, lengths, turned = np.linalg.svd(X - center, full_matrices=False)
            basis, spreads = turned.T, lengths**2
        else:
            gram = np.zeros((X.shape[1], X.shape[1]))
            for _, rows in in_blocks(X):
                part = rows - like(center, rows, precision(rows))
                gram += to_numpy(part.T @ part)
            spreads, basis = np.linalg.eigh(gram)
        if fit_intercept:
            spreads = np.append(spreads, X.shape[0])
        return cls(basis, center, np.maximum(spreads, 0), fit_intercept)

    def rows(self, X: np.ndarray, dtype: np.dtype) -> ProjectedRows:
        """Return the new features (n, r), with an intercept (n, r + 1), of rows."""
        if is_streamed(X):
            return LazyProjectedRows(X, self.center, self.basis, fit_intercept=self.fit_intercept)
        rank = self.basis.shape[1]
        if is_foreign(X):
            return ProjectedRows(self._foreign_rows(X, dtype))
        rows = np.ones((len(X), rank + self.fit_intercept), dtype)
        basis = self.basis.astype(dtype)
        for start in range(0, len(X), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows[part, :rank] = (X[part] - self.center).astype(dtype) @ basis
        return ProjectedRows(rows)

    def _foreign_rows(self, X: Any, dtype: np.dtype) -> Any:
        xp, basis = namespace(X), like(self.basis, X, dtype)
        center = like(self.center, X)
        parts = [cast(cast(rows, _DOUBLE) - center, dtype) @ basis for _, rows in in_blocks(X)]
        ones = like(np.ones((X.shape[0], int(self.fit_intercept))), X, dtype)
        return xp.concat([xp.concat(parts, axis=0), ones], axis=1)

    def coefficients(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn what was found for the new features, (r or r + 1, k), back.

        Returns
        -------
        coef : ndarray of shape (k, d)
        intercept : ndarray of shape (k,)
        """
        rank = self.basis.shape[1]
        coef = np.ascontiguousarray((self.basis @ point[:rank]).T)
        if not self.fit_intercept:
            return coef, np.zeros(len(coef))
        return coef, point[rank] - coef @ self.center
