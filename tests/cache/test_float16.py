"""A float16 cache keeps what float16 cannot hold in float32, with a warning."""

import numpy as np
import pytest

from featx import EmbeddingCache, FeatureExtractor
from featx.cache.store import rounded_rows
from featx.exceptions import CacheDtypeWarning


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(1, 256, (3, 8, 8, 3), dtype=np.uint8)


def scaled(factor):
    import keras

    layers = [
        keras.Input((8, 8, 3)),
        keras.layers.Rescaling(factor),
        keras.layers.GlobalAveragePooling2D(),
    ]
    return keras.Sequential(layers, name="scaled")


@pytest.mark.parametrize("factor", [1e4, 1e-7])
def test_transform_rows_beyond_float16_stay_exact(factor, images, tmp_path):
    model, cache = scaled(factor), EmbeddingCache(tmp_path, dtype="float16")
    truth = FeatureExtractor(model, cache=None).fit_transform(images)
    extractor = FeatureExtractor(model, cache=cache)
    with pytest.warns(CacheDtypeWarning, match=r"3 of 3 embeddings of scaled.* float16 cannot"):
        first = extractor.fit_transform(images)
    again = extractor.transform(images)
    assert extractor.report_.n_forward == 0
    np.testing.assert_array_equal(first, truth)
    np.testing.assert_array_equal(again, truth)


def test_transform_rows_within_float16_are_rounded(images, tmp_path):
    cache = EmbeddingCache(tmp_path, dtype="float16")
    model = scaled(1.0)
    truth = FeatureExtractor(model, cache=None).fit_transform(images)
    first = FeatureExtractor(model, cache=cache).fit_transform(images)
    np.testing.assert_array_equal(first, truth.astype(np.float16))


@pytest.fixture
def mixed(images, tmp_path):
    """A cache with rows of both dtypes, and what they are."""
    images = images.copy()
    images[1] = 0  # which float16 holds
    cache = EmbeddingCache(tmp_path / "mixed", dtype="float16")
    model = scaled(1e4)
    with pytest.warns(CacheDtypeWarning, match="2 of 3"):
        rows = FeatureExtractor(model, cache=cache).fit_transform(images)
    return cache, images, rows


def test_rows_of_both_dtypes_stay_right(mixed):
    cache, images, rows = mixed
    for _ in range(2):
        np.testing.assert_array_equal(cache.open(X=images)[:], rows)
        assert cache.verify()["damaged"] == {}
        assert cache.info()["n_shards"] == 2
        cache.compact()


@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_export_of_both_dtypes_is_float32(suffix, mixed, tmp_path):
    import h5py

    cache, images, rows = mixed
    path = tmp_path / f"rows.{suffix}"
    cache.export(path, X=images)
    with h5py.File(path) if suffix == "h5" else np.load(path) as file:
        stored = file["embeddings"][:]
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, rows)


def test_import_of_both_dtypes_gives_equal_rows(mixed, tmp_path):
    cache, images, rows = mixed
    cache.export(tmp_path / "rows.h5", X=images)
    for source in (tmp_path / "rows.h5", cache.path):
        other = EmbeddingCache(tmp_path / f"other-{source.name}", dtype="float16")
        assert other.import_(source) == (3, 3, 0)
        np.testing.assert_array_equal(other.open(X=images)[:], rows)


def test_find_lost_float32_index_is_rebuilt(mixed):
    cache, images, rows = mixed
    for index in cache.path.glob("spaces/*/*.index"):
        index.unlink()
    np.testing.assert_array_equal(EmbeddingCache(cache.path).open(X=images)[:], rows)


def test_rounded_non_finite_rows_are_held():
    rows = np.float32([[np.nan, 1], [np.inf, 2], [np.inf, 1e6], [np.nan, 1e-9], [0, 0]])
    assert rounded_rows(rows, np.dtype("float16"))[1].tolist() == [True, True, False, False, True]
