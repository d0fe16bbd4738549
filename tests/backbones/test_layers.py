"""Layers found by name in the graph of a model, nested, shared and repeated ones included."""

import keras
import numpy as np
import pytest

from featx import FeatureExtractor
from featx.backbones.layers import find_layer_output
from featx.exceptions import BackboneError, ParameterError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def base():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="low", activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(8, 3, name="high")(x), name="base")


@pytest.fixture
def whole(base):
    """The usual model for transfer learning: a model inside a model."""
    inputs = keras.Input((16, 16, 3))
    x = base(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="logits")(x), name="whole")


def embed(model, images, layer, **options):
    return FeatureExtractor(model, layer=layer, **options).fit_transform(images)


def test_layer_output_of_nested_model_is_found(base, whole, images):
    alone = embed(base, images, None, preprocessing="tf")
    np.testing.assert_allclose(embed(whole, images, "base"), alone, rtol=1e-5)
    np.testing.assert_allclose(embed(whole, images, "base/high"), alone, rtol=1e-5)
    np.testing.assert_allclose(embed(whole, images, "pool"), alone, rtol=1e-5)


def test_layer_output_in_nested_model_takes_inputs(base, whole, images):
    alone = embed(base, images, "low", preprocessing="tf")
    np.testing.assert_allclose(embed(whole, images, "base/low"), alone, rtol=1e-5)


def test_layer_output_inside_sequential_is_found(base, images):
    model = keras.Sequential([keras.Input((16, 16, 3)), base, keras.layers.ReLU(name="last")])
    np.testing.assert_allclose(embed(model, images, "base"), embed(base, images, None), rtol=1e-5)


def test_layer_output_survives_a_keras_file(whole, images, tmp_path):
    whole.save(tmp_path / "whole.keras")
    from_file = embed(tmp_path / "whole.keras", images, "base/low")
    np.testing.assert_allclose(from_file, embed(whole, images, "base/low"), rtol=1e-5)


def test_layer_output_shared_layer_uses_call_here(images):
    inputs, shared = keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 1, name="shared")
    keras.Model(inputs, shared(inputs))
    negated = keras.Model(inputs, keras.layers.ReLU()(shared(keras.ops.negative(inputs))))
    expected = shared(-images.astype("float32")).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(embed(negated, images, "shared"), expected, rtol=1e-5)


def test_find_layer_output_called_twice_raises():
    inputs, twice = keras.Input((4,)), keras.layers.Dense(4, name="twice")
    model = keras.Model(inputs, twice(twice(inputs)))
    with pytest.raises(ParameterError, match="m calls this layer 2 times"):
        find_layer_output(model, "twice", label="m")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hgh", "has no layer of this name"),
        ("high", "Did you mean 'base/high'"),
        ("base/hihg", "whole has no layer of this name. Did you mean 'base/high'"),
        ("pool/x", "has no layer"),
    ],
)
def test_find_layer_output_unknown_suggests_names(name, hint, whole):
    with pytest.raises(ParameterError, match=hint):
        find_layer_output(whole, name, label="whole")


def test_embed_several_outputs_need_a_layer(images):
    inputs = keras.Input((16, 16, 3))
    one, two = (keras.layers.Conv2D(n, 1, name=f"conv{n}")(inputs) for n in (2, 3))
    model = keras.Model(inputs, [one, two])
    with pytest.raises(BackboneError, match="has 2 outputs: name the layer"):
        embed(model, images, None)
    assert embed(model, images, "conv3").shape == (3, 3)
