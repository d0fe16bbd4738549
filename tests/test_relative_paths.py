"""Relative paths keep their first meaning after a change of the working directory."""

import os
import pickle
import shutil

import numpy as np
import pytest
from sklearn.base import clone

from featx import EmbeddingCache, FeatureExtractor
from featx.backbones.registry import TINY_FILE
from featx.backbones.resolve import _BUILT


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch):
    return go_to(tmp_path / "here", monkeypatch)


def go_to(folder, monkeypatch):
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fitted(here, images):
    extractor = FeatureExtractor("tiny", cache="rows").fit(images)
    extractor.transform(images)
    return extractor


def n_forward(extractor, images):
    extractor.transform(images)
    return extractor.report_.n_forward


HOW = {
    "fitted": lambda extractor, images: extractor,
    "clone": lambda extractor, images: clone(extractor).fit(images),
    "pickle": lambda extractor, images: pickle.loads(extractor),
}


@pytest.mark.parametrize("how", HOW)
def test_relative_cache_stays_after_chdir(how, fitted, images, tmp_path, monkeypatch):
    if how == "pickle":
        fitted = pickle.dumps(fitted)
    there = go_to(tmp_path / "there", monkeypatch)
    extractor = HOW[how](fitted, images)
    assert n_forward(extractor, images) == 0
    assert extractor.get_params()["cache"] == "rows"
    assert not list(there.iterdir())


def test_relative_cache_of_an_unfitted_pickle_stays(here, images, tmp_path, monkeypatch):
    """As in a worker of joblib that was started in another folder."""
    pickled = pickle.dumps(FeatureExtractor("tiny", cache="rows"))
    there = go_to(tmp_path / "there", monkeypatch)
    assert pickle.loads(pickled).fit_transform(images).shape == (3, 400)
    assert os.listdir(here) == ["rows"]
    assert not list(there.iterdir())


def test_relative_cache_pickled_elsewhere_is_here(fitted, images, here, tmp_path, monkeypatch):
    pickled = pickle.dumps(fitted)
    there = go_to(tmp_path / "there", monkeypatch)
    shutil.rmtree(here)
    assert n_forward(pickle.loads(pickled), images) == 3
    assert os.listdir(there) == ["rows"]


def test_relative_cache_set_later_is_the_new_one(fitted, images, tmp_path, monkeypatch):
    there = go_to(tmp_path / "there", monkeypatch)
    assert n_forward(fitted.set_params(cache="other"), images) == 3
    assert os.listdir(there) == ["other"]


def test_relative_default_cache_stays_after_chdir(here, images, tmp_path, monkeypatch):
    monkeypatch.setenv("FEATX_CACHE", "rows")
    extractor = FeatureExtractor("tiny").fit(images)
    extractor.transform(images)
    there = go_to(tmp_path / "there", monkeypatch)
    assert n_forward(extractor, images) == 0
    assert not list(there.iterdir())


def test_relative_cache_object_is_where_it_was_made(here, images, tmp_path, monkeypatch):
    cache = EmbeddingCache("rows")
    go_to(tmp_path / "there", monkeypatch)
    FeatureExtractor("tiny", cache=cache).fit_transform(images)
    assert cache.info()["n_rows"] == 3
    assert os.listdir(here) == ["rows"]


@pytest.mark.parametrize("suffix", [".keras", ""])
def test_relative_backbone_stays_after_chdir(suffix, here, images, tmp_path, monkeypatch):
    shutil.copy(TINY_FILE, here / f"mine{suffix}")
    _BUILT.clear()  # which may hold the same model from another test
    extractor = FeatureExtractor(f"mine{suffix}", cache=None).fit(images)
    embeddings = extractor.transform(images)
    go_to(tmp_path / "there", monkeypatch)
    np.testing.assert_array_equal(extractor.transform(images), embeddings)


@pytest.mark.parametrize("weights", ["pretrained", "imagenet"])
def test_relative_file_called_like_weights_is_ignored(weights, here, images):
    (here / weights).write_bytes(b"not weights")
    assert n_forward(FeatureExtractor("tiny", weights=weights), images) == 3


def test_relative_backbone_missing_is_looked_for_again(here, images, monkeypatch):
    extractor = FeatureExtractor("mine.keras", cache=None)
    with pytest.raises(ValueError, match=r"an existing \.keras file"):
        extractor.fit(images)
    go_to(here / "deeper", monkeypatch)
    shutil.copy(TINY_FILE, "mine.keras")
    assert extractor.fit_transform(images).shape == (3, 400)
