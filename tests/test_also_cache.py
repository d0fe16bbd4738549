"""One pass stores several layers, each as a pass of its own would."""

import numpy as np
import pytest

from featx import EmbeddingCache, FeatureExtractor
from featx.exceptions import ParameterError

TAPS = ["stage2", ("stage3", "max"), (None, "avg"), ("stage2", "flatten")]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


def test_transform_stores_every_tap(images):
    extractor = FeatureExtractor("tiny", also_cache=TAPS)
    own = extractor.fit_transform(images)
    assert extractor.report_.n_forward == 9
    for layer, pooling in [
        ("stage2", "avg"),
        ("stage3", "max"),
        (None, "avg"),
        ("stage2", "flatten"),
    ]:
        one = FeatureExtractor("tiny", layer=layer, pooling=pooling)
        rows = one.fit_transform(images)
        assert (one.report_.n_hits, one.report_.n_forward) == (9, 0)
        alone = FeatureExtractor("tiny", layer=layer, pooling=pooling, cache=None)
        expected = alone.fit_transform(images)
        length = np.linalg.norm(expected, axis=1)
        assert (np.linalg.norm(rows - expected, axis=1) <= 1e-5 * length).all()
    np.testing.assert_array_equal(own, FeatureExtractor("tiny").fit_transform(images))


def test_transform_runs_what_any_tap_lacks_and_returns_what_was_stored(images):
    own = FeatureExtractor("tiny").fit_transform(images[:5])
    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    rows = extractor.fit_transform(images)
    assert (extractor.report_.n_hits, extractor.report_.n_forward) == (5, 9)
    np.testing.assert_array_equal(rows[:5], own)
    assert {space["n_rows"] for space in EmbeddingCache().info()["spaces"]} == {9}
    again = FeatureExtractor("tiny", also_cache=["stage2"])
    np.testing.assert_array_equal(again.fit_transform(images), rows)
    assert again.report_.n_forward == 0


def test_transform_twins_go_through_once(images):
    doubled = np.concatenate([images, images[::-1]])
    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    rows = extractor.fit_transform(doubled)
    assert extractor.report_.n_forward == 9
    np.testing.assert_array_equal(rows[9:], rows[8::-1])


def test_transform_without_a_cache_stores_nothing(images):
    extractor = FeatureExtractor("tiny", cache=None, also_cache=["stage2"])
    assert extractor.fit_transform(images).shape == (9, 400)
    assert EmbeddingCache().info()["n_rows"] == 0


def test_fit_unknown_layer_raises_before_the_pass(images):
    with pytest.raises(ParameterError, match=r"stage9.*Did you mean"):
        FeatureExtractor("tiny", also_cache=["stage9"]).fit(images)


@pytest.mark.parametrize("taps", ["stage2", 3, [3], [("stage2", "mean")], [("a", "b", "c")]])
def test_fit_faulty_taps_raise(taps, images):
    with pytest.raises(ParameterError, match="also_cache"):
        FeatureExtractor("tiny", also_cache=taps).fit(images)


def test_search_over_layers_needs_one_pass(images):
    from sklearn.model_selection import GridSearchCV

    from featx import TransferClassifier

    layers = ["stage2", "stage3", None]
    model = TransferClassifier(FeatureExtractor("tiny", also_cache=layers))
    y = np.arange(9) % 3
    grid = {"extractor__layer": layers, "extractor__pooling": ["avg"]}
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(images, y)
    assert len(search.cv_results_["params"]) == 3
    # No space was written twice, and nothing but the three was.
    info = EmbeddingCache().info()
    assert (info["n_forward"], len(info["spaces"])) == (27, 3)
