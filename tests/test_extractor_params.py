"""Parameters of FeatureExtractor: faults are named, all at once, and none is ever changed."""

import re

import pytest
from extracted_files import embed, random_model
from sample_networks import pixels

from featx import FeatureExtractor
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
        layer=3,
        pooling="mean",
        input_size=-1,
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
    assert "15 faulty parameters" in message
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
        ({"weights": 3}, "weights=3: expected 'imagenet', None, or the path of a file"),
    ],
)
def test_check_params_backbones_that_cannot_be_so(params, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        FeatureExtractor(**{"backbone": "tiny", **params}).check_params()


def test_fit_efficientnet_v2_name_raises(images):
    params = {"backbone_params": {"name": "mine"}, "weights": None}
    with pytest.raises(ParameterError, match="by which this network chooses how it scales pixels"):
        FeatureExtractor("efficientnet_v2_b0", **params).fit(images)
