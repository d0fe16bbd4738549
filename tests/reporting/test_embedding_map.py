"""The map of embeddings: its points, colors and legend."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from featx import EmbeddingMapDisplay, FeatureExtractor
from featx.exceptions import BadSampleWarning, InputError, ParameterError


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def legend_names(display):
    return [text.get_text() for text in display.legend_.get_texts()]


def test_map_has_points_of_each_class(digits):
    X, y = digits
    display = EmbeddingMapDisplay.from_embeddings(X, y)
    expected = PCA(2, random_state=0).fit_transform(X)
    np.testing.assert_allclose(np.abs(display.points), np.abs(expected), atol=1e-3)
    assert [len(each.get_offsets()) for each in display.scatters_] == np.bincount(y).tolist()
    assert legend_names(display) == list("0123456789")
    assert display.ax_.get_xlabel() == "component 1 (both: 29% of the variance)"


def test_map_names_only_largest_classes(digits):
    y = np.r_[np.repeat(np.arange(100, 125), 70), np.arange(47)]
    display = EmbeddingMapDisplay.from_embeddings(digits[0], y)
    assert len(display.scatters_) == 21
    assert legend_names(display)[-1] == "52 other classes"
    assert sum(len(each.get_offsets()) for each in display.scatters_) == len(y)


def test_map_numbers_have_colorbar(digits):
    X, y = digits
    display = EmbeddingMapDisplay.from_embeddings(X, y + 0.5)
    assert display.colorbar_ is not None
    assert display.legend_ is None


def test_map_without_labels_uses_given_axes(digits):
    _, ax = plt.subplots()
    display = EmbeddingMapDisplay.from_embeddings(digits[0], ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    assert (display.legend_, len(display.scatters_)) == (None, 1)


def test_map_leaves_unread_samples_out(images, tmp_path):
    extractor = FeatureExtractor("tiny", on_error="nan").fit(images)
    samples = [*images[:4], str(tmp_path / "missing.png")]
    with pytest.warns(BadSampleWarning):
        display = EmbeddingMapDisplay.from_estimator(extractor, samples, ["a", "b", "a", "b", "c"])
    assert len(display.points) == 4
    assert legend_names(display) == ["a", "b"]


@pytest.mark.parametrize(
    ("embeddings", "y", "message"),
    [
        (np.eye(4), [[0, 1]] * 4, r"y has shape \(4, 2\): expected one label for each sample"),
        (np.eye(4), [0, 1], "there are 4 samples, and y has 2 labels"),
        (np.eye(4)[0], None, r"expected \(n_samples, n_features\)"),
        (np.full((4, 2), np.nan), None, "none of the 4 embeddings has finite values only"),
    ],
)
def test_map_faulty_input_raises(embeddings, y, message):
    with pytest.raises(InputError, match=message):
        EmbeddingMapDisplay.from_embeddings(embeddings, y)


def test_map_estimator_without_transform_raises(images):
    with pytest.raises(ParameterError, match="expected one with transform"):
        EmbeddingMapDisplay.from_estimator("tiny", images)


def test_map_without_pooling_raises(images):
    extractor = FeatureExtractor("tiny", layer="stage4", pooling=None)
    with pytest.raises(InputError, match=r"embeddings has shape \(20, "):
        EmbeddingMapDisplay.from_estimator(extractor, images)


def test_map_by_other_method_names_axes(digits):
    with threadpool_limits(1):  # threads of t-SNE wait for one another on a busy machine
        display = EmbeddingMapDisplay.from_embeddings(digits[0][:40], method="tsne")
    assert display.ax_.get_ylabel() == "t-SNE 2"
    with pytest.raises(ParameterError, match="method='pac'"):
        EmbeddingMapDisplay.from_embeddings(digits[0], method="pac")
