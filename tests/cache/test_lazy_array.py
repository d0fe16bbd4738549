"""Lazy arrays: sliced as numpy slices, read when sliced."""

import numpy as np
import pytest

from featx import EmbeddingCache, FeatureExtractor
from featx.cache import lazy_array
from featx.exceptions import MissingRowsError, ParameterError


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "mine")


@pytest.fixture
def embeddings(cache, images):
    return FeatureExtractor("tiny", cache=cache, batch_size=4).fit_transform(images)


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(2, 7),
        slice(None, None, -2),
        [5, 0, 5],
        np.array([True] * 4 + [False] * 5),
        (slice(1, 3), slice(0, 5)),
        (4, 7),
        ([1, 2], 3),
    ],
    ids=str,
)
def test_lazy_array_is_indexed_as_array(index, cache, images, embeddings):
    lazy = cache.open(X=images)
    np.testing.assert_array_equal(lazy[index], embeddings[index])


def test_lazy_array_converts_to_array(cache, images, embeddings):
    lazy = cache.open(X=images)
    assert (lazy.shape, len(lazy), lazy.ndim, lazy.dtype) == ((9, 400), 9, 2, np.float32)
    assert (lazy.size, lazy.nbytes) == (3600, 14400)
    np.testing.assert_array_equal(np.asarray(lazy), embeddings)
    assert np.asarray(lazy, np.float64).dtype == np.float64
    assert "tiny" in repr(lazy)
    with pytest.raises(ValueError, match="are on disk"):
        np.array(lazy, copy=False)


def test_lazy_array_of_all_rows_keeps_order(cache, embeddings):
    np.testing.assert_array_equal(cache.open()[:], embeddings)


def test_blocks_yield_rows_in_order(cache, images, embeddings, monkeypatch):
    monkeypatch.setattr(lazy_array, "_BLOCK_BYTES", 4 * 4 * 400)
    starts, blocks = zip(*cache.open(X=images).blocks(), strict=True)
    assert starts == (0, 4, 8)
    assert [len(block) for block in blocks] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), embeddings)


def test_open_missing_samples_are_named(cache, images, embeddings):
    images[3] = 0
    with pytest.raises(MissingRowsError, match=r"1 of 9 samples are not stored .*array"):
        cache.open(X=images)


def test_lazy_array_removed_rows_raise(cache, images, embeddings):
    lazy = cache.open(X=images)
    cache.clear()
    with pytest.raises(MissingRowsError, match=r"2 of 2 rows .* no longer stored"):
        lazy[:2]


def test_open_space_by_first_digits(cache, images, embeddings):
    FeatureExtractor("tiny", cache=cache, layer="stage3").fit_transform(images)
    digests = [space["digest"] for space in cache.info()["spaces"]]
    assert {cache.open(digest[:12]).shape[1] for digest in digests} == {400, 48}
    with pytest.raises(ParameterError, match="'xyz': no spaces have a digest that begins so"):
        cache.open("xyz")


def test_open_ambiguous_space_lists_digests(cache, images, embeddings):
    FeatureExtractor("tiny", cache=cache, layer="stage3").fit_transform(images)
    first, second = (space["digest"][:8] for space in cache.info()["spaces"])
    expected = rf"holds 2 spaces: .* such as '{first}'\. Stored: {first} tiny.*; {second} tiny"
    with pytest.raises(ParameterError, match=expected):
        cache.open()
