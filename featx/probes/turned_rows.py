"""Rows as the losses see them, centred and turned: in memory, or read whenever they are needed.

Rows that do not fit in memory are not turned, but only centred: it is the coefficients and the
gradients that are turned, of which there are few.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.probes.arrays import like, take


class TurnedRows:
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

    def inward(self, points: np.ndarray, dtype: np.dtype) -> Any:
        """Turn coefficients (p, m) into those that multiply the rows, and move them there."""
        return self.like(points, dtype)

    def outward(self, gradients: np.ndarray) -> np.ndarray:
        """Turn derivatives by those back into derivatives by the coefficients."""
        return gradients

    def scores(self, some: Any, coefs: Any) -> Any:
        """Multiply some of the rows with coefficients that were turned: (n_some, m)."""
        return some @ coefs

    def gradient(self, some: Any, residuals: Any) -> Any:
        """Return the derivatives by such coefficients, from those by the scores."""
        return some.T @ residuals


class StreamedRows(TurnedRows):
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

    def inward(self, points: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Turn coefficients; the last are the intercepts."""
        rank = self._basis.shape[1]
        return self.like(np.concatenate([self._basis @ points[:rank], points[rank:]]), dtype)

    def outward(self, gradients: np.ndarray) -> np.ndarray:
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
