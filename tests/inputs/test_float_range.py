"""Floating-point images: 0..255, as `fit` learns it, and never guessed again after that."""

import numpy as np
import pytest
from input_samples import LazyItems
from PIL import Image
from scipy import ndimage

from featx import FeatureExtractor, TransferClassifier
from featx.exceptions import BadSampleError, InputError
from featx.inputs.recognize import as_samples
from featx.multi_gpu import _float_range

RNG = np.random.default_rng(0)
BRIGHT = RNG.integers(0, 256, (6, 24, 24, 3)).astype(np.float32)
DARK = np.zeros((1, 24, 24, 3), np.float32)
DARK[0, 0, 0] = 1


@pytest.fixture
def extractor():
    return FeatureExtractor("tiny", cache=None)


def test_fit_learns_the_range_of_floats(extractor):
    assert extractor.fit(BRIGHT).float_range_ == (0, 255)
    assert extractor.fit(BRIGHT.astype(np.uint8)).float_range_ is None
    assert extractor.fit(BRIGHT / 8).float_range_ == (0, 255)
    assert extractor.fit(list(BRIGHT)).float_range_ == (0, 255)


def test_transform_dark_frame_is_taken_after_fit(extractor):
    alone = extractor.fit(BRIGHT).transform(DARK)
    together = extractor.transform(np.concatenate([DARK, BRIGHT]))
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(extractor.transform(list(DARK)), alone)


def test_predict_dark_frame_is_taken_after_fit(extractor):
    classifier = TransferClassifier(extractor).fit(BRIGHT, list("aaabbb"))
    assert classifier.predict(DARK).shape == (1,)


@pytest.mark.parametrize("seen", [BRIGHT.astype(np.uint8), np.zeros_like(BRIGHT)])
def test_transform_unit_floats_after_fit_are_refused(seen, extractor):
    extractor.fit(seen)
    with pytest.raises(InputError, match=r"X \* 255"):
        extractor.transform(BRIGHT / 255)
    assert extractor.transform(BRIGHT).shape == (6, 400)


def test_fit_unit_floats_that_overshoot_are_refused(extractor):
    zoom = (1, 2, 2, 1)
    for order in (2, 3, 5):
        resized = ndimage.zoom(BRIGHT / 255, zoom, order=order)
        assert resized.max() > 1
        for fit in (extractor.fit, extractor.fit_transform, extractor.transform):
            with pytest.raises((InputError, BadSampleError), match=r"\* 255"):
                fit(resized)
    assert not hasattr(extractor, "float_range_")


def test_fit_vectors_learn_no_float_range():
    import keras

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    extractor = FeatureExtractor(model, cache=None).fit(np.ones((4, 5)) / 2)
    assert extractor.float_range_ is None


def test_transform_in_chunks_agrees_with_whole(extractor):
    rows = extractor.fit(BRIGHT).transform(np.concatenate([DARK, BRIGHT]))
    in_chunks = [extractor.transform(chunk) for chunk in (DARK, BRIGHT)]
    np.testing.assert_allclose(np.concatenate(in_chunks), rows, rtol=1e-5, atol=1e-5)


def test_parts_for_gpus_share_one_range(extractor):
    assert _float_range(extractor, as_samples(np.concatenate([DARK, BRIGHT]))) == (0, 255)
    assert _float_range(extractor, as_samples(DARK)) is None
    assert _float_range(extractor.fit(BRIGHT), as_samples(DARK)) == (0, 255)


def test_fit_lists_integers_of_unknown_range(extractor):
    images = BRIGHT.astype(np.int16)
    images[[1, 4]] -= 1000
    with pytest.raises(BadSampleError, match="2 of 6 samples") as caught:
        extractor.fit_transform(images)
    assert [fault.position for fault in caught.value.faults] == [1, 4]


def test_transform_sixteen_bit_arrays_and_files_agree(extractor, tmp_path):
    images = (BRIGHT[..., 0] * 257).astype(np.uint16)
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    of_files = extractor.fit_transform(paths)
    np.testing.assert_array_equal(extractor.fit_transform(images), of_files)
    np.testing.assert_array_equal(extractor.fit_transform(BRIGHT[..., 0].astype("u1")), of_files)


def test_lazy_sequence_learns_range_in_pass(extractor):
    with pytest.raises(InputError, match=r"X \* 255"):
        extractor.fit_transform(LazyItems(BRIGHT / 255))
    extractor.fit_transform(LazyItems(np.concatenate([DARK, BRIGHT])))
    assert extractor.float_range_ == (0, 255)
    assert extractor.transform(LazyItems(DARK)).shape == (1, 400)
    assert extractor.fit(LazyItems(BRIGHT)).float_range_ == (0, 255)
