"""Digests of graphs and of the state of layers: what changes them, and what does not."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from digested_models import MAKERS, convolutional, digest, foreign, functional
from keras import layers, ops

from featx.digests.keras_graph import graph_digest

each_model = pytest.mark.parametrize("make", MAKERS)


@each_model
def test_graph_digest_after_round_trip_is_equal(make, tmp_path):
    model = make()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
    assert graph_digest(loaded) == graph_digest(model)


@each_model
def test_graph_digest_rebuilt_model_is_equal(make):
    assert graph_digest(make()) == graph_digest(make())


# Keras refuses to clone a `Lambda`, which would run code from a config.
@pytest.mark.parametrize("make", [make for make in MAKERS if make is not foreign])
def test_graph_digest_clone_is_equal(make):
    model = make()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert graph_digest(clone) == graph_digest(model)


@each_model
def test_graph_digest_after_renaming_is_equal(make):
    model = make()
    before = graph_digest(model)
    model.name = "renamed"
    for number, layer in enumerate(model.layers):
        layer.name = f"renamed_{number}"
    assert graph_digest(model) == before


@each_model
def test_graph_digest_any_changed_weight_differs(make):
    model = make()
    before = graph_digest(model)
    for weight in model.weights:
        original = weight.numpy()
        changed = original.copy()
        changed.flat[-1] += 1
        weight.assign(changed)
        assert graph_digest(model) != before, weight.path
        weight.assign(original)
    assert graph_digest(model) == before


@pytest.mark.slow
def test_graph_digest_in_two_processes_is_equal():
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import digested_models as t
print([t.graph_digest(make()) for make in t.MAKERS])
"""
    seed = 2 if os.environ.get("PYTHONHASHSEED") == "1" else 1  # another than that of this process
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": str(seed), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{[graph_digest(make()) for make in MAKERS]}\n"


def test_importing_digests_loads_no_keras():
    heavy = "{'keras', 'tensorflow'}"
    script = f"import sys, featx.digests.keras_graph\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


CONV = {"filters": 4, "kernel_size": 3}


@pytest.mark.parametrize(
    ("step", "other"),
    [
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, strides=2)),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, padding="same")),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, activation="relu")),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, dtype="mixed_bfloat16")),
        (layers.Conv2D(**CONV), layers.Conv2D(**CONV, dtype="bfloat16")),
        (layers.BatchNormalization(), layers.BatchNormalization(epsilon=1e-5)),
        (layers.AveragePooling2D(2), layers.MaxPooling2D(2)),
        (lambda x: layers.Add()([x, x]), lambda x: ops.add(x, x)),
        (lambda x: x[:, ::2], lambda x: x[:, 1::2]),
        (lambda x: ops.mean(x, axis=1), lambda x: ops.mean(x, axis=2)),
        (lambda x: x * 2, lambda x: x * 3),
        (lambda x: x * np.arange(3.0), lambda x: x * np.arange(1.0, 4.0)),
        (lambda x: ops.split(x, 2, axis=1)[0], lambda x: ops.split(x, 2, axis=1)[1]),
        (
            lambda x: layers.MultiHeadAttention(1, 2)(x, x),
            lambda x: layers.MultiHeadAttention(1, 2)(x, x, use_causal_mask=True),
        ),
    ],
)
def test_graph_digest_after_changing_an_operation_differs(step, other):
    assert digest((8, 8, 3), step) != digest((8, 8, 3), other)


@pytest.mark.parametrize("merge", [layers.Subtract, layers.Concatenate])
def test_graph_digest_after_swapping_inputs_differs(merge):
    one, other = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([one, other], merge()([one, other]))
    swapped = keras.Model([one, other], merge()([other, one]))
    assert graph_digest(model) != graph_digest(swapped)


def test_graph_digest_with_other_input_dtype_differs():
    assert digest((4,), lambda x: x) != digest((4,), lambda x: x, dtype="uint8")


def test_graph_digest_other_input_shape_is_equal():
    assert digest((8, 8, 3), layers.Conv2D(2, 3)) == digest((None, 9, 3), layers.Conv2D(2, 3))


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_initializer": "zeros"},
        {"kernel_initializer": keras.initializers.HeNormal(seed=3)},
        {"kernel_regularizer": "l2"},
        {"kernel_constraint": "max_norm"},
        {"activity_regularizer": "l1"},
        {"trainable": False},
        {"name": "other"},
    ],
)
def test_graph_digest_ignores_what_only_training_needs(options):
    assert digest((4,), layers.Dense(2)) == digest((4,), layers.Dense(2, **options))


def test_graph_digest_ignores_seeds():
    assert digest((4,), layers.Dropout(0.5, seed=1)) == digest((4,), layers.Dropout(0.5, seed=2))


def test_graph_digest_compiled_or_frozen_is_equal():
    model = convolutional()
    before = graph_digest(model)
    model.compile("adam", "mse")
    model.trainable = False
    assert graph_digest(model) == before


def test_graph_digest_attribute_changed_in_place_differs():
    model = functional((4,), layers.Dense(2, activation="relu"))
    before = graph_digest(model)
    model.layers[1].activation = keras.activations.tanh
    assert graph_digest(model) != before


def test_graph_digest_replaced_call_differs():
    model = functional((4,), layers.Dense(2))
    before = graph_digest(model)
    model.layers[1].call = lambda x: x[:, :2]
    assert graph_digest(model) != before


def normalizing():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).random((10, 4)))
    inputs = keras.Input((4,))
    return keras.Model(inputs, layer(inputs))


def test_graph_digest_ignores_count_of_normalization():
    model = normalizing()
    before = graph_digest(model)
    model.layers[1].count.assign(7)
    assert graph_digest(model) == before


def test_graph_digest_after_other_adaptation_differs():
    model = normalizing()
    before = graph_digest(model)
    model.layers[1].adapt(np.ones((3, 4)))
    assert graph_digest(model) != before


def test_graph_digest_of_normalization_survives_round_trip(tmp_path):
    model = normalizing()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert graph_digest(loaded) == graph_digest(model)


def vectorizing(texts, **options):
    layer = layers.TextVectorization(**options)
    layer.adapt(texts)
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, layer(inputs))


def test_graph_digest_text_layer_survives_round_trip(tmp_path):
    model = vectorizing(["a b", "b c d"], output_mode="tf_idf")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert graph_digest(loaded) == graph_digest(model)


def test_graph_digest_text_layer_other_terms_differs():
    assert graph_digest(vectorizing(["a b"])) != graph_digest(vectorizing(["a c"]))


def test_graph_digest_other_term_weights_differs():
    one = vectorizing(["a b", "a b"], output_mode="tf_idf")
    other = vectorizing(["a b", "a"], output_mode="tf_idf")
    assert graph_digest(one) != graph_digest(other)


def test_graph_digest_deep_graph_needs_no_recursion():
    steps = [layers.Identity()] * 800
    assert digest((2,), *steps) == digest((2,), *steps)
