"""Fixtures of the tests of heads."""

import numpy as np
import pytest


@pytest.fixture
def data():
    """Return samples of two classes that are far apart."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    return rng.normal(size=(40, 5)) + 2 * y[:, np.newaxis], y
