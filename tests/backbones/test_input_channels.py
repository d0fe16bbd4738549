"""Pretrained networks for gray and multispectral images: the first kernel is adapted as in timm."""

import keras
import numpy as np
import pytest
from extracted_files import agree, write_images
from sample_networks import difference, pixels

from featx import FeatureExtractor, FineTune, TransferClassifier, load, save
from featx.backbones.input_channels import kernel_for_channels, with_input_channels
from featx.backbones.registry import preprocess
from featx.exceptions import BackboneError, BadSampleError, ParameterError

MOBILENET = {"weights": None, "backbone_params": {"alpha": 0.35}, "input_size": 64}


def embed(X, backbone="mobilenet_v2", **params):
    extractor = FeatureExtractor(backbone, **{**MOBILENET, "cache": None, **params})
    return extractor.fit_transform(X)


@pytest.fixture
def gray():
    return pixels((64, 64), n_images=3)


def test_kernel_for_channels_is_that_of_timm():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    red, green, blue = np.moveaxis(kernel, 2, 0)
    np.testing.assert_allclose(kernel_for_channels(kernel, 1)[:, :, 0], red + green + blue)
    four = kernel_for_channels(kernel, 4)
    for place, color in enumerate((red, green, blue, red)):
        np.testing.assert_allclose(four[:, :, place], color * 3 / 4, rtol=1e-6)
    assert kernel_for_channels(kernel, 13).shape == (3, 3, 13, 8)


@pytest.mark.parametrize("preprocessing", ["auto", pytest.param("unit", marks=pytest.mark.long)])
def test_transform_gray_equals_gray_in_color(preprocessing, gray):
    colors = np.repeat(gray[..., np.newaxis], 3, axis=-1)
    expected = embed(colors, preprocessing=preprocessing)
    params = {"in_channels": 1, "preprocessing": preprocessing}
    for X in (gray, gray[..., np.newaxis], gray.astype(np.float32), gray.astype(np.uint16) * 257):
        assert difference(embed(X, **params), expected) <= 1e-4


NETWORKS = [
    "mobilenet_v3_small",
    *(
        pytest.param(name, marks=pytest.mark.long)
        for name in (
            "convnext_tiny",
            "densenet121",
            "efficientnet_b0",
            "efficientnet_v2_b0",
            "resnet50",
        )
    ),
]


@pytest.mark.parametrize("backbone", NETWORKS)
def test_transform_colors_twice_equal_colors(backbone):
    """Their kernels and constants, outside and inside the network, are repeated in one order."""
    colors = pixels((32, 32, 3), n_images=2)
    params = {"backbone": backbone, "backbone_params": None, "input_size": 32}
    twice = embed(np.concatenate([colors, colors], axis=-1), in_channels=6, **params)
    assert difference(twice, embed(colors, **params)) <= 1e-4


def test_transform_tiny_keeps_its_trained_weights(gray):
    extractor = FeatureExtractor("tiny", in_channels=1, cache=None)
    colors = np.repeat(gray[..., np.newaxis], 3, axis=-1)
    expected = FeatureExtractor("tiny", cache=None).fit_transform(colors)
    assert difference(extractor.fit_transform(gray), expected) <= 1e-4


def test_normalization_constants_follow_the_channels():
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling([1.0, 2.0, 6.0]),
            keras.layers.Normalization(mean=[1.0, 2.0, 6.0], variance=[1.0, 4.0, 16.0]),
            keras.layers.Conv2D(2, 1),
        ]
    )
    for n_channels, means in ((1, [3.0]), (5, [1.0, 2.0, 6.0, 1.0, 2.0])):
        inputs = keras.Input((8, 8, 3))
        model = keras.Model(inputs, network.layers[2](network.layers[1](network.layers[0](inputs))))
        adapted = with_input_channels(model, n_channels, takes_bgr=False, label="a network")
        assert adapted.input_shape == (None, 8, 8, n_channels)
        assert adapted.layers[1].scale == means
        assert adapted.layers[2].input_mean == means


def test_network_without_convolution_is_refused():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(BackboneError, match="a network does not start with a convolution"):
        with_input_channels(model, 4, takes_bgr=False, label="a network")


def test_preprocess_repeats_or_averages_constants():
    def scaled(values, preprocessing):
        inputs = keras.Input((1, 1, len(values)))
        model = keras.Model(inputs, preprocess(inputs, preprocessing))
        return model(np.float32(values).reshape(1, 1, 1, -1)).numpy().ravel()

    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (100 / 255 - np.resize(mean, 4)) / np.resize(std, 4)
    np.testing.assert_allclose(scaled([100] * 4, "torch"), expected, rtol=1e-5)
    gray = (100 / 255 - mean.mean()) / std.mean()
    np.testing.assert_allclose(scaled([100], "torch"), gray, rtol=1e-5)
    caffe = scaled([100] * 4, "caffe")
    np.testing.assert_allclose(100 - caffe, [123.68, 116.779, 103.939, 123.68], rtol=1e-5)


def test_transform_many_channels_of_any_dtype():
    bands = pixels((64, 64, 13), n_images=2)
    expected = embed(bands, in_channels=13)
    assert agree(embed(bands.astype(np.float64), in_channels=13), expected)
    wide = bands.astype(np.uint16) * 257
    wide[..., :3] //= 64  # three dark bands are no reason to doubt the range
    assert np.isfinite(embed(wide, in_channels=13)).all()
    # Resized band by band.
    assert embed(bands[:, ::2], in_channels=13).shape == expected.shape


def test_transform_files_need_the_channels(gray, tmp_path):
    colors = pixels((64, 64, 3), n_images=2)
    paths = write_images(tmp_path / "images", colors)
    luma = np.rint(colors @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    assert difference(embed(paths, in_channels=1), embed(luma, in_channels=1)) <= 1e-3
    with pytest.raises(BadSampleError, match="has 3 channels, but the backbone takes 4: pass RGBA"):
        embed(paths, in_channels=4)
    with pytest.raises(BadSampleError, match=r"has 1 channel, but.*13: pass arrays of shape"):
        embed(write_images(tmp_path / "gray", gray), in_channels=13)
    opaque = np.concatenate([colors, np.full_like(colors[..., :1], 200)], axis=-1)
    four = write_images(tmp_path / "four", opaque)
    assert agree(embed(four, in_channels=4), embed(opaque, in_channels=4))


def test_space_and_recipe_hold_the_channels(gray):
    digests = []
    for n_channels in (None, 3, 1, np.int64(4)):
        X = np.repeat(gray[..., np.newaxis], n_channels or 3, axis=-1)
        extractor = FeatureExtractor("mobilenet_v2", in_channels=n_channels, **MOBILENET)
        extractor.fit_transform(X)
        digests.append(extractor.space_digest_)
        assert FeatureExtractor(**extractor.get_params()).fit(X).space_digest_ == digests[-1]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert "4 channels" in extractor.space_.label


@pytest.mark.parametrize(
    ("backbone", "n_channels", "expected"),
    [
        ("tiny", 0, "a positive integer or None"),
        ("tiny", "4", "a positive integer or None"),
        ("tiny", True, "a positive integer or None"),
        (lambda shape: None, 4, "only the networks of list_backbones"),
        ("model.keras", 4, "only the networks of list_backbones"),
    ],
)
def test_check_params_channels_that_cannot_be(backbone, n_channels, expected):
    with pytest.raises(ParameterError, match=f"in_channels=.*: expected .*{expected}"):
        FeatureExtractor(backbone, in_channels=n_channels).check_params()


@pytest.mark.parametrize("weights", ["imagenet", None])
def test_round_trip_keeps_the_channels(weights, gray, tmp_path):
    extractor = FeatureExtractor("tiny", weights=weights, in_channels=1)
    embeddings = extractor.fit_transform(gray)
    save(extractor, tmp_path / "gray.featx")
    loaded = load(tmp_path / "gray.featx", cache=None)
    assert loaded.in_channels == (1 if weights else None)
    assert agree(loaded.transform(gray), embeddings)


def test_fine_tune_gray_images(gray):
    X = np.concatenate([gray, 255 - gray, gray // 2, 255 - gray // 2])
    y = np.arange(12) % 2
    extractor = FeatureExtractor("tiny", in_channels=1)
    tune = FineTune(unfreeze=1, epochs=1, validation=0.34)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0).fit(X, y)
    assert fitted.predict_proba(X).shape == (12, 2)
    model = fitted.to_keras()
    assert model.input_shape == (None, 64, 64, 1)
    scores = model.predict(X[..., np.newaxis], verbose=0)
    np.testing.assert_allclose(scores, fitted.predict_proba(X), atol=1e-4)


def test_transform_views_of_many_channels(gray):
    X = np.repeat(gray[..., np.newaxis], 5, axis=-1)
    extractor = FeatureExtractor("tiny", in_channels=5, views=2, augment="standard")
    views = extractor.fit(X).transform_views(X)
    assert views.shape == (3, 2, 400)
    assert np.isfinite(views).all()
