"""Samples that FeatureExtractor cannot embed: all are listed at once, or their rows are NaN."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from extracted_files import embed, write_images
from PIL import Image
from sample_networks import pixels

from featx import EmbeddingCache, FeatureExtractor
from featx.exceptions import BadSampleError, BadSampleWarning, InputError


@pytest.fixture
def images():
    return pixels((64, 64, 3), n_images=10)


@pytest.fixture
def paths(images, tmp_path):
    return write_images(tmp_path / "images", images)


def test_transform_known_faults_stop_the_pass(paths, tmp_path):
    (tmp_path / "empty.png").touch()
    X = [*paths, str(tmp_path / "gone.png"), str(tmp_path / "empty.png")]
    with pytest.raises(BadSampleError) as caught:
        embed(X)
    assert [fault.position for fault in caught.value.faults] == [10, 11]
    assert EmbeddingCache().info()["n_forward"] == 0


def test_transform_damaged_sample_keeps_the_others(paths):
    data = Path(paths[2]).read_bytes()
    Path(paths[2]).write_bytes(data[: len(data) // 2])
    Path(paths[5]).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadSampleError) as caught:
        embed(paths)
    assert [fault.position for fault in caught.value.faults] == [2, 5]
    assert EmbeddingCache().info()["n_rows"] == 8


def test_transform_on_error_nan_warns_once(paths, tmp_path):
    data = Path(paths[2]).read_bytes()
    Path(paths[2]).write_bytes(data[: len(data) // 2])
    with pytest.warns(BadSampleWarning, match="2 of 11 samples") as caught:
        embeddings, report = embed([*paths, str(tmp_path / "gone.png")], on_error="nan")
    assert len(caught) == 1
    assert np.flatnonzero(np.isnan(embeddings).all(axis=1)).tolist() == [2, 10]
    assert report.n_forward == 9


def test_transform_missing_path_is_unreadable(paths):
    frame = pd.DataFrame({"path": [paths[0], None, paths[2]]})
    with pytest.raises(BadSampleError, match=r"\[1\] .*: missing value \(None or NaN\)"):
        embed(frame)
    with pytest.warns(BadSampleWarning, match="missing value"):
        embeddings, _ = embed(frame, on_error="nan")
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, False]


def test_transform_images_for_a_vector_backbone_raises(images):
    import keras

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(InputError, match="takes inputs of shape"):
        FeatureExtractor(model).fit_transform(images)


def test_transform_lists_all_kinds_of_faults(images, tmp_path):
    paths = []
    for number, image in enumerate(images):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[-1])
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: len(data) // 2])
    with pytest.raises(BadSampleError, match="2 of 7") as caught:
        FeatureExtractor("tiny").fit_transform([*paths[:6], tmp_path / "gone.png"])
    assert [fault.position for fault in caught.value.faults] == [2, 6]
    assert caught.value.n_unseen == 0


def test_transform_counts_samples_not_decoded_in_time(images, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.extraction.faults._SEARCH_S", 0)
    with pytest.raises(BadSampleError, match="6 more were not decoded yet") as caught:
        FeatureExtractor("tiny").fit_transform([*images[:6], tmp_path / "gone.png"])
    assert pickle.loads(pickle.dumps(caught.value)).n_unseen == 6


def test_transform_faulty_arrays_are_listed_once():
    images = np.full((6, 40, 40, 3), 100.0)
    images[2, 0, 0, 0] = np.nan
    images[4] -= 300
    with pytest.raises(BadSampleError, match="2 of 6 samples") as caught:
        FeatureExtractor("tiny").fit_transform(images)
    assert [fault.position for fault in caught.value.faults] == [2, 4]


def test_transform_empty_float_image_is_a_fault(images):
    extractor = FeatureExtractor("tiny", on_error="nan").fit(images)
    with pytest.warns(BadSampleWarning, match=r"\[0\].*has shape \(0, 0, 3\)"):
        rows = extractor.transform([np.zeros((0, 0, 3)), images[0]])
    assert np.isnan(rows).all(axis=1).tolist() == [True, False]


def test_transform_rows_of_one_image_raise(images):
    with pytest.raises(InputError, match="looks like one image in color"):
        FeatureExtractor("tiny").transform(list(images[0]))
