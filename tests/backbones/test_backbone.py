"""Frozen models: layers, poolings, preprocessing, and what makes their space."""

import keras
import numpy as np
import pytest
from keras import layers

from featx.backbones.backbone import Backbone, BackboneSpec, embedding_graph
from featx.backbones.build import build_backbone
from featx.engines.fold import rewritten_for_inference
from featx.engines.keras_engine import KerasEngine
from featx.exceptions import BackboneError, ParameterError


def spec_of(backbone="tiny", **fields):
    defaults = {
        "weights": "pretrained",
        "backbone_params": None,
        "preprocessing": "auto",
        "layer": None,
        "pooling": "avg",
        "input_size": None,
        "resize": "stretch",
        "in_channels": None,
        "precision": "float32",
    }
    return BackboneSpec(backbone=backbone, **{**defaults, **fields})


def build(backbone="tiny", array_shape=None, **fields):
    return build_backbone(spec_of(backbone, **fields), array_shape)


def conv_model(shape=(None, None, 3)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    return keras.Model(inputs, layers.ReLU(name="relu")(x), name="mine")


def embedded(backbone, images):
    graph = embedding_graph([backbone], images.dtype.name)
    rows = KerasEngine(rewritten_for_inference(graph), len(images)).run(images)
    return rows.reshape(len(images), *backbone.feature_shape)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pooling", "reduce"),
    [
        ("avg", lambda a: a.mean(axis=(1, 2))),
        ("max", lambda a: a.max(axis=(1, 2))),
        ("avgmax", lambda a: np.hstack([a.mean(axis=(1, 2)), a.max(axis=(1, 2))])),
        ("flatten", lambda a: a.reshape(len(a), -1)),
        (None, lambda a: a),
    ],
)
def test_embedding_graph_pools_as_numpy_does(pooling, reduce, images):
    model = conv_model()
    backbone = build(model, (12, 10, 3), pooling=pooling, preprocessing="unit")
    rows = embedded(backbone, images)
    expected = reduce(model(images / np.float32(255)).numpy())
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    assert backbone.feature_shape == expected.shape[1:]


def test_embedding_graph_reads_the_named_layer(images):
    model = conv_model()
    rows = embedded(build(model, (12, 10, 3), layer="conv", pooling=None), images)
    expected = model.get_layer("conv")(images.astype(np.float32))
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_embedding_graph_layer_as_preprocessing(images):
    model = conv_model()
    backbone = build(model, (12, 10, 3), preprocessing=layers.Rescaling(0.5))
    rows = embedded(backbone, images)
    expected = model(images * np.float32(0.5)).numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)


def test_tap_unknown_layer_suggests_near_ones():
    with pytest.raises(ParameterError, match=r"no layer of this name\. Did you mean 'stage3'"):
        _ = build(layer="stage_3").truncated_model


def test_truncated_model_of_subclassed_is_the_whole(images):
    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(4, 3)

        def call(self, x):
            return self.conv(x)

    model = Mine()
    backbone = build(model, (12, 10, 3))
    assert embedded(backbone, images).shape == (3, 4)
    with pytest.raises(ParameterError, match="no graph to find layers in"):
        _ = build(model, (12, 10, 3), layer="conv").truncated_model


def test_space_of_model_without_layers_names_model(images):
    class Mean(keras.Model):
        def call(self, x):
            return keras.ops.mean(x, axis=(1, 2))

    model = Mean(name="mean")
    model(images.astype("float32"))
    backbone = build(model, (12, 10, 3))
    assert "layer 'mean'" in backbone.space().label
    assert embedded(backbone, images).shape == (3, 3)


def test_feature_shape_of_open_size_raises():
    inputs = keras.Input((4,))
    open_ended = layers.Lambda(
        lambda x: keras.ops.tile(x[:, None], (1, 2, 1)), output_shape=(None, 4)
    )
    with pytest.raises(BackboneError, match="depends on the input"):
        _ = build(keras.Model(inputs, open_ended(inputs)), (4,), pooling=None).feature_shape


@pytest.mark.parametrize(
    ("fields", "array_shape", "expected"),
    [
        ({"backbone": "tiny"}, None, (64, 64, 3)),
        ({"backbone": conv_model()}, (12, 10, 3), (12, 10, 3)),
        ({"backbone": conv_model()}, (12, 10), (12, 10, 3)),
        ({"backbone": conv_model(), "input_size": 9}, (12, 10, 3), (9, 9, 3)),
        ({"backbone": conv_model(), "input_size": np.int64(9)}, None, (9, 9, 3)),
        ({"backbone": conv_model(), "input_size": (9, 7)}, None, (9, 7, 3)),
        ({"backbone": conv_model((9, 7, 3))}, None, (9, 7, 3)),
        ({"backbone": conv_model((9, 7, 3)), "input_size": (9, 7)}, None, (9, 7, 3)),
        ({"backbone": lambda shape: conv_model(shape)}, (12, 10, 1), (12, 10, 1)),
        ({"backbone": lambda shape: conv_model(shape)}, (12, 10), (12, 10, 1)),
        ({"backbone": lambda shape: conv_model(shape), "input_size": 9}, (12, 10, 1), (9, 9, 1)),
        ({"backbone": lambda shape: conv_model(shape), "input_size": 9}, None, (9, 9, 3)),
    ],
)
def test_input_shape_follows_model_size_or_arrays(fields, array_shape, expected):
    assert build(array_shape=array_shape, **fields).input_shape == expected


def two_inputs():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(inputs, layers.Add()(inputs))


@pytest.mark.parametrize(
    ("backbone", "fields", "array_shape", "message"),
    [
        (conv_model(), {}, None, "input shape of mine is not known.*pass input_size"),
        (conv_model, {}, None, "input shape of conv_model is not known"),
        (conv_model((9, 7, 3)), {"input_size": 8}, None, r"takes only \(9, 7\)"),
        (conv_model(), {}, (5,), r"takes inputs of shape .* but the samples have shape \(5,\)"),
        (two_inputs(), {}, None, "has 2 inputs: expected one"),
    ],
)
def test_build_backbone_of_unknown_shape_raises(backbone, fields, array_shape, message):
    with pytest.raises(BackboneError, match=message):
        build(backbone, array_shape, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"layer": "stage4"},
        {"pooling": "max", "layer": "stage5"},
        {"preprocessing": "unit"},
        {"preprocessing": layers.Rescaling(0.5)},
        {"preprocessing": layers.Rescaling(0.25)},
        {"weights": None},
    ],
)
def test_space_changes_with_each_parameter(fields):
    assert build(**fields).space() != build().space()


def test_space_of_other_input_size_differs():
    model = conv_model()
    assert build(model, input_size=8).space() != build(model, input_size=9).space()


def test_space_of_renamed_model_is_equal(tmp_path):
    model = conv_model((9, 7, 3))
    path = tmp_path / "copy.keras"
    model.save(path)
    renamed = keras.models.clone_model(model)
    renamed.set_weights(model.get_weights())
    renamed.name = "renamed"
    spaces = {build(backbone).space().digest for backbone in (model, path, str(path), renamed)}
    assert len(spaces) == 1


def test_space_of_equal_lower_layers_is_shared():
    model = conv_model((9, 7, 3))
    longer = keras.Model(model.inputs, layers.Conv2D(2, 3)(model.output))
    spaces = {build(backbone, layer="relu").space().digest for backbone in (model, longer)}
    assert len(spaces) == 1


def test_space_changes_with_one_weight():
    model = conv_model((9, 7, 3))
    before = build(model).space()
    kernel = model.get_layer("conv").kernel
    value = kernel.numpy()
    value[0, 0, 0, 0] += 1e-6
    kernel.assign(value)
    assert build(model).space() != before


def test_space_of_vectors_says_nothing_of_decoding():
    inputs = keras.Input((4,))
    space = build(keras.Model(inputs, layers.Dense(2)(inputs)), (4,)).space()
    assert "decoder" not in space.description
    assert space.description["pooling"] is None


def test_space_label_is_for_people():
    label = build(layer="stage4", pooling="max").space().label
    assert label == "tiny, layer 'stage4', pooling max, preprocessing tf"


def test_space_label_names_departures_from_network():
    params = {"alpha": 0.35}
    backbone = build("mobilenet_v2", weights=None, backbone_params=params, input_size=32)
    assert backbone.space().label.endswith(
        "preprocessing tf, alpha 0.35, weights None, input 32x32"
    )


@pytest.mark.parametrize(
    ("backbone", "label"),
    [
        ("MobileNetV2", "mobilenet_v2"),
        ("folder/mine.keras", "mine"),
        (conv_model(), "mine"),
        (conv_model, "conv_model"),
    ],
)
def test_label_names_the_backbone(backbone, label):
    assert spec_of(backbone).label == label


def test_build_backbone_changes_nothing_of_the_model(images):
    model = conv_model()
    model.compile("adam", "mse")
    before = [weight.copy() for weight in model.get_weights()]
    optimizer = model.optimizer
    backbone = build(model, (12, 10, 3))
    backbone.space()
    embedded(backbone, images)
    assert model.optimizer is optimizer
    assert model.trainable
    assert [layer.name for layer in model.layers][1:] == ["conv", "relu"]
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mobilenet_v3_small", "tf"),
        ("efficientnet_v2_b0", "torch"),
        ("efficientnet_v2_s", "x / 128 - 1"),
        ("convnext_tiny", "torch"),
    ],
)
def test_preprocessing_auto_without_that_of_the_network(name, expected):
    spec = spec_of(name, weights=None, backbone_params={"include_preprocessing": False})
    assert Backbone(None, spec, (32, 32, 3)).preprocessing == expected
    spec = spec_of(name, weights=None, backbone_params={"include_preprocessing": True})
    assert Backbone(None, spec, (32, 32, 3)).preprocessing is None


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v3_small",
        pytest.param("mobilenet_v3_large", marks=pytest.mark.long),
        pytest.param("efficientnet_v2_b0", marks=pytest.mark.long),
        pytest.param("efficientnet_v2_b3", marks=pytest.mark.long),
        pytest.param("efficientnet_v2_s", marks=pytest.mark.long),
        pytest.param("convnext_tiny", marks=pytest.mark.long),
    ],
)
def test_embedding_graph_scales_as_the_network_would(name):
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    rows = [
        embedded(build(name, weights=None, input_size=32, backbone_params=params), images)
        for params in ({}, {"include_preprocessing": False})
    ]
    difference = np.linalg.norm(rows[1] - rows[0], axis=1) / np.linalg.norm(rows[0], axis=1)
    assert difference.max() <= 1e-5
