"""Rewritten graphs give the same numbers, and change nothing of what they were made from."""

import keras
import numpy as np
import pytest
from keras import layers
from sample_networks import FAMILIES, difference, family, pixels, transformer, with_statistics

from featx.engines.rewriting import rewritten
from featx.identity.digests import graph_digest


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params", "size"), FAMILIES)
def test_rewritten_family_gives_the_same_embeddings(name, params, size):
    model = family(name, params, size)
    images = pixels((size, size, 3))
    assert difference(np.asarray(rewritten(model)(images)), np.asarray(model(images))) < 1e-4


def test_rewritten_transformer_gives_the_same_embeddings():
    model = transformer()
    images = pixels((32, 32, 3))
    assert difference(np.asarray(rewritten(model)(images)), np.asarray(model(images))) < 1e-5


LINEAR = {
    "conv": lambda: layers.Conv2D(6, 3, padding="same"),
    "conv without bias": lambda: layers.Conv2D(6, 3, strides=2, use_bias=False),
    "dilated": lambda: layers.Conv2D(6, 3, dilation_rate=2),
    "grouped": lambda: layers.Conv2D(8, 3, groups=2),
    "a group for each channel": lambda: layers.Conv2D(8, 3, groups=4, padding="same"),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=3),
    "separable": lambda: layers.SeparableConv2D(6, 3, depth_multiplier=2, use_bias=False),
    "dense": lambda: layers.Dense(5),
}


@pytest.mark.parametrize("name", LINEAR)
def test_rewritten_normalisation_is_folded(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 4))
    x = layers.BatchNormalization()(LINEAR[name]()(inputs))
    model = with_statistics(keras.Model(inputs, layers.Activation("silu")(x)))
    before = graph_digest(model)
    new = rewritten(model)
    images = np.random.default_rng(1).normal(size=(2, 9, 9, 4)).astype(np.float32)
    expected = np.asarray(model(images))
    np.testing.assert_allclose(new(images), expected, rtol=1e-4, atol=1e-5)
    # Were it not folded, it would still do what its weights say.
    model.layers[2].gamma.assign(0 * model.layers[2].gamma)
    np.testing.assert_allclose(new(images), expected, rtol=1e-4, atol=1e-5)
    assert graph_digest(model) != before


def branching(read_before):
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(4, 3)(inputs)
    normed = layers.BatchNormalization()(conv)
    return keras.Model(inputs, normed + conv if read_before == "inside" else [normed, conv])


@pytest.mark.parametrize("read_before", ["inside", "as an output"])
def test_rewritten_layer_that_others_read_is_not_folded(read_before):
    model = with_statistics(branching(read_before))
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    new, old = rewritten(model)(images), model(images)
    for rows, expected in zip(keras.tree.flatten(new), keras.tree.flatten(old), strict=True):
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_rewritten_layer_called_twice_is_folded_for_each_call():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same")
    once = layers.BatchNormalization()(conv(inputs))
    model = with_statistics(keras.Model(inputs, layers.BatchNormalization()(conv(once))))
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(rewritten(model)(images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu", None])
def test_rewritten_activations_are_the_same(activation):
    inputs = keras.Input((40,))
    model = keras.Model(inputs, layers.Activation(activation)(inputs))
    values = np.linspace(-12, 12, 80, dtype=np.float32).reshape(2, 40)
    np.testing.assert_allclose(rewritten(model)(values), model(values), rtol=1e-5, atol=1e-6)


def test_rewritten_approximate_gelu_stays_approximate():
    inputs = keras.Input((40,))
    rough = layers.Lambda(lambda x: keras.activations.gelu(x, approximate=True))
    model = keras.Model(inputs, rough(inputs))
    values = np.linspace(-3, 3, 80, dtype=np.float32).reshape(2, 40)
    np.testing.assert_array_equal(rewritten(model)(values), model(values))


def test_rewritten_masks_are_kept():
    inputs = keras.Input((6, 3))
    x = layers.Dense(4)(layers.Masking()(inputs))
    x = layers.BatchNormalization()(x)
    model = with_statistics(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    steps = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    steps[:, 4:] = 0
    np.testing.assert_allclose(rewritten(model)(steps), model(steps), rtol=1e-5, atol=1e-6)


def test_rewritten_shares_the_weights_that_are_not_folded():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    new = rewritten(model)
    model.layers[1].kernel.assign(0 * model.layers[1].kernel + 2)
    values = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(new(values), model(values))


def test_rewritten_changes_nothing_of_the_model():
    model = family("MobileNetV2", {"alpha": 0.35}, 32)
    before = graph_digest(model), [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    images = pixels((32, 32, 3))
    expected = np.asarray(model(images))
    rewritten(model)(images)
    after = graph_digest(model), [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert after == before
    np.testing.assert_array_equal(model(images), expected)


def test_rewritten_call_that_was_recorded_in_training_mode_is_inference():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dense(4)(inputs), training=True)
    model = with_statistics(keras.Model(inputs, layers.Dropout(0.5)(x)))
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = model(values, training=False)
    rows = rewritten(model)(values, training=False)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)
