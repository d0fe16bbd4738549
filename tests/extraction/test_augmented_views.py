"""Several views of each sample: embedded once each, averaged, and the same in every run."""

import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sample_digits import first_digits
from sklearn.base import clone

from featx import EmbeddingCache, FeatureExtractor, FineTune, TransferClassifier
from featx.exceptions import BadSampleWarning, EngineError, ParameterError, ParameterWarning


@pytest.fixture(scope="module")
def digits():
    return first_digits(60, n_classes=3)


@pytest.fixture
def extractor(tmp_path):
    return FeatureExtractor("tiny", views=3, augment="standard", cache=tmp_path / "cache")


def test_transform_views_each_view_is_embedded_once(extractor, digits):
    images, _ = digits
    views = extractor.fit(images).transform_views(images)
    assert views.shape == (60, 3, 400)
    report = extractor.report_
    assert (report.n_samples, report.n_forward, report.n_hits) == (60, 180, 0)
    np.testing.assert_array_equal(extractor.transform_views(images), views)
    assert (extractor.report_.n_forward, extractor.report_.n_hits) == (0, 180)


def test_transform_views_first_is_the_sample(extractor, digits):
    images, _ = digits
    plain = clone(extractor).set_params(views=1, augment=None)
    expected = plain.fit_transform(images)
    views = extractor.fit(images).transform_views(images)
    np.testing.assert_array_equal(views[:, 0], expected)
    assert (extractor.report_.n_hits, extractor.report_.n_forward) == (60, 120)
    assert all(not np.allclose(views[:, number], expected) for number in (1, 2))


def test_transform_views_more_keep_the_first(extractor, digits):
    images, _ = digits
    two = clone(extractor).set_params(views=2).fit(images).transform_views(images)
    three = extractor.fit(images).transform_views(images)
    np.testing.assert_array_equal(three[:, :2], two)
    assert extractor.report_.n_forward == 60


def test_transform_is_the_mean_of_views(extractor, digits):
    images, _ = digits
    views = extractor.fit(images).transform_views(images)
    np.testing.assert_allclose(extractor.transform(images), views.mean(axis=1), rtol=1e-5)
    out = np.empty((5, 400), np.float32)
    assert extractor.transform(images[40:45], out=out) is out
    np.testing.assert_allclose(out, views[40:45].mean(axis=1), rtol=1e-5)


def test_transform_views_unpooled_have_activation_shape(digits):
    images, _ = digits
    extractor = FeatureExtractor(
        "tiny", layer="stage3", cache=None, pooling=None, views=2, augment="standard"
    )
    extractor.fit(images)
    shape = extractor.feature_shape_
    assert len(shape) == 3
    assert extractor.transform_views(images[:4]).shape == (4, 2, *shape)
    assert extractor.transform(images[:4]).shape == (4, *shape)


def test_transform_views_of_unreadable_samples_are_nan(extractor, digits, tmp_path):
    images, _ = digits
    extractor.set_params(on_error="nan")
    samples = [*images[:3], b"no image"]
    with pytest.warns(BadSampleWarning, match="1 of 4 samples"):
        views = extractor.fit(samples).transform_views(samples)
    assert np.isnan(views).all(axis=(1, 2)).tolist() == [False, False, False, True]


def test_custom_layers_are_copied_and_identified(digits, tmp_path):
    images, _ = digits

    def n_forward(layer):
        extractor = FeatureExtractor("tiny", cache=tmp_path, views=2, augment=layer)
        extractor.fit_transform(images)
        return extractor.report_.n_forward

    flip = keras.layers.RandomFlip("horizontal", seed=1)
    assert n_forward(flip) == 120
    assert n_forward(keras.layers.RandomFlip("horizontal", seed=2, name="other")) == 0
    assert n_forward([flip, keras.layers.RandomContrast(0.3)]) == 60


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"views": 2}, "views=2: expected 1 with augment=None"),
        ({"views": 2, "augment": []}, r"augment=\[\]"),
        ({"views": 2, "augment": "mirror"}, "augment='mirror'"),
        ({"views": 2, "augment": lambda image: image}, "Keras layers"),
    ],
)
def test_fit_faulty_views_raise(params, message, digits):
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor("tiny", **params).fit(digits[0])


def test_fit_augment_changing_the_shape_raises(digits):
    crop = keras.layers.RandomCrop(8, 8)
    extractor = FeatureExtractor("tiny", views=2, augment=crop)
    with pytest.raises(ParameterError, match="keep their shape"):
        extractor.fit_transform(digits[0])
    assert not hasattr(extractor, "space_")
    assert EmbeddingCache().info()["n_rows"] == 0


def test_fit_images_are_changed_not_vectors():
    inputs = keras.Input((6,))
    backbone = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    X = np.random.default_rng(0).random((5, 6), np.float32)
    with pytest.raises(ParameterError, match=r"shape \(6,\)"):
        FeatureExtractor(backbone, views=2, augment="standard", cache=None).fit(X)
    noise = keras.layers.GaussianNoise(0.1, seed=0)
    extractor = FeatureExtractor(backbone, views=2, augment=noise, cache=None)
    assert extractor.fit(X).transform_views(X).shape == (5, 2, 3)


@pytest.mark.long
def test_warm_fit_with_views_imports_no_tensorflow(digits, tmp_path):
    np.save(tmp_path / "images.npy", digits[0])
    code = f"""
import sys
import numpy as np
from featx import FeatureExtractor
images = np.load({str(tmp_path / "images.npy")!r})
extractor = FeatureExtractor("tiny", views=2, augment="standard", cache={str(tmp_path / "c")!r})
extractor.fit_transform(images)
print(extractor.report_.n_forward, "keras" in sys.modules)
"""
    printed = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert printed == [["120", "True"], ["0", "False"]]


def test_views_keep_the_callers_random_state(extractor, digits):
    random.seed(0)
    expected = random.random()
    random.seed(0)
    extractor.fit(digits[0]).transform_views(digits[0])
    assert random.random() == expected


def test_transform_views_of_many_samples_in_parts(extractor, digits, monkeypatch):
    images, _ = digits
    expected = extractor.fit(images).transform_views(images)
    monkeypatch.setattr("featx.inputs.augmented._VIEWS_AT_ONCE", 7)
    np.testing.assert_array_equal(extractor.transform_views(images), expected)
    np.testing.assert_allclose(extractor.transform(images), expected.mean(axis=1), rtol=1e-5)
    report = extractor.report_
    assert (report.n_samples, report.n_hits) == (60, 180)


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_fit_augment_without_views_warns_once(method, extractor, digits):
    with pytest.warns(
        ParameterWarning, match="augment='standard' is not used with views=1"
    ) as caught:
        getattr(extractor.set_params(views=1), method)(digits[0])
    assert len(caught) == 1


def test_transform_views_set_to_one_is_silent(extractor, digits):
    embeddings = extractor.fit(digits[0]).set_params(views=1).transform(digits[0])
    np.testing.assert_array_equal(embeddings, extractor.transform_views(digits[0])[:, 0])


def test_views_depend_on_pixels_only(extractor, digits, tmp_path):
    images, _ = digits
    paths = []
    for number, image in enumerate(images[:3]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(image).save(paths[-1])
    expected = extractor.fit(paths).transform_views(paths)
    in_color = np.repeat(images[:3, :, :, np.newaxis], 3, axis=3)
    for same in (images[:3], in_color, [Path(path).read_bytes() for path in paths]):
        np.testing.assert_allclose(extractor.transform_views(same), expected, atol=1e-5)


def test_augment_without_seed_raises(digits):
    class Noise(keras.layers.Layer):
        def call(self, inputs, training=False):
            return inputs + keras.random.normal(keras.ops.shape(inputs)) if training else inputs

    with pytest.raises(ParameterError, match="do not follow from a seed"):
        FeatureExtractor("tiny", views=2, augment=Noise(), cache=None).fit(digits[0])


def test_augment_drawing_in_python_raises(digits):
    mix = keras.layers.AugMix(num_chains=1, chain_depth=1)
    for _ in range(3):
        with pytest.raises(ParameterError, match="do not follow from a seed"):
            FeatureExtractor("tiny", views=2, augment=mix, cache=None).fit(digits[0])
    tune = TransferClassifier(
        FeatureExtractor("tiny"), fine_tune=FineTune(augment=mix, views=2, epochs=1)
    )
    with pytest.raises(ParameterError, match="do not follow from a seed"):
        tune.fit(*digits)


def test_augment_that_cannot_compile_raises(digits):
    class Eager(keras.layers.Layer):
        def call(self, inputs, training=False):
            return inputs * float(keras.ops.max(inputs) > 3)

        def compute_output_shape(self, shape):
            return shape

    with pytest.raises(ParameterError, match="cannot change inputs"):
        FeatureExtractor("tiny", views=2, augment=Eager(), cache=None).fit(digits[0])


def test_adaptive_layers_keep_their_identity(digits, tmp_path):
    layers = [keras.layers.BatchNormalization(), keras.layers.RandomFlip()]
    extractor = FeatureExtractor("tiny", views=2, augment=layers, cache=tmp_path / "learning")
    found = []
    for _ in range(2):
        extractor.fit(digits[0]).transform(digits[0])
        found.append(extractor.report_.n_forward)
    assert found == [2 * len(digits[0]), 0]


def test_augment_after_fork_is_not_tried(digits, monkeypatch):
    monkeypatch.setattr("featx.engines.devices._ran_before_fork", True)
    extractor = FeatureExtractor("tiny", views=2, augment=keras.layers.RandomFlip(), cache=None)
    with pytest.raises(EngineError, match="forked"):
        extractor.fit(digits[0])


def test_stored_rows_of_several_views_are_verified(extractor, digits, tmp_path):
    images, _ = digits
    extractor.fit_transform(images)
    found = EmbeddingCache(tmp_path / "cache").verify(sample=5, extractor=extractor, X=images)
    assert found["differing"] == []
    view = EmbeddingCache(tmp_path / "cache").open(X=images)
    np.testing.assert_array_equal(view[:5], extractor.transform_views(images)[:5, 0])
