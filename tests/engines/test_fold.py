"""Rewritten graphs give the same numbers, and change nothing of what they were made from."""

import random

import keras
import numpy as np
import pytest
from keras import layers
from sample_networks import FAMILIES, difference, family, pixels, transformer, with_statistics

from featx.digests.keras_graph import graph_digest
from featx.engines.fold import rewritten_for_inference

# Large ones, and those whose blocks are like another's.
LONG = (
    *("DenseNet121", "EfficientNetB0", "InceptionResNetV2", "InceptionV3"),
    *("MobileNetV2", "NASNetMobile", "ResNet50"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "params", "size"),
    [pytest.param(*each, marks=pytest.mark.long if each[0] in LONG else ()) for each in FAMILIES],
)
def test_rewritten_family_gives_the_same_embeddings(name, params, size):
    model = family(name, params, size)
    images = pixels((size, size, 3))
    assert (
        difference(np.asarray(rewritten_for_inference(model)(images)), np.asarray(model(images)))
        < 1e-4
    )


def test_rewritten_transformer_gives_the_same_embeddings():
    model = transformer()
    images = pixels((32, 32, 3))
    assert (
        difference(np.asarray(rewritten_for_inference(model)(images)), np.asarray(model(images)))
        < 1e-5
    )


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
def test_rewritten_normalization_is_folded(name):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 4))
    x = layers.BatchNormalization()(LINEAR[name]()(inputs))
    model = with_statistics(keras.Model(inputs, layers.Activation("silu")(x)))
    before = graph_digest(model)
    new = rewritten_for_inference(model)
    images = np.random.default_rng(1).normal(size=(2, 9, 9, 4)).astype(np.float32)
    expected = np.asarray(model(images))
    np.testing.assert_allclose(new(images), expected, rtol=1e-4, atol=1e-5)
    # Were it not folded, it would still do what its weights say.
    model.layers[2].gamma.assign(0 * model.layers[2].gamma)
    np.testing.assert_allclose(new(images), expected, rtol=1e-4, atol=1e-5)
    assert graph_digest(model) != before


OTHERS = {
    "conv 1d": ((9, 4), lambda: layers.Conv1D(6, 3, padding="causal")),
    "depthwise 1d": ((9, 4), lambda: layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "separable 1d": ((9, 4), lambda: layers.SeparableConv1D(6, 3)),
    "conv 3d": ((5, 5, 5, 4), lambda: layers.Conv3D(6, 3)),
    "conv 3d, a group for each channel": ((5, 5, 5, 4), lambda: layers.Conv3D(4, 3, groups=4)),
    "dense 3d": ((5, 4), lambda: layers.Dense(6)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_rewritten_layers_of_other_ranks_agree(name):
    shape, make = OTHERS[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    model = with_statistics(keras.Model(inputs, layers.BatchNormalization()(make()(inputs))))
    values = np.random.default_rng(1).normal(size=(2, *shape)).astype(np.float32)
    np.testing.assert_allclose(
        rewritten_for_inference(model)(values), model(values), rtol=1e-4, atol=1e-5
    )


def test_rewritten_normalization_of_other_axis_stays():
    inputs = keras.Input((5, 4))
    x = layers.BatchNormalization(axis=1)(layers.Dense(5)(inputs))
    model = with_statistics(keras.Model(inputs, x))
    values = np.random.default_rng(1).normal(size=(2, 5, 4)).astype(np.float32)
    np.testing.assert_allclose(
        rewritten_for_inference(model)(values), model(values), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("conv", "norm"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")]
)
def test_rewritten_mixed_precisions_stay_as_they_are(conv, norm):
    inputs = keras.Input((9, 9, 4))
    x = layers.Conv2D(6, 3, dtype=conv)(inputs)
    x = layers.BatchNormalization(dtype=norm)(x)
    model = with_statistics(keras.Model(inputs, layers.Activation("softmax", dtype="float32")(x)))
    values = np.random.default_rng(1).normal(size=(2, 9, 9, 4)).astype(np.float32)
    rows, expected = rewritten_for_inference(model)(values), model(values)
    assert rows.dtype == expected.dtype
    tolerance = 1e-2 if conv == norm else 1e-5  # folding saves one rounding to 16 bits
    np.testing.assert_allclose(rows, expected, atol=tolerance)


def test_rewritten_layers_called_by_keyword_run():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(inputs=layers.Dense(3)(inputs=inputs))
    model = with_statistics(keras.Model(inputs, layers.Activation("relu")(inputs=x)))
    values = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(
        rewritten_for_inference(model)(values), model(values), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("patched", [0, 1, 2])
def test_rewritten_layer_with_own_call_runs_it(patched):
    inputs = keras.Input((4,))
    parts = [layers.Dense(3), layers.BatchNormalization(), layers.Activation("relu")]
    x = inputs
    for part in parts:
        x = part(x)
    model = with_statistics(keras.Model(inputs, x))
    original = parts[patched].call
    parts[patched].call = lambda x, **kwargs: 7 * original(x, **kwargs)
    values = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    np.testing.assert_allclose(
        rewritten_for_inference(model)(values), model(values), rtol=1e-4, atol=1e-5
    )


def branching(read_before):
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(4, 3)(inputs)
    normed = layers.BatchNormalization()(conv)
    return keras.Model(inputs, normed + conv if read_before == "inside" else [normed, conv])


@pytest.mark.parametrize("read_before", ["inside", "as an output"])
def test_rewritten_layer_with_other_readers_stays(read_before):
    model = with_statistics(branching(read_before))
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    new, old = rewritten_for_inference(model)(images), model(images)
    for rows, expected in zip(keras.tree.flatten(new), keras.tree.flatten(old), strict=True):
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_rewritten_layer_called_twice_folds_twice():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same")
    once = layers.BatchNormalization()(conv(inputs))
    model = with_statistics(keras.Model(inputs, layers.BatchNormalization()(conv(once))))
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(
        rewritten_for_inference(model)(images), model(images), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu", None])
def test_rewritten_activations_are_the_same(activation):
    inputs = keras.Input((40,))
    model = keras.Model(inputs, layers.Activation(activation)(inputs))
    values = np.linspace(-12, 12, 80, dtype=np.float32).reshape(2, 40)
    np.testing.assert_allclose(
        rewritten_for_inference(model)(values), model(values), rtol=1e-5, atol=1e-6
    )


def test_rewritten_approximate_gelu_stays_approximate():
    inputs = keras.Input((40,))
    rough = layers.Lambda(lambda x: keras.activations.gelu(x, approximate=True))
    model = keras.Model(inputs, rough(inputs))
    values = np.linspace(-3, 3, 80, dtype=np.float32).reshape(2, 40)
    np.testing.assert_array_equal(rewritten_for_inference(model)(values), model(values))


class Masker(layers.Layer):
    """A user's layer that makes a mask."""

    def call(self, x):
        return x + 0

    def compute_mask(self, x, mask=None):
        return keras.ops.any(keras.ops.not_equal(x, 0), axis=-1)


def nested_masking():
    inputs = keras.Input((6, 3))
    return keras.Model(inputs, layers.Masking()(inputs))


@pytest.mark.parametrize("make", [layers.Masking, nested_masking, Masker])
def test_rewritten_masks_are_kept(make):
    inputs = keras.Input((6, 3))
    x = layers.Dense(4)(make()(inputs))
    x = layers.BatchNormalization()(x)
    model = with_statistics(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    steps = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    steps[:, 4:] = 0
    np.testing.assert_allclose(
        rewritten_for_inference(model)(steps), model(steps), rtol=1e-5, atol=1e-6
    )


def test_rewritten_shares_weights_not_folded():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    new = rewritten_for_inference(model)
    model.layers[1].kernel.assign(0 * model.layers[1].kernel + 2)
    values = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(new(values), model(values))


def test_rewritten_changes_nothing_of_the_model():
    model = family("MobileNetV2", {"alpha": 0.35}, 32)
    before = graph_digest(model), [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    images = pixels((32, 32, 3))
    expected = np.asarray(model(images))
    rewritten_for_inference(model)(images)
    after = graph_digest(model), [len(layer._inbound_nodes) for layer in model._flatten_layers()]
    assert after == before
    np.testing.assert_array_equal(model(images), expected)


def test_rewritten_keeps_random_state():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs)))
    state = random.getstate()
    rewritten_for_inference(model)
    assert random.getstate() == state


def test_rewritten_training_call_runs_inference():
    inputs = keras.Input((4,))
    x = layers.BatchNormalization()(layers.Dense(4)(inputs), training=True)
    model = with_statistics(keras.Model(inputs, layers.Dropout(0.5)(x)))
    values = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = model(values, training=False)
    rows = rewritten_for_inference(model)(values, training=False)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-6)
