"""Rows whose features are uncorrelated, which have the same optimum under a squared penalty."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np

from featx.probes.arrays import cast, is_foreign, like, namespace, precision, to_numpy
from featx.probes.streaming import in_blocks, is_streamed, weighted_mean
from featx.probes.turned_rows import StreamedRows, TurnedRows

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

    def rows(self, X: np.ndarray, dtype: np.dtype) -> TurnedRows:
        """Return the new features (n, r), with an intercept (n, r + 1), of rows."""
        if is_streamed(X):
            return StreamedRows(X, self.center, self.basis, fit_intercept=self.fit_intercept)
        rank = self.basis.shape[1]
        if is_foreign(X):
            return TurnedRows(self._foreign_rows(X, dtype))
        rows = np.ones((len(X), rank + self.fit_intercept), dtype)
        basis = self.basis.astype(dtype)
        for start in range(0, len(X), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            rows[part, :rank] = (X[part] - self.center).astype(dtype) @ basis
        return TurnedRows(rows)

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
