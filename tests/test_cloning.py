"""Clones share what is frozen and copy everything else."""

import keras
import pytest
from sklearn import set_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from featx import FeatureExtractor, TransferClassifier


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def test_clone_shares_models_layers_and_callables(model):
    layer = keras.layers.Rescaling(0.5)
    cloned = clone(FeatureExtractor(model, preprocessing=layer))
    assert cloned.backbone is model
    assert cloned.preprocessing is layer

    def build(input_shape):
        return model

    assert clone(FeatureExtractor(build)).backbone is build


def test_clone_copies_parameters_and_heads(model):
    params = {"alpha": [0.35]}
    head = LogisticRegression(C=3)
    classifier = TransferClassifier(FeatureExtractor("tiny", backbone_params=params), head)
    cloned = clone(classifier)
    assert cloned.extractor is not classifier.extractor
    assert cloned.extractor.backbone_params == params
    assert cloned.extractor.backbone_params is not params
    assert cloned.head is not head
    assert cloned.head.C == 3


def test_clone_model_as_extractor_is_shared(model):
    assert clone(TransferClassifier(model)).extractor is model


def test_clone_class_as_parameter_is_shared():
    assert clone(FeatureExtractor(keras.applications.VGG16)).backbone is keras.applications.VGG16


def test_clone_loses_no_parameter():
    changed = {
        "backbone": "vgg16",
        "weights": None,
        "backbone_params": {"name": "x"},
        "preprocessing": "unit",
        "read": len,
        "layer": "block1_conv1",
        "pooling": "max",
        "input_size": (48, 32),
        "resize": "pad",
        "in_channels": 4,
        "n_prefix_tokens": 1,
        "cache": None,
        "batch_size": 3,
        "precision": "float32",
        "engine": "keras",
        "also_cache": (),
        "views": 2,
        "augment": "standard",
        "on_error": "nan",
        "n_jobs": 2,
        "verbose": 1,
    }
    assert set(changed) == set(FeatureExtractor().get_params())
    assert clone(FeatureExtractor(**changed)).get_params() == changed


def test_clone_keeps_output_format_and_requests():
    set_config(enable_metadata_routing=True)
    try:
        classifier = TransferClassifier("tiny").set_fit_request(sample_weight=True)
        requests = clone(classifier).get_metadata_routing().fit.requests
    finally:
        set_config(enable_metadata_routing=False)
    assert requests == {"sample_weight": True, "groups": None}
    extractor = FeatureExtractor().set_output(transform="pandas")
    assert clone(extractor)._sklearn_output_config == {"transform": "pandas"}


def test_clone_is_not_fitted(model):
    import numpy as np

    extractor = FeatureExtractor(model).fit(np.zeros((2, 4)))
    assert not hasattr(clone(extractor), "feature_shape_")
