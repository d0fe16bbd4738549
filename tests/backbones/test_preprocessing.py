"""Pixels are scaled as Keras scales them for each network."""

import keras
import numpy as np
import pytest

from featx.backbones.registry import NETWORKS, preprocess

MODULES = [
    "vgg16",
    "vgg19",
    "resnet",
    "resnet_v2",
    "inception_v3",
    "inception_resnet_v2",
    "xception",
    "mobilenet",
    "mobilenet_v2",
    "densenet",
    "nasnet",
    "efficientnet",
    "efficientnet_v2",
    "convnext",
]


def module_of(network):
    """Find the public module of Keras whose `preprocess_input` belongs to a network."""
    if network.constructor.startswith("MobileNetV3"):
        return keras.applications.mobilenet_v3
    modules = [getattr(keras.applications, name) for name in MODULES]
    return next(module for module in modules if hasattr(module, network.constructor))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)


def scaled(pixels, preprocessing):
    inputs = keras.Input(pixels.shape[1:], dtype=pixels.dtype.name)
    return keras.Model(inputs, preprocess(inputs, preprocessing))(pixels).numpy()


@pytest.mark.parametrize("network", NETWORKS[1:], ids=lambda network: network.name)
def test_preprocess_equals_that_of_keras(network, pixels):
    """V3 MobileNets, EfficientNets and ConvNeXts are given raw pixels, as Keras does."""
    expected = module_of(network).preprocess_input(pixels.astype(np.float32))
    np.testing.assert_allclose(scaled(pixels, network.preprocessing), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_preprocess_unit_and_none(dtype, pixels):
    given = pixels.astype(dtype)
    np.testing.assert_allclose(scaled(given, "unit"), pixels / 255, atol=1e-6)
    np.testing.assert_array_equal(scaled(given, None), pixels.astype(np.float32))


def test_preprocess_layer_is_given_float32(pixels):
    halved = scaled(pixels, keras.layers.Rescaling(0.5))
    np.testing.assert_allclose(halved, pixels * 0.5)
