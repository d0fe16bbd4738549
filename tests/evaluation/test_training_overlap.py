"""Scores on samples of the training are noticed, from the digests that the reports keep."""

import numpy as np
import pytest
from sklearn.utils import Bunch

from featx import TransferClassifier, load, save
from featx.digests.sketch import SKETCH_SIZE, fraction_in, sketch_of
from featx.evaluation.training_overlap import TrainingOverlap, training_overlap
from featx.exceptions import BadSampleWarning


def keys_of(numbers):
    """Return keys with well-mixed first halves, as those of xxh3 have."""
    mixed = np.asarray(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    words = np.stack([mixed.astype(">u8"), np.zeros(len(mixed), ">u8")], axis=1)
    return np.ascontiguousarray(words).view("S16").ravel()


def test_fraction_in_few_samples_is_exact():
    trained = sketch_of(keys_of(range(1, 1001)))
    tested = sketch_of(keys_of(range(901, 1101)))
    assert fraction_in(tested, trained) == (0.5, True)


@pytest.mark.parametrize("n_tested", [500, 50_000])
def test_fraction_in_many_samples_is_near(n_tested):
    trained = sketch_of(keys_of(range(1, 20_001)))
    tested = sketch_of(keys_of(range(20_001 - n_tested // 4, 20_001 + 3 * n_tested // 4)))
    fraction, is_exact = fraction_in(tested, trained)
    assert fraction == pytest.approx(0.25, abs=0.1)
    assert not is_exact


def test_fraction_in_without_comparable_digests_is_none():
    assert fraction_in([SKETCH_SIZE + 1], list(range(1, SKETCH_SIZE + 1))) is None


def test_sketch_of_leaves_out_unread_samples():
    assert len(sketch_of(np.append(keys_of([1, 2, 2]), [b""]))) == 2


def test_training_overlap_survives_save_and_load(images, labels, tmp_path):
    path = tmp_path / "model.featx"
    save(TransferClassifier("tiny", "knn").fit(images[:12], labels[:12]), path)
    loaded = load(path)
    assert training_overlap(loaded) is None
    loaded.predict(images[8:])
    assert training_overlap(loaded) == TrainingOverlap(12, 4, is_exact=True)


def test_training_overlap_ignores_unread_and_copies(images, labels):
    classifier = TransferClassifier("tiny", "knn").fit(images[:12], labels[:12])
    classifier.extractor_.set_params(on_error="nan")
    with pytest.warns(BadSampleWarning, match="1 of 5 samples cannot be read"):
        classifier.transform([images[0], images[0], images[19], images[1], b"no image"])
    found = training_overlap(classifier)
    assert (found.n_samples, found.is_exact) == (4, False)
    assert found.describe("it").startswith("about 3 of 4 images were")


@pytest.mark.parametrize("digests", [None, "text", [-1], [2**64], ["1"], list(range(1, 2000))])
def test_training_overlap_of_foreign_digests_is_none(digests, images, labels):
    classifier = TransferClassifier("tiny", "knn").fit(images, labels)
    report = {**classifier.report_, "sample_digests": digests}
    if digests is None:  # a file of an earlier version
        del report["sample_digests"]
    classifier.report_ = Bunch(**report)
    assert training_overlap(classifier) is None
