"""The frozen part of a network runs once for each sample, and its activations are stored."""

import numpy as np
import pytest
from digit_tuning import classifier, tuning
from input_samples import LazyItems
from sample_digits import first_digits
from sample_networks import small_network
from sklearn.base import clone

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier


@pytest.fixture(scope="module")
def digits():
    return first_digits(160, n_classes=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return EmbeddingCache(tmp_path_factory.mktemp("cache"))


def test_fit_computes_frontier_in_the_pass(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path)
    first = classifier(cache, unfreeze=1).fit(images, labels)
    assert (first.report_.n_forward, first.report_.frontier) == (160, "cache")
    again = classifier(cache, unfreeze=1, learning_rate=1e-4).fit(images, labels)
    deeper = classifier(cache, unfreeze=2, epochs=1).fit(images, labels)
    assert again.report_.n_forward == 0
    assert deeper.report_.n_forward == 160  # another frontier, of which no row was there
    assert again.report_.history["loss"] != first.report_.history["loss"]


def test_tuned_backbone_is_entered_at_the_frontier(digits, cache):
    """Scoring a fold that another one trained on runs the frozen part for nobody."""
    images, labels = digits
    extractor = FeatureExtractor(small_network(), input_size=16, cache=cache, preprocessing="unit")
    tune = tuning(unfreeze=2, learning_rate=3e-3, epochs=10)
    fitted = TransferClassifier(extractor, fine_tune=tune, random_state=0).fit(images, labels)
    assert fitted.report_.kept == "tuned"
    fitted.transform(LazyItems(images[:60]))
    report = fitted.extractor_.report_
    assert (report.n_forward, report.n_above_frontier, report.n_hits) == (0, 60, 0)
    rows = fitted.transform(images)
    report = fitted.extractor_.report_
    assert (report.n_forward, report.n_above_frontier, report.n_hits) == (0, 100, 60)
    whole = clone(fitted.extractor_).set_params(cache=None).fit_transform(images)
    gaps = np.linalg.norm(rows - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert gaps.max() < 1e-5
    new = np.roll(images, 1, axis=1)
    fitted.transform(np.concatenate([images[:5], new[:5]]))
    report = fitted.extractor_.report_
    assert (report.n_forward, report.n_above_frontier, report.n_hits) == (5, 0, 5)
    fitted.extractor_.fit(images)  # what lies below might be another network from here on
    assert not hasattr(fitted.extractor_, "frontier_")


def test_fit_one_pass_for_several_depths(digits, tmp_path):
    images, labels = digits
    model = small_network()

    def report_of_depth(depth, folder, **params):
        cache = EmbeddingCache(tmp_path / folder)
        extractor = FeatureExtractor(model, input_size=16, cache=cache, **params)
        tune = tuning(unfreeze=depth, epochs=1)
        return TransferClassifier(extractor, fine_tune=tune).fit(images, labels).report_

    (layer,) = report_of_depth(2, "one").frontier_layers
    reports = [report_of_depth(depth, "all", also_cache=[(layer, None)]) for depth in (1, 2)]
    assert [report.n_forward for report in reports] == [160, 0]


@pytest.mark.long
def test_fit_on_more_samples_computes_new_ones(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path)
    classifier(cache, epochs=1).fit(images[:100], labels[:100])
    more = classifier(cache, epochs=1).fit(images, labels)
    assert (more.report_.n_hits, more.report_.n_forward) == (100, 60)


def test_fit_too_many_activations_are_not_stored(digits, tmp_path):
    images, labels = digits
    cache = EmbeddingCache(tmp_path)
    fitted = classifier(cache, epochs=1, max_cache_bytes=1000).fit(images, labels)
    assert fitted.report_.frontier == "pixels"
    assert "max_cache_bytes=1000" in fitted.report_.frontier_skipped_because
    assert len(cache.info()["spaces"]) == 1


def test_fit_pixels_and_frontier_train_alike(digits, tmp_path):
    images, labels = digits
    histories = [
        classifier(EmbeddingCache(tmp_path / str(limit)), max_cache_bytes=limit)
        .fit(images, labels)
        .report_.history["loss"]
        for limit in (1000, 10**9)
    ]
    np.testing.assert_allclose(*histories, rtol=1e-4)
