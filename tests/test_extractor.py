"""FeatureExtractor: the promise of one pass per distinct image, parameters, output."""

import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from featx import EmbeddingCache, FeatureExtractor
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    BadSampleWarning,
    CacheWriteWarning,
    InputError,
    ParameterError,
)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def paths(images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    names = [folder / f"{number}.png" for number in range(len(images))]
    for image, name in zip(images, names, strict=True):
        Image.fromarray(image).save(name)
    return np.array([str(name) for name in names])


def embed(X, **params):
    extractor = FeatureExtractor("tiny", **params)
    return extractor.fit_transform(X), extractor.report_


def agree(a, b):
    return np.linalg.norm(a - b, axis=1).max() <= 1e-5 * np.linalg.norm(b, axis=1).min()


def test_transform_first_run_forwards_each_image_once(paths):
    embeddings, report = embed(paths)
    assert embeddings.shape == (10, 400)
    assert embeddings.dtype == np.float32
    assert (report.n_samples, report.n_hits, report.n_forward) == (10, 0, 10)
    assert report.engine == "keras"
    assert report.bytes_written == embeddings.nbytes


def test_transform_second_run_forwards_none_and_is_identical(paths):
    first, _ = embed(paths)
    second, report = embed(paths)
    assert (report.n_hits, report.n_forward, report.engine) == (10, 0, None)
    assert report.bytes_read == first.nbytes
    np.testing.assert_array_equal(first, second)


def test_transform_shuffled_keeps_the_order_that_went_in(paths):
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
    twin = tmp_path / "twin.png"
    twin.write_bytes(Path(paths[0]).read_bytes())
    embeddings, report = embed([paths[0], paths[1], str(twin), paths[0]])
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


def test_transform_other_batch_sizes_agree(images):
    reference, _ = embed(images, cache=None)
    for batch_size in (1, 3, 10, 64):
        assert agree(embed(images, cache=None, batch_size=batch_size)[0], reference)


def test_transform_agrees_with_plain_keras(images):
    import keras

    from featx.networks.applications import TINY_FILE

    model = keras.saving.load_model(TINY_FILE, compile=False)
    plain = model.predict(images.astype("float32") / 127.5 - 1, verbose=0)
    assert agree(embed(images)[0], plain)


def test_transform_paths_and_arrays_agree(paths, images):
    assert agree(embed(paths)[0], embed(images)[0])


def test_transform_memmap_and_hdf5_agree_with_array(images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    reference, _ = embed(images, cache=None)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        dataset = file.create_dataset("images", data=images)
        for X in (np.load(tmp_path / "images.npy", mmap_mode="r"), dataset):
            np.testing.assert_array_equal(embed(X, cache=None, batch_size=4)[0], reference)


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
    assert {told.filename for told in caught} == {__file__}


def test_transform_many_shards_are_compacted(images, monkeypatch):
    monkeypatch.setattr("featx.forward.row_writer._STORE_EVERY_S", 0.0)
    monkeypatch.setattr("featx.forward.row_writer.MAX_SHARDS", 4)
    embeddings, _ = embed(images, batch_size=2)
    assert EmbeddingCache().info()["n_shards"] == 1
    np.testing.assert_array_equal(embed(images)[0], embeddings)


def test_transform_tap_and_poolings_agree_with_each_other(images):
    maps = embed(images, layer="stage2", pooling=None)[0]
    assert maps.ndim == 4
    mean, peak = maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))
    assert agree(embed(images, layer="stage2")[0], mean)
    assert agree(embed(images, layer="stage2", pooling="max")[0], peak)
    assert agree(embed(images, layer="stage2", pooling="avgmax")[0], np.hstack([mean, peak]))
    flat = embed(images, layer="stage2", pooling="flatten")[0]
    np.testing.assert_array_equal(flat, maps.reshape(10, -1))


def test_transform_wrong_layer_suggests_near_ones(images):
    with pytest.raises(ParameterError, match="Did you mean 'stage2'"):
        embed(images, layer="stage_2")


def test_transform_vectors_for_a_vector_backbone():
    import keras

    def backbone(input_shape):
        return keras.Sequential(
            [keras.Input(input_shape), keras.layers.Dense(3, kernel_initializer="ones")]
        )

    X = np.random.default_rng(0).normal(size=(5, 4))
    extractor = FeatureExtractor(backbone).fit(X)
    np.testing.assert_allclose(extractor.transform(X), np.tile(X.sum(1), (3, 1)).T, rtol=1e-5)
    assert extractor.n_features_in_ == 4
    with pytest.raises(ValueError, match="expecting 4 features"):
        extractor.transform(X[:, :2])


def test_transform_faulty_samples_known_before_the_pass_stop_it(paths, tmp_path):
    (tmp_path / "empty.png").touch()
    X = [*paths, str(tmp_path / "gone.png"), str(tmp_path / "empty.png")]
    with pytest.raises(BadSampleError) as caught:
        embed(X)
    assert [fault.position for fault in caught.value.faults] == [10, 11]
    assert EmbeddingCache().info()["n_forward"] == 0


def test_transform_damaged_sample_is_listed_and_the_others_are_kept(paths):
    data = Path(paths[2]).read_bytes()
    Path(paths[2]).write_bytes(data[: len(data) // 2])
    Path(paths[5]).write_bytes(data[: len(data) // 2])
    with pytest.raises(BadSampleError) as caught:
        embed(paths)
    assert [fault.position for fault in caught.value.faults] == [2, 5]
    assert EmbeddingCache().info()["n_rows"] == 8


def test_transform_on_error_nan_gives_nan_rows_and_one_warning(paths, tmp_path):
    data = Path(paths[2]).read_bytes()
    Path(paths[2]).write_bytes(data[: len(data) // 2])
    with pytest.warns(BadSampleWarning, match="2 of 11 samples") as caught:
        embeddings, report = embed([*paths, str(tmp_path / "gone.png")], on_error="nan")
    assert len(caught) == 1
    assert np.flatnonzero(np.isnan(embeddings).all(axis=1)).tolist() == [2, 10]
    assert report.n_forward == 9


def test_transform_missing_path_is_a_sample_that_cannot_be_read(paths):
    frame = pd.DataFrame({"path": [paths[0], None, paths[2]]})
    with pytest.raises(BadSampleError, match=r"\[1\] .*: missing value \(None or NaN\)"):
        embed(frame)
    with pytest.warns(BadSampleWarning, match="missing value"):
        embeddings, _ = embed(frame, on_error="nan")
    assert np.isnan(embeddings).all(axis=1).tolist() == [False, True, False]


def test_fit_faulty_parameters_are_listed_at_once(images):
    extractor = FeatureExtractor(
        "mobilnet",
        weights="gone.h5",
        preprocessing="tff",
        layer=3,
        pooling="mean",
        input_size=-1,
        cache=3,
        batch_size=0,
        precision="int8",
        engine="tpu",
        also_cache=5,
        views=0,
        augment="mirror",
        on_error="ignore",
        n_jobs=0,
    )
    with pytest.raises(ParameterError) as caught:
        extractor.fit(images)
    message = str(caught.value)
    assert "15 faulty parameters" in message
    assert "Did you mean" in message
    for name in extractor.get_params():
        if name not in ("backbone_params", "verbose"):
            assert f"{name}=" in message, name


@pytest.mark.parametrize(
    "params",
    [
        {"backbone": 3},
        {"backbone": "gone.keras"},
        {"backbone": lambda shape: None, "backbone_params": {"alpha": 1}},
        {"weights": 3},
        {"input_size": (3,)},
    ],
)
def test_fit_faulty_parameter_raises(params, images):
    with pytest.raises(ParameterError, match="faulty parameter"):
        FeatureExtractor(**params).fit(images)


def test_fit_changes_no_parameter(images):
    extractor = FeatureExtractor("tiny", input_size=(64, 64))
    before = extractor.get_params()
    extractor.fit_transform(images)
    assert extractor.get_params() == before


def test_get_feature_names_out_tell_backbone_layer_and_pooling(images):
    extractor = FeatureExtractor("tiny", layer="stage1", pooling="max").fit(images)
    names = extractor.get_feature_names_out()
    assert names[0] == "tiny_stage1_max_0"
    assert len(names) == extractor.feature_shape_[0]


def test_set_output_pandas_gives_a_frame(paths):
    frame = FeatureExtractor("tiny").set_output(transform="pandas").fit_transform(paths)
    assert frame.shape == (10, 400)
    assert frame.columns[-1] == "tiny_avg_399"


def test_transform_inside_pipeline_and_column_transformer(paths):
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline

    frame = pd.DataFrame({"image": paths, "age": np.arange(10.0)})
    y = np.arange(10) % 2
    columns = make_column_transformer(
        (FeatureExtractor("tiny"), ["image"]), ("passthrough", ["age"])
    )
    embeddings = FeatureExtractor("tiny").fit_transform(paths)
    pipeline = make_pipeline(columns, RidgeClassifier()).fit(frame, y)
    by_hand = np.column_stack([embeddings, frame["age"]])
    np.testing.assert_array_equal(columns.fit_transform(frame), by_hand)
    np.testing.assert_allclose(
        pipeline.decision_function(frame),
        RidgeClassifier().fit(by_hand, y).decision_function(by_hand),
        rtol=1e-4,
        atol=1e-5,
    )
    alone = make_pipeline(FeatureExtractor("tiny"), RidgeClassifier()).fit(paths, y)
    np.testing.assert_allclose(
        alone.decision_function(paths),
        RidgeClassifier().fit(embeddings, y).decision_function(embeddings),
        rtol=1e-4,
        atol=1e-5,
    )


def test_clone_and_pickle_of_fitted_extractor_transform_alike(images):
    extractor = FeatureExtractor("tiny")
    embeddings = extractor.fit_transform(images)
    for twin in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        np.testing.assert_array_equal(twin.transform(images), embeddings)


def test_transform_images_for_a_vector_backbone_raises(images):
    import keras

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with pytest.raises(InputError, match="takes inputs of shape"):
        FeatureExtractor(model).fit_transform(images)


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


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_transform_killed_run_keeps_finished_rows_and_goes_on(how, tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (400, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = f"""
        import signal
        import time
        import numpy as np
        import featx.forward.row_writer
        from featx import FeatureExtractor
        featx.forward.row_writer._STORE_EVERY_S = 0.0
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


@pytest.mark.parametrize("pooling", ["avg", None])
def test_transform_writes_into_the_array_that_is_passed(pooling, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    extractor = FeatureExtractor("tiny", layer="stage5", pooling=pooling)
    reference = extractor.fit_transform(images)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, reference.shape)
    for _ in range(2):
        assert extractor.transform(images, out=out) is out
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), reference)
        extractor.set_params(cache=None)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([[0.0] * 400], "out is a list: expected a writable, C-contiguous float32 array of shape"),
        (np.zeros((5, 399), np.float32), r"out has shape \(5, 399\) and dtype float32"),
        (np.zeros((5, 400)), "dtype float64"),
        (np.zeros((400, 5), np.float32).T, "cannot be written row by row"),
        (np.broadcast_to(np.float32(0), (5, 400)), "cannot be written row by row"),
    ],
)
def test_transform_array_that_cannot_take_the_rows_raises(out, message):
    images = np.zeros((5, 64, 64, 3), np.uint8)
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor("tiny").fit(images).transform(images, out=out)


def test_transform_half_precision_storage_gives_the_same_rows_twice(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    exact = FeatureExtractor("tiny").fit_transform(images)
    extractor = FeatureExtractor("tiny", cache=EmbeddingCache(tmp_path, dtype="float16"))
    first, second = extractor.fit_transform(images), extractor.fit_transform(images)
    assert extractor.report_.n_forward == 0
    assert first.dtype == second.dtype == np.float32
    np.testing.assert_array_equal(first, exact.astype(np.float16))
    np.testing.assert_array_equal(second, first)


def random_model(seed, shape=(None, None, 3)):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape)
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))


def test_transform_file_that_was_replaced_since_fit_raises(images, tmp_path):
    path = tmp_path / "own.keras"
    random_model(0).save(path)
    extractor = FeatureExtractor(path, input_size=16).fit(images)
    extractor.transform(images)
    random_model(1).save(path)
    with pytest.raises(BackboneError, match="own gives other embeddings now than when fit"):
        extractor.transform(images)
    assert extractor.fit_transform(images).shape == (len(images), 4)


def test_transform_model_that_was_trained_since_fit_raises(images):
    model = random_model(0)
    extractor = FeatureExtractor(model, input_size=16).fit(images)
    model.layers[-1].kernel.assign(2 * model.layers[-1].kernel)
    with pytest.raises(BackboneError, match="Call fit again"):
        extractor.transform(images)


def test_transform_images_of_another_size_are_resized_as_in_fit():
    large = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    small = large[:, ::2, ::2]
    extractor = FeatureExtractor(random_model(0)).fit(large)
    explicit = FeatureExtractor(random_model(0), input_size=24)
    np.testing.assert_array_equal(extractor.transform(small), explicit.fit_transform(small))


def test_feature_names_before_fit_raise():
    with pytest.raises(NotFittedError):
        FeatureExtractor("tiny").get_feature_names_out()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"input_size": 48}, "input_size=48: expected 64, the only size of 'tiny'"),
        ({"backbone_params": {"alpha": 1}}, "no constructor here"),
        ({"backbone": "vgg16", "backbone_params": "alpha=1"}, "a dict for the network's"),
        ({"backbone": "vgg16", "backbone_params": {"input_shape": 3}}, "'input_size' decides"),
        ({"backbone": random_model, "weights": "w.h5"}, "a backbone without a name brings its own"),
        ({"weights": 3}, "weights=3: expected 'imagenet', None, or the path of a file"),
    ],
)
def test_check_params_backbones_that_cannot_be_so(params, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        FeatureExtractor(**{"backbone": "tiny", **params}).check_params()


def test_transform_lists_header_faults_and_decoding_faults_together(images, tmp_path):
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


def test_transform_says_how_many_samples_it_had_no_time_to_decode(images, tmp_path, monkeypatch):
    monkeypatch.setattr("featx.forward.faults._SEARCH_S", 0)
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


def test_transform_empty_float_image_is_a_fault_like_any_other(images):
    extractor = FeatureExtractor("tiny", on_error="nan").fit(images)
    with pytest.warns(BadSampleWarning, match=r"\[0\].*has shape \(0, 0, 3\)"):
        rows = extractor.transform([np.zeros((0, 0, 3)), images[0]])
    assert np.isnan(rows).all(axis=1).tolist() == [True, False]


def test_transform_rows_of_one_image_are_not_many(images):
    with pytest.raises(InputError, match="looks like one image in colour"):
        FeatureExtractor("tiny").transform(list(images[0]))
