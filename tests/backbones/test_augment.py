"""Versions of images: each follows from the image and its number, and is kept."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from featx import EmbeddingCache, FeatureExtractor, FineTune, TransferClassifier
from featx.backbones.augment import Augmentation, augmentation_layers
from featx.cache.cache import EmbeddingCache as Cache
from featx.exceptions import ParameterError
from featx.inputs.augmented import AugmentedSamples
from featx.inputs.kinds import InputForm
from featx.inputs.recognize import as_samples

SHAPE = (16, 16, 3)
FORM = InputForm(SHAPE)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, *SHAPE), dtype=np.uint8)


def versions(images, tmp_path, *, n_augmented=1, augment="standard"):
    samples = as_samples(images)
    rows = np.arange(len(images))
    keys, _ = samples.keys(Cache(tmp_path).files)
    return AugmentedSamples(samples, rows, keys, Augmentation(augment, SHAPE), n_augmented)


def pixels_of(samples, rows):
    return samples.batch(np.asarray(rows), FORM)[1]


def test_view_does_not_depend_on_its_batch(images, tmp_path):
    whole = pixels_of(versions(images, tmp_path), range(6))
    some = pixels_of(versions(images[::-1].copy(), tmp_path), [1, 3])
    np.testing.assert_array_equal(some, whole[[4, 2]])
    assert whole.dtype == np.float32
    assert not np.array_equal(whole, images)


def test_views_differ_and_have_own_keys(images, tmp_path):
    both = versions(images, tmp_path, n_augmented=2)
    keys, _ = both.keys(Cache(tmp_path).files)
    assert len(both) == len(np.unique(keys)) == 12
    whole = pixels_of(both, range(12))
    assert not np.array_equal(whole[0::2], whole[1::2])
    first = versions(images, tmp_path, n_augmented=1)
    np.testing.assert_array_equal(keys[0::2], first.keys(Cache(tmp_path).files)[0])
    np.testing.assert_array_equal(whole[0::2], pixels_of(first, range(6)))


def test_views_of_batch_read_image_once(images, tmp_path, monkeypatch):
    samples = versions(images, tmp_path, n_augmented=3)
    load, loaded = samples._samples.batch, []

    def batch(rows, shape):
        loaded.append(rows.tolist())
        return load(rows, shape)

    monkeypatch.setattr(samples._samples, "batch", batch)
    some = pixels_of(samples, [4, 5, 6, 7, 8, 15])
    assert loaded == [[1, 2, 5]]
    np.testing.assert_array_equal(some[-1], pixels_of(samples, range(18))[15])


@keras.saving.register_keras_serializable("tests")
class Restyle(keras.layers.Layer):
    """A small network: convolutions that add to what they are given, as oneDNN does at once."""

    def build(self, shape):
        self.noise = keras.layers.GaussianNoise(0.5)
        self.convs = [keras.layers.Conv2D(3, 3, padding="same") for _ in range(6)]
        for conv in self.convs:
            conv.build(shape)

    def call(self, inputs, training=False):
        changed = self.noise(inputs, training=training)
        for conv in self.convs:
            changed = keras.ops.relu(keras.ops.add(conv(changed), changed))
        return changed


@pytest.mark.parametrize("augment", ["standard", Restyle()], ids=["standard", "network"])
def test_views_made_in_several_threads_are_equal(images, tmp_path, augment):
    samples = versions(images, tmp_path, n_augmented=20, augment=augment)
    expected = pixels_of(samples, range(len(samples)))
    with ThreadPoolExecutor(4) as threads:
        parts = threads.map(lambda row: pixels_of(samples, [row]), range(len(samples)))
        np.testing.assert_array_equal(np.concatenate(list(parts)), expected)


def test_layers_are_checked_by_one_thread():
    layers = [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.RandomContrast(0.2)]
    with ThreadPoolExecutor(4) as threads:
        checks = [threads.submit(Augmentation(layers, SHAPE).check) for _ in range(40)]
        assert [check.result() for check in checks] == [None] * 40


def test_key_ignores_names_and_seeds_of_augmentation(images, tmp_path):
    def keys(*layers):
        return versions(images, tmp_path, augment=layers).keys(Cache(tmp_path).files)[0].tolist()

    flip = keys(keras.layers.RandomFlip("horizontal", name="a", seed=1))
    assert keys(keras.layers.RandomFlip("horizontal", name="b", seed=2)) == flip
    assert keys(keras.layers.RandomFlip("vertical")) != flip


def test_view_of_unreadable_image_names_it(images, tmp_path):
    samples = as_samples([*images[:2], b"no image"])
    keys = np.array([b"a" * 16, b"b" * 16, b"c" * 16], "S16")
    augmentation = Augmentation("standard", SHAPE)
    changed = AugmentedSamples(samples, np.arange(3), keys, augmentation, 2)
    rows, pixels, faults = changed.batch(np.arange(1, 6), FORM)
    assert (rows.tolist(), len(pixels)) == ([1, 2, 3], 3)
    assert [fault.position for fault in faults] == [4, 5]
    assert changed.name(5) == f"an augmented view of {samples.name(2)}"
    some = AugmentedSamples(samples, np.array([1, 2]), keys[1:], augmentation, 1)
    rows, _, faults = some.batch(np.arange(2), FORM)
    assert (rows.tolist(), [fault.position for fault in faults]) == ([0], [1])


def test_augmentation_layers_are_copies():
    layer = keras.layers.RandomFlip(seed=3)
    (copied,) = augmentation_layers(layer)
    assert copied is not layer
    assert augmentation_layers(None) == ()


def test_fit_augmentation_with_weights_is_a_fault(images):
    learned = keras.layers.Normalization()
    learned.adapt(images.astype(np.float32))
    for augment in (learned, [keras.layers.RandomFlip(), keras.Sequential([learned])]):
        with pytest.raises(ParameterError, match=r"layers without weights.*Normalization"):
            FeatureExtractor("tiny", views=2, augment=augment, cache=None).fit(images)


def test_fit_with_views_keeps_augmented_frontier(tmp_path):
    pixels, labels = load_digits(return_X_y=True)
    chosen = np.flatnonzero(labels < 3)[:60]
    images = (pixels[chosen].reshape(-1, 8, 8) * 15.9375).astype(np.uint8)
    extractor = FeatureExtractor("tiny", cache=EmbeddingCache(tmp_path))
    tune = FineTune(augment="standard", views=2, epochs=4, learning_rate=1e-3, patience=None)
    classifier = TransferClassifier(extractor, fine_tune=tune, random_state=0)
    first = classifier.fit(images, labels[chosen]).report_
    assert (first.frontier, first.n_forward) == ("cache", 3 * 60)
    assert first.frontier_bytes % (3 * 60) == 0
    again = classifier.fit(images, labels[chosen]).report_
    assert again.n_forward == 0
    assert again.history == first.history


def test_layers_compile_once_until_settings_change(images):
    layer = keras.layers.RandomContrast(0.5)
    first = Augmentation(layer, SHAPE)._seeded
    assert Augmentation([layer], SHAPE)._seeded is first
    before = Augmentation(layer, SHAPE)(images[0].astype(np.float32), 1)
    layer.factor = 0.1
    assert Augmentation(layer, SHAPE)._seeded is not first
    assert not np.array_equal(Augmentation(layer, SHAPE)(images[0].astype(np.float32), 1), before)
