"""Copies that may be trained while the original stays as it is."""

import random
import threading

import keras
import numpy as np
import pytest
from keras import layers
from sample_networks import with_statistics

from featx.backbones.copy import flat_copy
from featx.backbones.keras_models import file_model
from featx.backbones.registry import TINY_FILE
from featx.digests.keras_graph import graph_digest
from featx.exceptions import BackboneError


@keras.saving.register_keras_serializable("featx_copying")
class Scale(layers.Layer):
    """A layer of a user's own, with weights, a config, and an attribute."""

    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="glorot_uniform")

    def call(self, x):
        return x * self.scale * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


class NoConfig(layers.Layer):
    """A layer that cannot be made again, since its config does not tell the factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor

    def get_config(self):
        return super().get_config()


class Locked(layers.Layer):
    """A layer that has no identity across processes, and can be copied all the same."""

    def __init__(self, **options):
        super().__init__(**options)
        self.lock = threading.Lock()

    def call(self, x):
        with self.lock:
            return x * 2


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.fixture(autouse=True)
def seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def base():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="norm")(x))
    return with_statistics(keras.Model(inputs, x, name="base"))


@pytest.fixture
def wrapped(base):
    """The usual model for transfer learning: a frozen model inside a model."""
    base.trainable = False
    inputs = keras.Input((8, 8, 3), name="image")
    x = base(layers.Rescaling(1 / 127.5, -1, name="rescaling")(inputs), training=False)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(2, name="logits")(x), name="wrapped")


def copied(model):
    return flat_copy(model, name="copy", label="the model")


def images_for(model, n_images=4):
    shape = (n_images, *model.input_shape[1:])
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


def chain(*members, n_features=4):
    return keras.Sequential([keras.Input((n_features,)), *members])


def thaw(model):
    for layer in model.layers:  # on a model that is trainable itself, setting it has no effect
        layer.trainable = True


def train_one_step(model):
    thaw(model)
    before = bits(model)
    model.compile(keras.optimizers.SGD(1e-3), "mse", run_eagerly=True)
    x = images_for(model)
    model.train_on_batch(x, np.ones((len(x), *model.output_shape[1:])))
    assert not any(map(np.array_equal, before, bits(model)))


def bits(model):
    return [np.array(weight) for weight in model.weights]


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_is_copy(copy, model):
    images = images_for(model)
    expected = np.asarray(model(images))
    assert expected.std() > 0
    np.testing.assert_array_equal(copy(images), expected)
    assert graph_digest(copy) == graph_digest(model)
    assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}


def test_flat_copy_of_tiny_shares_no_weights():
    tiny = file_model(TINY_FILE)
    copy = copied(tiny).model
    assert copy.name == "copy"
    assert [layer.name for layer in copy.layers] == [layer.name for layer in tiny.layers]
    assert_is_copy(copy, tiny)


def test_flat_copy_of_tiny_trained_leaves_original():
    tiny = file_model(TINY_FILE)
    images, before, digest = images_for(tiny), bits(tiny), graph_digest(tiny)
    outputs = np.array(tiny(images))
    copy = copied(tiny).model
    train_one_step(copy)
    assert graph_digest(copy) != digest
    assert graph_digest(tiny) == digest
    assert_equal(bits(tiny), before)
    np.testing.assert_array_equal(tiny(images), outputs)


def test_flat_copy_of_wrapped_is_flat(wrapped):
    copy = copied(wrapped).model
    assert_is_copy(copy, wrapped)
    assert [layer.name for layer in copy.layers[1:]] == [
        *("rescaling", "conv", "norm", "relu", "pool", "logits")
    ]
    assert copy.inputs[0].name == "image"


def test_flat_copy_of_wrapped_drops_training_false(wrapped):
    copy, images = copied(wrapped).model, images_for(wrapped)
    np.testing.assert_array_equal(wrapped(images, training=True), wrapped(images))
    thaw(copy)
    assert not np.allclose(copy(images, training=True), copy(images))


def test_flat_copy_of_wrapped_trained_leaves_original(wrapped):
    before, trainable = bits(wrapped), [layer.trainable for layer in wrapped._flatten_layers()]
    train_one_step(copied(wrapped).model)
    assert_equal(bits(wrapped), before)
    assert [layer.trainable for layer in wrapped._flatten_layers()] == trainable


def test_flat_copy_of_nested_sequential_is_flat(base):
    model = keras.Sequential([keras.Input((8, 8, 3)), base, layers.Flatten(), layers.Dense(2)])
    copy = copied(model).model
    assert_is_copy(copy, model)
    assert not any(isinstance(layer, keras.Model) for layer in copy.layers)


def test_flat_copy_of_training_call_stays_whole(base):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, base(inputs, training=True))
    copy = copied(model).model
    assert_is_copy(copy, model)
    assert [layer.name for layer in copy.layers[1:]] == ["base"]


def test_flat_copy_of_shared_layer_copies_once():
    inputs, shared = keras.Input((4,)), layers.Dense(4, name="shared")
    model = keras.Model(inputs, shared(keras.ops.tanh(shared(inputs))))
    copy = copied(model).model
    assert_is_copy(copy, model)
    assert len(copy.weights) == 2


def test_flat_copy_of_shared_model_copies_once(base):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, base(inputs) - base(-inputs))
    copy = copied(model).model
    assert_is_copy(copy, model)
    assert len(copy.weights) == len(base.weights)


def test_flat_copy_equal_inner_names_stay_apart():
    model = chain(chain(layers.Dense(4, name="dense")), chain(layers.Dense(3, name="dense")))
    copy = copied(model).model
    assert_is_copy(copy, model)
    assert [layer.name for layer in copy.layers[1:]] == ["dense", "dense_1"]


def test_flat_copy_keeps_constants_of_operations():
    inputs = keras.Input((4,))
    x = keras.ops.matmul(inputs, np.ones((4, 3), "float32"))[:, 1:] * 2 + 1
    model = keras.Model(inputs, keras.ops.concatenate([x, layers.Dense(2)(x)]))
    assert_is_copy(copied(model).model, model)


def test_flat_copy_of_normalization_has_its_statistics():
    scaling = layers.Normalization()
    scaling.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)).astype("float32"))
    model = chain(scaling, layers.Dense(2))
    assert_is_copy(copied(model).model, model)


def test_flat_copy_keeps_precision_of_layers():
    model = chain(layers.Dense(2, dtype="mixed_bfloat16"))
    copy = copied(model).model
    assert copy.layers[-1].dtype_policy.name == "mixed_bfloat16"
    assert graph_digest(copy) == graph_digest(model)


def test_flat_copy_custom_layer_computes_the_same():
    model = chain(layers.Dense(3), Scale(2.5, name="scale"))
    copy = copied(model).model
    assert_is_copy(copy, model)
    assert copy.get_layer("scale") is not model.get_layer("scale")
    assert copy.get_layer("scale").factor == 2.5


def test_flat_copy_of_unhashable_code_is_unchecked():
    model = chain(layers.Dense(3), Locked())
    copy, x = copied(model).model, images_for(model)
    np.testing.assert_array_equal(copy(x), model(x))


def test_flat_copy_of_hidden_state_raises():
    class Forgetful(Scale):
        def get_config(self):
            return {**super().get_config(), "factor": 1.0}

    layer = Forgetful(1.0)
    model = chain(layer)
    layer.factor = 3.0
    with pytest.raises(BackboneError, match=r"the model .*: the copy computes something else"):
        copied(model)


def test_flat_copy_incomplete_config_raises():
    with pytest.raises(BackboneError, match=r"(?s)the model cannot be copied.*get_config") as info:
        copied(chain(NoConfig(2.0)))
    assert info.value.__cause__ is not None


def test_flat_copy_of_subclassed_model_raises():
    model = Subclassed()
    model(np.zeros((1, 4), "float32"))
    with pytest.raises(BackboneError, match="the model has no graph"):
        copied(model)


def test_flat_copy_of_unbuilt_model_raises():
    with pytest.raises(BackboneError, match="not built"):
        copied(keras.Sequential([layers.Dense(2)]))


@pytest.mark.parametrize("members", [[layers.Dense], [layers.Dense, NoConfig]])
def test_flat_copy_keeps_random_state(members):
    model = chain(*(member(2) for member in members))
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        copied(model)
    except BackboneError:
        assert NoConfig in members
    assert random.getstate() == python
    assert_equal(np.random.get_state(), numpy)  # noqa: NPY002


def test_flat_copy_originals_have_equal_values(base):
    copy, originals, _ = copied(base)
    tensors = {id(tensor): tensor for layer in copy.layers for tensor in [layer.output]}
    assert set(originals) == set(tensors)
    images = images_for(base)
    for key, original in originals.items():
        found = keras.Model(copy.inputs[0], tensors[key])(images)
        np.testing.assert_array_equal(found, keras.Model(base.inputs[0], original)(images))


def test_flat_copy_originals_are_of_outermost_graph(wrapped):
    copy, originals, _ = copied(wrapped)
    named = {
        layer.name: originals[id(layer.output)]
        for layer in copy.layers
        if id(layer.output) in originals
    }
    outermost = ("image", "rescaling", "pool", "logits")
    assert named.keys() == {*outermost, "relu"}
    assert all(named[name] is wrapped.get_layer(name).output for name in outermost)
    # What the base gives when it is called here, which is not the output of its own graph.
    assert named["relu"] is wrapped.get_layer("pool").input
