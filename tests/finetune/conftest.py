"""Digits, networks and caches to fine-tune with."""

import keras
import pytest
from sample_digits import first_digits

from featx import EmbeddingCache


@pytest.fixture(scope="module")
def digits():
    return first_digits(160, n_classes=4)


@pytest.fixture(scope="module")
def few_digits():
    return first_digits(80, n_classes=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return the cache that the tests of a module share."""
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def empty_cache(tmp_path):
    return EmbeddingCache(tmp_path / "cache")


@pytest.fixture
def network():
    """Return three blocks, with all layers that behave differently in training."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for number in range(3):
        y = keras.layers.Conv2D(6, 3, padding="same", name=f"conv_{number}")(x)
        y = keras.layers.BatchNormalization(name=f"norm_{number}")(y)
        y = keras.layers.Dropout(0.3)(keras.layers.ReLU()(y))
        x = keras.layers.Add()([x, y]) if number else y
    return keras.Model(inputs, x)
