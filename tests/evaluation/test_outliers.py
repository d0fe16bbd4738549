"""Samples far from all others are outliers."""

import numpy as np
import pytest

from featx.evaluation.outliers import find_outliers


def clusters():
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.standard_normal((40, 30)) + 3 * rng.standard_normal(30) for _ in "ab"]
    )


def test_outliers_foreign_rows_are_found():
    X = clusters()
    assert find_outliers(X)[1].tolist() == []
    rng = np.random.default_rng(1)
    X[[5, 60]] = 5 * rng.standard_normal((2, 30))
    scores, rows = find_outliers(X)
    assert sorted(rows.tolist()) == [5, 60]
    assert scores[rows[0]] >= scores[rows[1]] > 3.5
    assert np.median(scores) == pytest.approx(0, abs=0.05)


def test_outliers_of_few_samples_are_none():
    X = clusters()[:29]
    X[5] *= -1
    assert find_outliers(X)[1].tolist() == []


@pytest.mark.parametrize("X", [np.ones((1, 4)), np.ones((40, 4)), np.eye(40)])
def test_outliers_equally_far_rows_are_none(X):
    scores, rows = find_outliers(X)
    assert scores.tolist() == [0] * len(X)
    assert len(rows) == 0
