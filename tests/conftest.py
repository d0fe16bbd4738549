"""The environment of all tests, and images that several files share."""

import os

import numpy as np
import pytest

# TensorFlow switches oneDNN on by itself on CPUs with AVX-512 only. Without it, it computes no
# channels-first convolution on a CPU, which some tests need, and rounds otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


@pytest.fixture
def images():
    """Light and dark noise: two classes that any head separates."""
    noise = np.random.default_rng(0).integers(0, 128, (20, 64, 64, 3), dtype=np.uint8)
    noise[::2] += 127
    return noise


@pytest.fixture
def labels():
    return np.array(["light", "dark"] * 10)
