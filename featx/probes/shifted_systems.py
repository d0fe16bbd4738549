"""Linear systems that differ by a multiple of the identity, for many multiples.

A symmetric matrix is brought to tridiagonal form once (Golub and Van Loan 2013, "Matrix
Computations", 4th edition, section 8.3.1); there a system of any multiple costs a sweep over the
diagonal, and the way back one product for all. It is the way of Eldén (1977), "Algorithms for the
regularization of ill-conditioned least squares problems", with the matrix in place of its root. It
costs half of an eigendecomposition, which is the way where a multiple is lost in rounding.

Numpy and scipy each bring a BLAS with threads of its own, and those of the one go on spinning for a
tenth of a second after their work: a decomposition by scipy's after a product by numpy's takes
twice as long (160 ms instead of 72, 1,280 columns, 2 cores, 2026-11). So large products between
decompositions are scipy's, too.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.linalg import blas, lapack

from featx.blas import blas_threads_for

_LAPACK_BLOCK = 64  # columns; more work space brings nothing
_WORK = 16  # times what a product of its size takes: threads pay from 512 rows on
_SMALL = 3  # rows, below which there is nothing to bring to tridiagonal form


def product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Multiply two matrices with scipy's BLAS.

    Parameters
    ----------
    left : ndarray of shape (m, k)
    right : ndarray of shape (k, n)
        Both are copied if they are not C-contiguous, and unless both are float32 or float64.

    Returns
    -------
    ndarray of shape (m, n), C-contiguous, float64, or float32 if both are

    Examples
    --------
    >>> product(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """
    are_single = left.dtype == right.dtype == np.float32
    gemm = blas.sgemm if are_single else blas.dgemm
    return gemm(1.0, right.T, left.T).T


class ShiftedSystems:
    """Solves ``(A + alpha * I) Z = B`` for many alphas.

    Parameters
    ----------
    matrix : ndarray of shape (n, n), float64
        A, symmetric, without negative eigenvalues but by rounding; its lower triangle is read.
    right : ndarray of shape (n, t), float64
        B.

    Examples
    --------
    >>> systems = ShiftedSystems(np.diag([1.0, 2.0, 3.0]), np.ones((3, 1)))
    >>> systems.at(np.array([1.0])).ravel().round(3)
    array([0.5  , 0.333, 0.25 ])
    """

    def __init__(self, matrix: np.ndarray, right: np.ndarray) -> None:
        self._matrix, self._right = matrix, right
        if len(matrix) < _SMALL:
            return
        with blas_threads_for(_WORK * matrix.nbytes):
            packed, self._diagonal, self._beside, self._taus, _ = lapack.dsytrd(
                matrix, lower=1, lwork=_LAPACK_BLOCK * len(matrix)
            )
        self._reflectors = np.asfortranarray(packed[1:, :-1])
        self._turned = self._reflected(right, "T")

    def at(self, alphas: np.ndarray) -> np.ndarray:
        """Solve for some alphas over 0.

        Parameters
        ----------
        alphas : ndarray of shape (n_alphas,)

        Returns
        -------
        ndarray of shape (n, n_alphas, t), float64
        """
        if len(self._matrix) < _SMALL:
            return self._by_eigenvalues(alphas)
        size = np.abs(self._diagonal).max() + 2 * np.abs(self._beside).max()
        least = 8 * np.finfo(np.float64).eps * size
        n_targets = self._right.shape[1]
        solved = np.empty((len(self._matrix), len(alphas) * n_targets), order="F")
        is_lost = np.zeros(len(alphas), bool)
        for number, alpha in enumerate(alphas):
            pivots, factors, fault = lapack.dpttrf(self._diagonal + alpha, self._beside)
            columns = slice(number * n_targets, (number + 1) * n_targets)
            is_lost[number] = fault or not pivots.min() >= least  # NaN is lost, too
            solved[:, columns] = (
                0 if is_lost[number] else lapack.dpttrs(pivots, factors, self._turned)[0]
            )
        found = self._reflected(solved, "N").reshape(len(solved), len(alphas), n_targets)
        if is_lost.any():
            found[:, is_lost] = self._by_eigenvalues(alphas[is_lost])
        return found

    def _reflected(self, columns: np.ndarray, transposed: str) -> np.ndarray:
        """Turn columns into the basis of the tridiagonal form ("T") or back ("N")."""
        reflected = np.asfortranarray(columns)
        lwork = _LAPACK_BLOCK * max(1, columns.shape[1])
        below, _, _ = lapack.dormqr(
            "L", transposed, self._reflectors, self._taus, reflected[1:], lwork
        )
        return np.concatenate([reflected[:1], below])

    def _by_eigenvalues(self, alphas: np.ndarray) -> np.ndarray:
        values, vectors = self._eigen
        products = vectors.T @ self._right
        shrunk = products[:, np.newaxis] / (values[:, np.newaxis] + alphas)[..., np.newaxis]
        return (vectors @ shrunk.reshape(len(shrunk), -1)).reshape(shrunk.shape)

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = np.linalg.eigh(self._matrix)
        return np.maximum(values, 0), vectors
