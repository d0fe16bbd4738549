"""Paired comparison of two classifiers: the test and the interval agree with the literature."""

import numpy as np
import pytest
from scipy.stats import binom

from featx.evaluation.paired import compare_paired


def right_and_wrong(both, this, first, neither):
    """Return which samples each of two classifiers gets right."""
    counts = (both, this, first, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([1, 0, 1, 0], counts) == 1


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # Newcombe 1998, table II, method 10
        ((20, 12, 2, 16), (0.0562, 0.3292)),
    ],
)
def test_compare_paired_interval_is_newcombes(counts, interval):
    assert compare_paired(*right_and_wrong(*counts))["interval"] == pytest.approx(
        interval, abs=2e-4
    )


def test_compare_paired_p_value_is_exact():
    found = compare_paired(*right_and_wrong(50, 9, 1, 40))
    assert found["p_value"] == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert (found["n_only_this"], found["n_only_first"]) == (9, 1)
    assert found["difference"] == pytest.approx(0.08)


@pytest.mark.parametrize("counts", [(9, 0, 0, 0), (0, 0, 0, 9), (5, 0, 0, 4)])
def test_compare_paired_same_answers_differ_not(counts):
    found = compare_paired(*right_and_wrong(*counts))
    assert (found["difference"], found["p_value"]) == (0, 1)
    low, high = found["interval"]
    assert -0.5 < low <= 0 <= high < 0.5
