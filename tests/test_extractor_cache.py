"""FeatureExtractor and its cache: one pass per distinct image, whatever came in between."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from extracted_files import agree, embed, write_images
from PIL import Image
from sample_networks import pixels

from featx import EmbeddingCache, FeatureExtractor
from featx.exceptions import CacheWriteWarning


@pytest.fixture
def images():
    return pixels((64, 64, 3), n_images=10)


@pytest.fixture
def paths(images, tmp_path):
    return write_images(tmp_path / "images", images)


def test_transform_first_run_forwards_each_image_once(paths):
    embeddings, report = embed(paths)
    assert embeddings.shape == (10, 400)
    assert embeddings.dtype == np.float32
    assert (report.n_samples, report.n_hits, report.n_forward) == (10, 0, 10)
    assert report.engine == "keras"
    assert report.bytes_written == embeddings.nbytes


def test_transform_second_run_forwards_none(paths):
    first, _ = embed(paths)
    second, report = embed(paths)
    assert (report.n_hits, report.n_forward, report.engine) == (10, 0, None)
    assert report.bytes_read == first.nbytes
    np.testing.assert_array_equal(first, second)


def test_transform_shuffled_samples_keeps_their_order(paths):
    first, _ = embed(paths)
    order = np.random.default_rng(1).permutation(10)
    second, report = embed(paths[order])
    assert report.n_forward == 0
    np.testing.assert_array_equal(second, first[order])


def test_transform_subset_forwards_none(paths):
    first, _ = embed(paths)
    second, report = embed(paths[3:5])
    assert report.n_forward == 0
    np.testing.assert_array_equal(second, first[3:5])


def test_transform_superset_forwards_the_new_ones(paths):
    embed(paths[:7])
    assert embed(paths)[1].n_forward == 3


def test_transform_duplicates_are_one_pass(paths, tmp_path):
    duplicate = tmp_path / "duplicate.png"
    duplicate.write_bytes(Path(paths[0]).read_bytes())
    embeddings, report = embed([paths[0], paths[1], str(duplicate), paths[0]])
    assert (report.n_forward, report.n_hits) == (2, 0)
    np.testing.assert_array_equal(embeddings[[2, 3]], embeddings[[0, 0]])
    assert np.isfinite(embeddings).all()


def test_transform_renamed_file_forwards_none(paths):
    first, _ = embed(paths)
    os.rename(paths[0], paths[0] + ".renamed.png")
    second, report = embed([paths[0] + ".renamed.png"])
    assert report.n_forward == 0
    np.testing.assert_array_equal(second, first[:1])


def test_transform_changed_pixel_forwards_one(paths, images):
    first, _ = embed(paths)
    images[4, 0, 0, 0] ^= 255
    Image.fromarray(images[4]).save(paths[4])
    second, report = embed(paths)
    assert report.n_forward == 1
    assert np.flatnonzero((first != second).any(axis=1)).tolist() == [4]


def test_transform_changed_weights_forward_all(images):
    import keras

    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(2, 3)])
    extractor = FeatureExtractor(model)
    first = extractor.fit_transform(images)
    kernel = model.layers[0].kernel
    kernel.assign(kernel + 1e-3)
    second = extractor.fit_transform(images)
    assert extractor.report_.n_forward == 10
    assert not np.array_equal(first, second)


def test_transform_hdf5_partly_cached_forwards_the_rest(images, tmp_path):
    embed(images[[2, 5, 6]])
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", data=images)
        embeddings, report = embed(dataset)
    assert report.n_forward == 7
    assert agree(embeddings, embed(images, cache=None)[0])


def test_transform_without_cache_stores_nothing(images, tmp_path):
    embed(images, cache=None)
    assert embed(images, cache=None)[1].n_forward == 10
    assert not (tmp_path / "cache").exists()


def test_transform_cache_parameter_names_the_folder(images, tmp_path):
    for cache in (tmp_path / "a", str(tmp_path / "a"), EmbeddingCache(tmp_path / "a")):
        embed(images, cache=cache)
    assert EmbeddingCache(tmp_path / "a").info()["n_forward"] == 10


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_transform_unwritable_cache_warns_and_returns_rows(kind, images, tmp_path, monkeypatch):
    monkeypatch.setattr("featx._files._PAUSE_S", -1)  # which no waiting takes
    place = tmp_path / "place"
    place.touch() if kind == "file" else place.symlink_to(tmp_path / "gone")
    with pytest.warns(CacheWriteWarning, match="cache=PATH") as caught:
        embeddings, report = embed(images, cache=place / "cache")
    assert np.isfinite(embeddings).all()
    assert report.bytes_written == 0
    assert {warning.filename for warning in caught} == {embed.__code__.co_filename}


def test_transform_many_shards_are_compacted(images, monkeypatch):
    monkeypatch.setattr("featx.extraction.row_writer._STORE_EVERY_S", 0.0)
    monkeypatch.setattr("featx.extraction.row_writer.MAX_SHARDS", 4)
    embeddings, _ = embed(images, batch_size=2)
    assert EmbeddingCache().info()["n_shards"] == 1
    np.testing.assert_array_equal(embed(images)[0], embeddings)


def run_child(code, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True, **kwargs
    )


def test_transform_warm_run_imports_no_tensorflow(paths):
    embed(paths)
    code = f"""
        import sys
        from featx import FeatureExtractor
        extractor = FeatureExtractor("tiny")
        extractor.fit_transform({paths.tolist()!r})
        assert extractor.report_.n_forward == 0
        assert not {{"tensorflow", "keras", "h5py", "jax"}} & set(sys.modules), "imported"
    """
    child = run_child(code)
    _, errors = child.communicate()
    assert child.returncode == 0, errors


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_transform_killed_run_resumes(how, tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = f"""
        import signal
        import time
        import numpy as np
        import featx.extraction.row_writer
        from featx import FeatureExtractor
        featx.extraction.row_writer._STORE_EVERY_S = 0.0
        # A shell ignores interrupts on behalf of what it runs in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        images = np.load({str(tmp_path / "images.npy")!r}, mmap_mode="r")

        class Slow:  # a sample source as slow as a network drive
            shape, dtype, ndim = images.shape, images.dtype, images.ndim
            def __array__(self): return np.asarray(images)
            def __getitem__(self, rows):
                block = np.asarray(images[rows])
                time.sleep(0.5 if len(block) < 400 else 0)
                return block

        FeatureExtractor("tiny", batch_size=4, n_jobs=1).fit_transform(Slow())
    """
    child = run_child(code)
    deadline = time.monotonic() + 120
    while EmbeddingCache().info()["n_rows"] < 8 and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(how)
    child.communicate()
    stored = EmbeddingCache().info()["n_rows"]
    assert 8 <= stored < 400
    _, report = embed(images)
    assert (report.n_hits, report.n_forward) == (stored, 400 - stored)


def test_transform_float16_cache_repeats_its_rows(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    exact = FeatureExtractor("tiny").fit_transform(images)
    extractor = FeatureExtractor("tiny", cache=EmbeddingCache(tmp_path, dtype="float16"))
    first, second = extractor.fit_transform(images), extractor.fit_transform(images)
    assert extractor.report_.n_forward == 0
    assert first.dtype == second.dtype == np.float32
    np.testing.assert_array_equal(first, exact.astype(np.float16))
    np.testing.assert_array_equal(second, first)
