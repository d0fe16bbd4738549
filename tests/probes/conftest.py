"""Fixtures of the tests of probes."""

import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture(scope="module")
def digits():
    """Return 600 digits, and their classes as strings."""
    X, y = load_digits(return_X_y=True)
    return X[:600], np.array(list("abcdefghij"))[y[:600]]
