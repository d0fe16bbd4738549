"""Parameters of FeatureExtractor: faults are named, all at once, and none is ever changed."""

import contextlib
import re

import keras
import numpy as np
import pandas as pd
import pytest
from extracted_files import embed, random_model
from sample_networks import pixels

from featx import FeatureExtractor, FineTune
from featx.exceptions import ParameterError


@pytest.fixture
def images():
    return pixels((64, 64, 3), n_images=10)


def test_transform_wrong_layer_suggests_near_ones(images):
    with pytest.raises(ParameterError, match="Did you mean 'stage2'"):
        embed(images, layer="stage_2")


def test_fit_faulty_parameters_are_listed_at_once(images):
    extractor = FeatureExtractor(
        "mobilnet",
        weights="gone.h5",
        preprocessing="tff",
        read=3,
        layer=3,
        pooling="mean",
        input_size=-1,
        n_prefix_tokens=-1,
        resize="fill",
        in_channels=0,
        cache=3,
        batch_size=0,
        precision="int8",
        engine="tpu",
        also_cache=5,
        views=0,
        augment="mirror",
        on_error="ignore",
        n_jobs=0,
    )
    with pytest.raises(ParameterError) as caught:
        extractor.fit(images)
    message = str(caught.value)
    assert "19 faulty parameters" in message
    assert "Did you mean" in message
    for name in extractor.get_params():
        if name not in ("backbone_params", "verbose"):
            assert f"{name}=" in message, name


@pytest.mark.parametrize(
    "params",
    [
        {"backbone": 3},
        {"backbone": "gone.keras"},
        {"backbone": lambda shape: None, "backbone_params": {"alpha": 1}},
        {"weights": 3},
        {"input_size": (3,)},
    ],
)
def test_fit_faulty_parameter_raises(params, images):
    with pytest.raises(ParameterError, match="faulty parameter"):
        FeatureExtractor(**params).fit(images)


@pytest.mark.parametrize(
    "value",
    [
        5,
        True,
        b"x",
        ["x"],
        (64, 64.0),
        {"a": 1},
        {"a"},
        int,
        np.array([1, 2]),
        object(),
        lambda pixels: pixels * 2,
        [keras.layers.Rescaling(2.0)],
        keras.layers.Rescaling,
        keras.optimizers.Adam(),
        10**400,
        pd.Series([1, 2]),
        "",
        "a\0b",
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("owner", [FeatureExtractor, FineTune])
def test_check_params_any_type_is_handled(owner, value):
    for name in owner().get_params():
        with contextlib.suppress(ParameterError):
            owner(**{name: value}).check_params()


@pytest.mark.parametrize(
    "params",
    [
        {"callbacks": ["x"]},
        {"callbacks": [keras.callbacks.Callback]},
        {"class_weight": {"a": "heavy"}},
        {"class_weight": {"a": -1}},
        {"class_weight": {"a": 10**400}},
        {"learning_rate": float("inf")},
        {"learning_rate": np.array([0.1, 0.2])},
        {"mixup": 10**400},
        {"optimizer": keras.optimizers.Adam},
        {"views": np.array([1, 2])},
    ],
    ids=str,
)
def test_check_params_fine_tune_type_raises(params):
    with pytest.raises(
        ParameterError, match=f"FineTune has a faulty parameter: {next(iter(params))}"
    ):
        FineTune(**params).check_params()


@pytest.mark.parametrize(
    "value",
    [lambda pixels: pixels * 2, [keras.layers.Rescaling(2.0)], 5, keras.layers.Rescaling],
    ids=["function", "list", "number", "class"],
)
def test_fit_preprocessing_not_layer_raises(value, images):
    expected = "'unit', None, or a Keras layer, which keras.Sequential makes of several"
    with pytest.raises(ParameterError, match=expected):
        FeatureExtractor("tiny", preprocessing=value, cache=None).fit(images)


@pytest.mark.parametrize("cache", ["", "a\0b"])
def test_check_params_cache_without_name_raises(cache):
    with pytest.raises(ParameterError, match="cache="):
        FeatureExtractor("tiny", cache=cache).check_params()


def test_fit_changes_no_parameter(images):
    extractor = FeatureExtractor("tiny", input_size=(64, 64))
    before = extractor.get_params()
    extractor.fit_transform(images)
    assert extractor.get_params() == before


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"input_size": 48}, "input_size=48: expected 64, the only size of 'tiny'"),
        ({"backbone_params": {"alpha": 1}}, "no constructor here"),
        ({"backbone": "vgg16", "backbone_params": "alpha=1"}, "a dict for the network's"),
        ({"backbone": "vgg16", "backbone_params": {"input_shape": 3}}, "'input_size' decides"),
        ({"backbone": random_model, "weights": "w.h5"}, "a backbone without a name brings its own"),
        ({"weights": 3}, "weights=3: expected 'pretrained', None, or the path of a file"),
    ],
)
def test_check_params_backbones_that_cannot_be_so(params, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        FeatureExtractor(**{"backbone": "tiny", **params}).check_params()


def test_fit_efficientnet_v2_name_raises(images):
    params = {"backbone_params": {"name": "mine"}, "weights": None}
    with pytest.raises(ParameterError, match="by which this network chooses how it scales pixels"):
        FeatureExtractor("efficientnet_v2_b0", **params).fit(images)
