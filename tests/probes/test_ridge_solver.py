"""Moments add up over parts of the data, and shifted systems are solved as one by one."""

import tracemalloc

import numpy as np
import pytest

from featx.probes._ridge_solver import Moments, ShiftedSystems


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


def test_at_dead_or_equal_features_are_solved():
    matrix = gram_matrix(50, 20)
    matrix[:, 3] = matrix[3] = 0
    matrix[:, 7], matrix[7] = matrix[:, 8], matrix[8]
    matrix[7, 7] = matrix[8, 8]
    right = matrix @ np.ones((20, 1))
    solved = ShiftedSystems(matrix, right).at(np.array([1e-6, 1.0]))
    np.testing.assert_allclose(matrix @ solved[:, 0], right, rtol=1e-6, atol=1e-9)
    expected = np.linalg.solve(matrix + np.eye(20), right)
    np.testing.assert_allclose(solved[:, 1], expected, rtol=1e-9, atol=1e-12)


def test_at_tiny_alpha_is_solved_by_eigenvalues():
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


def test_moments_of_the_parts_add_up(monkeypatch):
    monkeypatch.setattr("featx.probes._ridge_solver._ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    X, Y, weights = rng.normal(size=(30, 4)), rng.normal(size=(30, 2)), rng.random(30)
    some, others = np.arange(11), np.arange(11, 30)
    whole = Moments.of(X, Y, weights, np.arange(30))
    parts = [Moments.of(X, Y, weights, rows) for rows in (some, others)]
    for total in (parts[0] + parts[1], whole):
        np.testing.assert_allclose(np.tril(total.xx), np.tril(X.T @ (X * weights[:, np.newaxis])))
        np.testing.assert_allclose(total.xy, X.T @ (Y * weights[:, np.newaxis]))
        np.testing.assert_allclose(total.x, weights @ X)
        np.testing.assert_allclose(total.weight, weights.sum())
        np.testing.assert_allclose(total.y, weights @ Y)
    np.testing.assert_allclose((whole - parts[0]).xx, parts[1].xx)
    np.testing.assert_allclose((whole - parts[0]).centered()[0], parts[1].centered()[0])


def test_moments_of_many_targets_stay_small():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2000))
    tracemalloc.start()
    moments = Moments.of(X, Y, np.ones(30), np.arange(30))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * Y.nbytes
    np.testing.assert_allclose(moments.xy, X.T @ Y)
