"""Nearest neighbors are exact, whatever holds the rows; similar samples are found by content."""

import h5py
import numpy as np
import pytest
import sklearn
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier, find_similar
from featx.evaluation.neighbors import COPY, nearest_neighbors
from featx.exceptions import BadSampleWarning, InputError, ParameterError


@pytest.fixture
def digits():
    return load_digits().data.astype(np.float32)


def expected_neighbors(queries, X, k):
    found = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(X)
    distances, indices = found.kneighbors(queries)
    return indices, 1 - distances


def test_find_similar_is_exact_over_blocks(digits, monkeypatch):
    monkeypatch.setattr("featx.probes._arrays._ROWS_AT_ONCE", 1100)
    monkeypatch.setattr("featx.evaluation.neighbors._QUERIES_AT_ONCE", 30)
    found = find_similar(digits[:100], digits, k=5)
    indices, similarity = expected_neighbors(digits[:100], digits, 5)
    assert (found.indices.dtype, found.similarity.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(found.similarity, similarity, atol=2e-6)
    assert (found.indices == indices).mean() > 0.99  # but for ties
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(100))


def test_find_similar_one_vector_gives_one_row(digits):
    found = find_similar(digits[3], digits, k=4)
    assert found.indices.shape == found.similarity.shape == (4,)
    np.testing.assert_array_equal(found.indices, find_similar(digits[3:4], digits, k=4).indices[0])


def test_find_similar_reads_rows_on_disk(digits, tmp_path):
    expected = find_similar(digits[:3], digits, k=4).indices
    np.save(tmp_path / "X.npy", digits)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        queries = file.create_dataset("queries", data=digits[:3])
        for X in (file.create_dataset("X", data=digits), np.load(tmp_path / "X.npy", "r")):
            np.testing.assert_array_equal(find_similar(queries, X, k=4).indices, expected)


def test_find_similar_reads_cached_rows(images):
    cache = EmbeddingCache()
    rows = FeatureExtractor("tiny", cache=cache).fit_transform(images)
    lazy = cache.open(X=images)
    np.testing.assert_array_equal(
        find_similar(rows[:2], lazy, k=3).indices, find_similar(rows[:2], rows, k=3).indices
    )


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_find_similar_takes_other_arrays(library, digits):
    xp = pytest.importorskip(library)
    expected = find_similar(digits[:3], digits, k=4)
    with sklearn.config_context(array_api_dispatch=True):
        found = find_similar(digits[:3], xp.asarray(digits), k=4)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.similarity, expected.similarity, atol=1e-6)


def test_nearest_neighbors_leaves_out_copies(digits):
    rows = np.vstack([digits[:40], 3 * digits[:2]])
    indices, similarity = nearest_neighbors(rows, rows, k=42, below=COPY)
    assert indices[0, -2:].tolist() == [-1, -1]  # itself and its copy
    assert similarity[0, -2:].tolist() == [-np.inf, -np.inf]
    assert not set(indices[0].tolist()) & {0, 40}
    assert (indices[5] == -1).sum() == 1  # itself


def test_find_similar_rows_of_nan_are_never_found(digits):
    digits[[0, 7]] = np.nan
    found = find_similar(digits[8:30], digits, k=1795)
    assert not np.isin(found.indices, [0, 7]).any()
    with pytest.raises(ParameterError, match=r"k=1796: expected at most 1795, .* could be read"):
        find_similar(digits[1], digits, k=1796)
    with pytest.raises(InputError, match="query holds NaN or infinite values in rows 0, 7"):
        find_similar(digits[:9], digits, k=3)


@pytest.mark.parametrize("fitted", [True, False])
def test_find_similar_embeds_images(images, fitted):
    extractor = FeatureExtractor("tiny", on_error="nan")
    samples = [*images, b"no image"]
    if fitted:
        extractor.fit(images)
    with pytest.warns(BadSampleWarning):
        found = find_similar(images[4:6], samples, extractor=extractor, k=10)
    assert found.indices[:, 0].tolist() == [4, 5]
    assert (found.indices % 2 == [[0], [1]]).all()  # light ones are even


@pytest.mark.parametrize("fitted", [True, False])
def test_find_similar_takes_any_transformer(fitted, digits):
    scaler = StandardScaler().fit(digits)
    expected = find_similar(scaler.transform(digits[:3]), scaler.transform(digits), k=4)
    extractor = scaler if fitted else StandardScaler()
    found = find_similar(digits[:3], digits, extractor=extractor, k=4)
    np.testing.assert_array_equal(found.indices, expected.indices)
    assert fitted or not hasattr(extractor, "mean_")


def test_find_similar_one_path_gives_one_row(tmp_path, images):
    from PIL import Image

    Image.fromarray(images[6]).save(tmp_path / "6.png")
    extractor = FeatureExtractor("tiny").fit(images)
    for query in (tmp_path / "6.png", Image.fromarray(images[6])):
        found = find_similar(query, images, extractor=extractor, k=2)
        assert (found.indices.shape, found.indices[0]) == ((2,), 6)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_find_similar_k_is_positive_integer(k, digits):
    with pytest.raises(ParameterError, match=r"k=.*: expected a positive integer"):
        find_similar(digits[0], digits, k=k)


def test_find_similar_too_many_raises_before_pass(images):
    extractor = FeatureExtractor("tiny")
    with pytest.raises(ParameterError, match="k=21: expected at most 20"):
        find_similar(images[:1], images, extractor=extractor, k=21)
    assert not hasattr(extractor, "report_")


@pytest.mark.parametrize(
    ("query", "X", "message"),
    [
        (np.ones((2, 3)), np.ones((4, 5)), "query has 3 features and X has 5"),
        ("a.png", np.ones((4, 5)), "query is an array of shape \\(\\): expected embeddings"),
        (np.ones((2, 5)), ["a.png", "b.png"], "X is an array of shape \\(2,\\): expected embedd"),
        (np.ones((2, 5)), np.ones((4, 5, 1)), "X is an array of shape \\(4, 5, 1\\)"),
        (np.ones((0, 5)), np.ones((4, 5)), "query is an array of shape \\(0, 5\\)"),
    ],
)
def test_find_similar_faulty_embeddings_raise(query, X, message):
    with pytest.raises(InputError, match=message):
        find_similar(query, X, k=1)


def test_find_similar_needs_vectors(images):
    extractor = FeatureExtractor("tiny", layer="stage1", pooling=None)
    with pytest.raises(
        InputError, match=r"query is an array of shape \(1, .*: expected embeddings"
    ):
        find_similar(images[:1], images, extractor=extractor, k=1)


def test_find_similar_by_unfitted_classifier_raises(digits):
    with pytest.raises(ParameterError, match="expected a fitted estimator, or a FeatureExtractor"):
        find_similar(digits[0], digits, extractor=TransferClassifier("tiny"))
