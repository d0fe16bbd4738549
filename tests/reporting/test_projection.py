"""Projections to two dimensions, and embeddings that are hard to project."""

import importlib.util

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from threadpoolctl import threadpool_limits

from featx.exceptions import InputError, MissingExtraError, ParameterError
from featx.reporting.projection import project

X = load_digits().data[:120]


@pytest.fixture(autouse=True)
def _one_thread():
    """Compute in one thread: two that wait for each other are slow beside other tests."""
    with threadpool_limits(1):
        yield


def test_pca_agrees_with_scikit_learn():
    xy, explained = project(X)
    pca = PCA(2).fit(X)
    expected = pca.transform(X)
    np.testing.assert_allclose(np.abs(xy), np.abs(expected), atol=1e-4)
    assert explained == pytest.approx(pca.explained_variance_ratio_.sum())
    assert xy.dtype == np.float32


def test_pca_has_the_same_signs_for_turned_rows():
    np.testing.assert_allclose(project(X[::-1]).xy, project(X).xy[::-1], atol=1e-4)


def test_tsne_keeps_neighbors_and_is_repeatable():
    xy, explained = project(X, "tsne")
    assert explained is None
    assert trustworthiness(X, xy) > trustworthiness(X, project(X).xy)
    np.testing.assert_array_equal(project(X, "tsne").xy, xy)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_rows_with_nan_stay_nan(method):
    embeddings = X[:40].copy()
    embeddings[7, 3] = np.nan
    embeddings[9, 0] = np.inf
    xy = project(embeddings, method).xy
    assert np.flatnonzero(np.isnan(xy).any(axis=1)).tolist() == [7, 9]
    rest = np.delete(np.arange(40), [7, 9])
    np.testing.assert_allclose(xy[rest], project(X[rest], method).xy, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "n_samples"), [*(("pca", n) for n in range(5)), ("tsne", 3), ("tsne", 4)]
)
def test_few_samples_have_finite_coordinates(method, n_samples):
    xy = project(X[:n_samples], method).xy
    assert xy.shape == (n_samples, 2)
    assert np.isfinite(xy).all()
    assert len(np.unique(xy, axis=0)) == n_samples


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize("embeddings", [np.full((6, 4), 0.1), np.full((6, 4), np.nan)])
def test_constant_embeddings_have_one_place(method, embeddings):
    xy, explained = project(embeddings, method)
    assert explained is None
    np.testing.assert_array_equal(xy, xy[[0] * 6])


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_pca_of_extreme_magnitudes_is_finite(scale):
    xy, explained = project(X * scale)
    reference = project(X)
    assert explained == pytest.approx(reference.explained)
    unit = np.abs(reference.xy).max() / np.abs(xy).max()
    np.testing.assert_allclose(xy * unit, reference.xy, atol=1e-3)


def test_one_feature_lies_on_a_line():
    xy, explained = project(X[:, 2:3])
    assert explained == pytest.approx(1)
    assert (xy[:, 1] == 0).all()


def test_unknown_method_raises_parameter_error():
    with pytest.raises(ParameterError, match=r"method='tnse': expected one of .*'tsne'\?"):
        project(X, "tnse")


def test_vector_in_place_of_table_raises_input_error():
    with pytest.raises(InputError, match=r"shape \(64,\): expected \(n_samples, n_features\)"):
        project(X[0])


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_umap_without_its_package_raises_error():
    with pytest.raises(MissingExtraError, match="pip install umap-learn"):
        project(X, "umap")


def test_umap_of_its_package_is_used():
    pytest.importorskip("umap")
    assert trustworthiness(X, project(X, "umap").xy) > trustworthiness(X, project(X).xy)
