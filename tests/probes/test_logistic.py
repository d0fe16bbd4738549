"""Log-losses are scipy's, and so are their derivatives, however far scores are apart."""

import numpy as np
import pytest
from scipy.special import log_softmax

from featx.probes._logistic import curvatures, log_probabilities, losses_and_residuals


def drawn(n_classes, scale, dtype):
    rng = np.random.default_rng(0)
    scores = (scale * rng.normal(size=(50, 3, n_classes))).astype(dtype)
    classes = rng.integers(0, max(2, n_classes), 50)
    return scores, classes, (classes[:, None] == np.arange(max(2, n_classes))).astype(dtype)


def all_scores(scores):
    """Give two classes a score each."""
    return np.concatenate([0 * scores, scores], axis=2) if scores.shape[2] == 1 else scores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
@pytest.mark.parametrize("n_classes", [1, 2, 7])
def test_losses_and_residuals_are_those_of_scipy(n_classes, scale, dtype):
    scores, classes, is_own = drawn(n_classes, scale, dtype)
    logs = log_softmax(all_scores(scores.astype(np.float64)), axis=2)
    columns = slice(1, 2) if n_classes == 1 else slice(None)
    losses, residuals = losses_and_residuals(scores.copy(), is_own[:, columns])
    expected = -np.take_along_axis(logs, classes[:, None, None], axis=2)[:, :, 0]
    # Scores beyond 60 count as 60 for two classes: e to the power of -60 is nothing.
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-7)
    shares = (np.exp(logs) - is_own[:, None, :])[:, :, columns]
    np.testing.assert_allclose(residuals, shares, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_classes", [1, 4])
def test_curvatures_are_the_change_of_residuals(n_classes):
    scores, _, is_own = drawn(n_classes, 1.0, np.float64)
    is_own = is_own[:, -n_classes:]
    weights = np.random.default_rng(1).uniform(0.5, 2, (50, 3))
    residuals = losses_and_residuals(scores.copy(), is_own)[1]
    found = curvatures(residuals, is_own, weights)
    for column in range(n_classes):
        step = np.zeros_like(scores)
        step[:, :, column] = 1e-6
        change = (losses_and_residuals(scores + step, is_own)[1] - residuals) / 1e-6
        expected = np.einsum("mfk,mf->fk", change, weights)
        np.testing.assert_allclose(found[:, column], expected, rtol=1e-4, atol=1e-4)


def test_log_probabilities_are_those_of_scipy():
    scores = 100 * np.random.default_rng(0).normal(size=(20, 5))
    np.testing.assert_allclose(log_probabilities(scores), log_softmax(scores, axis=1), atol=1e-12)
    two = np.column_stack([np.zeros(20), scores[:, 0]])
    np.testing.assert_allclose(
        log_probabilities(scores[:, 0]), log_softmax(two, axis=1), atol=1e-12
    )
