"""Poolings of tokens: the values, the warning, and what is refused."""

import keras
import numpy as np
import pytest

from featx import FeatureExtractor
from featx.exceptions import ParameterError, ParameterWarning

N_TOKENS, WIDTH = 6, 3


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)


def token_model():
    """Make a network whose tokens are a class token, which is the mean, and five pixels."""
    inputs = keras.Input((4, 4, 3))
    pixels = keras.layers.Reshape((16, 3))(inputs)[:, : N_TOKENS - 1]
    first = keras.ops.mean(pixels, axis=1, keepdims=True)
    return keras.Model(inputs, keras.ops.concatenate([first, pixels], axis=1))


def tokens_of(images):
    pixels = images.reshape(len(images), 16, 3)[:, : N_TOKENS - 1].astype(np.float64)
    return np.concatenate([pixels.mean(axis=1, keepdims=True), pixels], axis=1)


def generalized_mean(x):
    return (x**3).mean(axis=1) ** (1 / 3)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ("auto", lambda x: x[:, 0]),
        ("cls", lambda x: x[:, 0]),
        ("patches", lambda x: x[:, 1:].mean(axis=1)),
        ("cls+patches", lambda x: np.hstack([x[:, 0], x[:, 1:].mean(axis=1)])),
        ("cls+avg", lambda x: np.hstack([x[:, 0], x.mean(axis=1)])),
        ("gem", lambda x: generalized_mean(x[:, 1:])),
        ("flatten", lambda x: x.reshape(len(x), -1)),
        (None, lambda x: x),
    ],
)
def test_pooling_of_tokens_gives_right_values(pooling, expected, images):
    extractor = FeatureExtractor(token_model(), n_prefix_tokens=1, pooling=pooling)
    rows = extractor.fit_transform(images)
    np.testing.assert_allclose(rows, expected(tokens_of(images)), rtol=1e-5)


@pytest.mark.parametrize(
    ("pooling", "expected"), [("avg", lambda x: x.mean(axis=1)), ("max", lambda x: x.max(axis=1))]
)
def test_pooling_of_all_tokens_warns(pooling, expected, images):
    extractor = FeatureExtractor(token_model(), n_prefix_tokens=1, pooling=pooling)
    with pytest.warns(ParameterWarning, match="the first 1 of which stand for no patch"):
        rows = extractor.fit_transform(images)
    np.testing.assert_allclose(rows, expected(tokens_of(images)), rtol=1e-5)


def test_pooling_without_prefix_tokens_is_the_mean(images):
    for n_prefix in (None, 0):
        extractor = FeatureExtractor(token_model(), n_prefix_tokens=n_prefix)
        rows = extractor.fit_transform(images)
        np.testing.assert_allclose(rows, tokens_of(images).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pooling": "cls"}, "Pass n_prefix_tokens"),
        ({"pooling": "patches"}, "Pass n_prefix_tokens"),
        ({"pooling": "gem"}, "Pass n_prefix_tokens"),
        ({"pooling": "cls", "n_prefix_tokens": 0}, "has no class token"),
        ({"pooling": "patches", "n_prefix_tokens": 99}, "tokens in all: expected fewer"),
    ],
)
def test_pooling_of_unknown_tokens_is_refused(params, message, images):
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor(token_model(), **params).fit(images)


def test_pooling_of_tokens_of_a_feature_map_is_refused(images):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs))
    with pytest.raises(ParameterError, match="not one vector for each token"):
        FeatureExtractor(model, pooling="cls", n_prefix_tokens=1).fit(images)


def test_pooling_gem_of_a_feature_map(images):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.ReLU()(inputs))
    rows = FeatureExtractor(model, pooling="gem").fit_transform(images)
    expected = generalized_mean(images.reshape(len(images), 16, 3).astype(np.float64))
    np.testing.assert_allclose(rows, expected, rtol=1e-5)


def test_pooling_prefix_tokens_are_part_of_the_space(images):
    extractors = [
        FeatureExtractor(token_model(), pooling="patches", n_prefix_tokens=number).fit(images)
        for number in (1, 2)
    ]
    assert extractors[0].space_digest_ != extractors[1].space_digest_


def test_pooling_auto_keeps_the_rows_of_avg(images):
    before = FeatureExtractor("tiny", pooling="avg")
    before.fit_transform(images)
    extractor = FeatureExtractor("tiny")
    extractor.fit_transform(images)
    assert extractor.report_.n_hits == len(images)
    assert list(extractor.get_feature_names_out()) == list(before.get_feature_names_out())
