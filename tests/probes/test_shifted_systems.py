"""Systems that differ by a multiple of the identity are solved as each of them would be alone."""

import numpy as np
import pytest

from featx.probes._ridge_solver import ShiftedSystems


def gram_matrix(n_rows, n_columns):
    rows = np.random.default_rng(0).normal(size=(n_rows, n_columns))
    return rows.T @ rows


@pytest.mark.parametrize("size", [1, 2, 3, 4, 40, 200])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_at_solves_each_system(size, n_targets):
    matrix = gram_matrix(2 * size, size)
    right = np.random.default_rng(1).normal(size=(size, n_targets))
    alphas = np.logspace(-6, 5, 7)
    solved = ShiftedSystems(np.tril(matrix), right).at(alphas)
    assert solved.shape == (size, 7, n_targets)
    for number, alpha in enumerate(alphas):
        expected = np.linalg.solve(matrix + alpha * np.eye(size), right)
        np.testing.assert_allclose(solved[:, number], expected, rtol=1e-9, atol=1e-12)


def test_at_features_that_are_dead_or_repeat_one_another():
    matrix = gram_matrix(50, 20)
    matrix[:, 3] = matrix[3] = 0
    matrix[:, 7], matrix[7] = matrix[:, 8], matrix[8]
    matrix[7, 7] = matrix[8, 8]
    right = matrix @ np.ones((20, 1))
    solved = ShiftedSystems(matrix, right).at(np.array([1e-6, 1.0]))
    np.testing.assert_allclose(matrix @ solved[:, 0], right, rtol=1e-6, atol=1e-9)
    expected = np.linalg.solve(matrix + np.eye(20), right)
    np.testing.assert_allclose(solved[:, 1], expected, rtol=1e-9, atol=1e-12)


def test_at_alpha_that_is_lost_in_rounding_is_solved_by_eigenvalues():
    values = np.r_[np.full(10, -1e-4), np.logspace(0, 12, 30)]  # rounding of 1e12 may be so large
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))[0]
    matrix, right = (basis * values) @ basis.T, np.ones((40, 1))
    alphas = np.array([2e-4, 1e3])
    solved = ShiftedSystems(matrix, right).at(alphas)
    found, vectors = np.linalg.eigh(matrix)
    for number, alpha in enumerate(alphas):
        shares = vectors.T @ right / (np.maximum(found, 0) + alpha)[:, np.newaxis]
        np.testing.assert_allclose(solved[:, number], vectors @ shares, rtol=1e-3)


def test_at_nan_stays_nan():
    matrix = gram_matrix(20, 5)
    matrix[2, 1] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        ShiftedSystems(matrix, np.ones((5, 1))).at(np.ones(1))
