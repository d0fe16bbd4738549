"""One pass stores several layers, each as a pass of its own would."""

import shutil

import numpy as np
import pytest

from featx import EmbeddingCache, FeatureExtractor
from featx.exceptions import ParameterError, UnreadableImageError

TAPS = ["stage2", ("stage3", "max"), (None, "avg"), ("stage2", "flatten")]


def test_transform_stores_every_layer(images):
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


def test_transform_runs_samples_that_any_layer_lacks(images):
    own = FeatureExtractor("tiny").fit_transform(images[:5])
    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    rows = extractor.fit_transform(images)
    assert (extractor.report_.n_hits, extractor.report_.n_forward) == (5, 9)
    np.testing.assert_array_equal(rows[:5], own)
    assert {space["n_rows"] for space in EmbeddingCache().info()["spaces"]} == {9}
    again = FeatureExtractor("tiny", also_cache=["stage2"])
    np.testing.assert_array_equal(again.fit_transform(images), rows)
    assert again.report_.n_forward == 0


def test_transform_duplicates_go_through_once(images):
    doubled = np.concatenate([images, images[::-1]])
    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    rows = extractor.fit_transform(doubled)
    assert extractor.report_.n_forward == 9
    np.testing.assert_array_equal(rows[9:], rows[8::-1])


def test_transform_after_clear_stores_every_layer_again(images):
    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    for _ in range(2):  # the second time it is known that nothing is lacking
        extractor.fit_transform(images)
    EmbeddingCache().clear()
    extractor.fit_transform(images)
    assert extractor.report_.n_forward == 9
    assert [space["n_rows"] for space in EmbeddingCache().info()["spaces"]] == [9, 9]


def test_transform_runs_samples_new_to_a_layer(images):
    extractor = FeatureExtractor("tiny", also_cache=["stage2"]).fit(images)
    extractor.transform(images[:4])
    FeatureExtractor("tiny").fit_transform(images)  # all rows of its own, not those of stage2
    assert [extractor.transform(images).shape, extractor.report_.n_forward] == [(9, 400), 5]
    assert [extractor.transform(images).shape, extractor.report_.n_forward] == [(9, 400), 0]


def test_transform_deleted_rows_are_stored_again(images):
    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    for _ in range(2):
        extractor.fit_transform(images)
    other = FeatureExtractor("tiny", layer="stage2").fit(images)
    shutil.rmtree(EmbeddingCache().path / "spaces" / other.space_digest_)
    extractor.transform(images)
    assert extractor.report_.n_forward == 9
    assert (other.transform(images).shape, other.report_.n_forward) == ((9, 48), 0)


def test_transform_without_a_cache_stores_nothing(images):
    extractor = FeatureExtractor("tiny", cache=None, also_cache=["stage2"])
    assert extractor.fit_transform(images).shape == (9, 400)
    assert EmbeddingCache().info()["n_rows"] == 0


def test_fit_unknown_layer_raises_before_the_pass(images):
    with pytest.raises(ParameterError, match=r"stage9.*Did you mean"):
        FeatureExtractor("tiny", also_cache=["stage9"]).fit(images)


@pytest.mark.parametrize("layers", ["stage2", 3, [3], [("stage2", "mean")], [("a", "b", "c")]])
def test_fit_faulty_also_cache_raises(layers, images):
    with pytest.raises(ParameterError, match="also_cache"):
        FeatureExtractor("tiny", also_cache=layers).fit(images)


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


@pytest.mark.parametrize("layers", [[(None, "max")], ["embedding"], [None, None]])
def test_transform_one_space_under_two_names_once(layers, images):
    extractor = FeatureExtractor("tiny", also_cache=layers)
    extractor.fit_transform(images)
    info = EmbeddingCache().info()
    assert (info["n_forward"], len(info["spaces"])) == (9, 1)


def test_transform_also_cache_uses_fitted_size():
    import keras

    inputs = keras.Input((None, None, 3))
    low = keras.layers.Conv2D(4, 3, name="low")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2D(5, 3)(low))
    rng = np.random.default_rng(0)
    large, small = (rng.integers(0, 256, (3, n, n, 3), dtype=np.uint8) for n in (16, 12))
    FeatureExtractor(model, also_cache=["low"]).fit(large).transform(small)
    rows = FeatureExtractor(model, layer="low").fit_transform(small)
    expected = FeatureExtractor(model, layer="low", cache=None).fit_transform(small)
    np.testing.assert_allclose(rows, expected, rtol=1e-4)


def test_transform_stored_sample_that_vanished_is_sound(images, tmp_path):
    from PIL import Image

    paths = [str(tmp_path / f"{number}.png") for number in range(9)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    own = FeatureExtractor("tiny").fit_transform(paths)

    def unreadable(data, *form):
        raise UnreadableImageError("the drive is gone")

    extractor = FeatureExtractor("tiny", also_cache=["stage2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.inputs.kinds.decode_to", unreadable)
        np.testing.assert_array_equal(extractor.fit_transform(paths), own)


def test_transform_subclassed_model_is_read_whole(images):
    import keras

    class Twice(keras.Model):
        def call(self, x, training=None):
            return 2 * super().call(x, training=training)

    inputs = keras.Input((64, 64, 3))
    model = Twice(inputs, keras.layers.Conv2D(4, 3)(inputs))
    extractor = FeatureExtractor(model, preprocessing=None, also_cache=[(None, "max")])
    rows = extractor.fit_transform(images)
    expected = np.asarray(model(images.astype(np.float32)))
    np.testing.assert_allclose(rows, expected.mean(axis=(1, 2)), rtol=1e-3)
    most = FeatureExtractor(model, preprocessing=None, pooling="max").fit_transform(images)
    np.testing.assert_allclose(most, expected.max(axis=(1, 2)), rtol=1e-3)
