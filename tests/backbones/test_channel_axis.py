"""Channels that come first: pooled, scaled and checked along the right axes."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from featx import FeatureExtractor, FineTune, TransferClassifier
from featx.backbones.channel_axis import channel_axis, takes_channels_first
from featx.exceptions import BackboneError, InputError, ParameterError

FIRST = {"data_format": "channels_first"}


class Block(layers.Layer):
    """A custom layer made of layers with a data format."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(5, 3, **FIRST)

    def call(self, inputs):
        return self.conv(inputs)


def axis_after(shape, *steps):
    inputs = x = keras.Input(shape)
    for step in steps:
        x = step(x)
    axis = channel_axis(keras.Model(inputs, x), x)
    return None if axis is None else axis % len(x.shape)


def conv(**options):
    return layers.Conv2D(5, 3, **options)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_takes_channels_first_of_global_pooling_alone(data_format, keepdims):
    pooling = layers.GlobalAveragePooling2D(data_format=data_format, keepdims=keepdims)
    model = keras.Sequential([keras.Input((None, None, 3)), pooling])
    assert takes_channels_first(model) == (data_format == "channels_first")


@pytest.mark.parametrize(
    ("shape", "steps", "axis"),
    [
        ((9, 8, 3), lambda: [conv()], 3),
        ((3, 9, 8), lambda: [conv(**FIRST)], 1),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.BatchNormalization(axis=1), layers.ReLU()], 1),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.MaxPooling2D(**FIRST), lambda x: x * 2 + 1], 1),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.Permute((2, 3, 1))], 3),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.Permute((2, 1, 3))], 2),
        ((3, 9, 8), lambda: [conv(**FIRST), lambda x: ops.transpose(x, (0, 2, 3, 1))], 3),
        ((3, 9, 8), lambda: [conv(**FIRST), lambda x: ops.moveaxis(x, 1, 2)], 2),
        ((3, 9, 8), lambda: [conv(**FIRST), lambda x: ops.swapaxes(x, 1, 3)], 3),
        ((3, 9, 8), lambda: [conv(**FIRST), lambda x: ops.mean(x, axis=2)], 1),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.Reshape((5, 42))], 1),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.Reshape((5, 42)), layers.Permute((2, 1))], 2),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.Reshape((35, 6))], None),
        ((3, 9, 8), lambda: [conv(**FIRST), layers.Dense(4)], 3),
        ((3, 9, 8), lambda: [layers.Permute((2, 3, 1)), conv()], 3),
        ((3, 9, 8), lambda: [keras.Sequential([keras.Input((3, 9, 8)), conv(**FIRST)])], 1),
        ((3, 9, 8), lambda: [Block()], 1),
        ((3, 9, 8), lambda: [lambda x: ops.concatenate([conv(**FIRST)(x)] * 2, axis=1)], 1),
        ((3, 20), lambda: [layers.Conv1D(5, 3, **FIRST)], 1),
        ((20, 3), lambda: [layers.Conv1D(5, 3)], 2),
        ((3, 6, 6, 6), lambda: [layers.Conv3D(5, 3, **FIRST)], 1),
        ((2, 3, 9, 8), lambda: [layers.TimeDistributed(conv(**FIRST))], 2),
        ((9, 8, 3), lambda: [conv(), layers.Reshape((42, 5))], 2),
        ((9, 8, 3), lambda: [layers.Rescaling(2)], 3),
        ((9, 8), lambda: [layers.Dense(3), layers.LayerNormalization()], 2),
    ],
)
def test_channel_axis_follows_the_graph(shape, steps, axis):
    assert axis_after(shape, *steps()) == axis


def test_channel_axis_below_channels_first_is_first():
    inputs = keras.Input((3, 9, 8))
    scaled = layers.Rescaling(2.0)(inputs)
    model = keras.Model(inputs, conv(**FIRST)(scaled))
    assert channel_axis(model, scaled) == 1
    assert takes_channels_first(model)
    assert not takes_channels_first(keras.Sequential([keras.Input((9, 8, 3)), conv()]))


@pytest.mark.parametrize(("options", "is_first"), [({}, False), (FIRST, True)])
def test_takes_channels_first_sees_pooled_inputs(options, is_first):
    pooling = layers.GlobalAveragePooling2D(**options)
    model = keras.Sequential([keras.Input((9, 8, 3)), pooling])
    assert takes_channels_first(model) == is_first


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 3, 9, 8), dtype=np.uint8)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3, 9, 8)), conv(**FIRST)])


@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [
        ("avg", lambda a: a.mean((2, 3))),
        ("max", lambda a: a.max((2, 3))),
        ("avgmax", lambda a: np.hstack([a.mean((2, 3)), a.max((2, 3))])),
        ("flatten", lambda a: a.reshape(4, -1)),
        (None, lambda a: a),
    ],
)
def test_transform_channels_first_pools_height_and_width(pooling, reduce, images, model):
    rows = FeatureExtractor(model, pooling=pooling, cache=None).fit_transform(images)
    expected = reduce(np.asarray(model(images.astype("float32"))))
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("preprocessing", ["torch", "caffe"])
def test_transform_channels_first_scales_each_channel(preprocessing, images, model):
    x = np.moveaxis(images.astype(np.float64), 1, -1)
    if preprocessing == "torch":
        x = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    else:
        x = x[..., ::-1] - [103.939, 116.779, 123.68]
    expected = np.asarray(model(np.moveaxis(x, -1, 1).astype("float32"))).mean((2, 3))
    rows = FeatureExtractor(model, preprocessing=preprocessing, cache=None).fit_transform(images)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-3)


def test_transform_open_sizes_channels_first_takes_arrays(images):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3, None, None)), conv(**FIRST)])
    rows = FeatureExtractor(model, cache=None).fit_transform(images)
    expected = np.asarray(model(images.astype("float32"))).mean((2, 3))
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((2, 9, 8, 3), np.uint8),
        np.zeros((2, 3, 18, 16), np.uint8),
        np.zeros((2, 9, 8), np.uint8),
        ["a.png", "b.png"],
    ],
    ids=["channels last", "other size", "gray", "files"],
)
def test_fit_channels_first_refuses_other_samples(given, model):
    with pytest.raises(BackboneError, match=r"channels first.*Permute"):
        FeatureExtractor(model, cache=None).fit(given)


def test_transform_channels_first_refuses_other_samples(images, model):
    extractor = FeatureExtractor(model, cache=None).fit(images)
    with pytest.raises(InputError, match="channels first"):
        extractor.transform(np.zeros((2, 3, 18, 16), np.uint8))


def test_fit_lost_channels_names_ways_out(images):
    inputs = keras.Input((3, 9, 8))
    cut_up = layers.Reshape((35, 6), name="cut_up")(conv(**FIRST)(inputs))
    model = keras.Model(inputs, cut_up)
    with pytest.raises(BackboneError, match=r"channels_first.*'cut_up'.*pooling='flatten'"):
        FeatureExtractor(model, cache=None).fit(images)
    rows = FeatureExtractor(model, pooling="flatten", cache=None).fit_transform(images)
    assert rows.shape == (4, 210)


def test_fit_subclassed_channels_first_names_ways_out(images):
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = conv(**FIRST)

        def call(self, inputs):
            return self.conv(inputs)

    model = Mine()
    model(images.astype("float32"))
    with pytest.raises(BackboneError, match=r"channels_first.*pooling='flatten'"):
        FeatureExtractor(model, cache=None).fit(images)


def test_fit_channels_first_with_standard_augmentation_fails(images, model):
    with pytest.raises(ParameterError, match="come first"):
        FeatureExtractor(model, views=2, augment="standard", cache=None).fit(images)


def test_transform_channels_first_augments_with_own_layers(images, model):
    flip = layers.RandomFlip("horizontal", **FIRST)
    extractor = FeatureExtractor(model, views=3, augment=flip, cache=None).fit(images)
    outputs = [np.asarray(model(x.astype("float32"))) for x in (images, images[..., ::-1])]
    either = [each.mean((2, 3)) for each in outputs]
    for view in np.moveaxis(extractor.transform_views(images), 1, 0):
        near = [np.abs(view - each).max(axis=1) < 1e-2 for each in either]
        assert np.logical_or(*near).all()


def test_fine_tuning_channels_first_with_changed_images_fails(images, model):
    extractor = FeatureExtractor(model, cache=None)
    classifier = TransferClassifier(extractor, fine_tune=FineTune("all", augment="standard"))
    with pytest.raises(ParameterError, match="channels come last"):
        classifier.fit(images, [0, 1, 0, 1])


def test_fine_tuning_channels_first_hands_over_exactly():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 9, 8))
    x = layers.ReLU()(conv(name="first", **FIRST)(inputs))
    model = keras.Model(inputs, conv(name="second", **FIRST)(x))
    images = np.random.default_rng(0).integers(0, 256, (24, 3, 9, 8), dtype=np.uint8)
    tuning = FineTune("second", epochs=1, validation=0.5)
    classifier = TransferClassifier(
        FeatureExtractor(model, preprocessing="torch", cache=None),
        fine_tune=tuning,
        random_state=0,
    )
    classifier.fit(images, [0, 1] * 12)
    assert classifier.report_.handover_gap <= 1e-5
