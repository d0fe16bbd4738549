"""What FeatureExtractor gives: the model's embeddings, for all kinds of input and output."""

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
from extracted_files import agree, embed, random_model, write_images
from input_samples import LazyItems
from sample_networks import pixels
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from featx import FeatureExtractor
from featx.exceptions import BackboneError, InputError, ParameterError
from featx.inputs.images import conform_pixels
from featx.inputs.resize import RESIZES


@pytest.fixture
def images():
    return pixels((64, 64, 3), n_images=10)


@pytest.fixture
def paths(images, tmp_path):
    return write_images(tmp_path / "images", images)


def test_transform_other_batch_sizes_agree(images):
    reference, _ = embed(images, cache=None)
    for batch_size in (1, 3, 10, 64):
        assert agree(embed(images, cache=None, batch_size=batch_size)[0], reference)


def test_transform_agrees_with_plain_keras(images):
    import keras

    from featx.backbones.registry import TINY_FILE

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


def test_transform_layer_and_poolings_agree(images):
    maps = embed(images, layer="stage2", pooling=None)[0]
    assert maps.ndim == 4
    mean, peak = maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))
    assert agree(embed(images, layer="stage2")[0], mean)
    assert agree(embed(images, layer="stage2", pooling="max")[0], peak)
    assert agree(embed(images, layer="stage2", pooling="avgmax")[0], np.hstack([mean, peak]))
    flat = embed(images, layer="stage2", pooling="flatten")[0]
    np.testing.assert_array_equal(flat, maps.reshape(10, -1))


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
    for other in (X[:, :2], pd.DataFrame(X[:, :2])):
        with pytest.raises(InputError, match="expecting 4 features"):
            extractor.transform(other)


def test_transform_frame_of_other_columns_raises(paths):
    frame = pd.DataFrame({"image": paths})
    extractor = FeatureExtractor("tiny", cache=None).fit(frame)
    with pytest.raises(InputError, match="Feature names unseen at fit time"):
        extractor.transform(frame.rename(columns={"image": "photo"}))


def test_get_feature_names_out_name_the_source(images):
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


def test_clone_and_pickle_transform_alike(images):
    extractor = FeatureExtractor("tiny")
    embeddings = extractor.fit_transform(images)
    for other in (clone(extractor), pickle.loads(pickle.dumps(extractor))):
        np.testing.assert_array_equal(other.transform(images), embeddings)


@pytest.mark.parametrize("pooling", ["avg", None])
def test_transform_writes_into_out(pooling, tmp_path):
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
def test_transform_unusable_out_raises(out, message):
    images = np.zeros((5, 64, 64, 3), np.uint8)
    with pytest.raises(ParameterError, match=message):
        FeatureExtractor("tiny").fit(images).transform(images, out=out)


def test_transform_replaced_file_raises(images, tmp_path):
    path = tmp_path / "own.keras"
    random_model(0).save(path)
    extractor = FeatureExtractor(path, input_size=16).fit(images)
    extractor.transform(images)
    random_model(1).save(path)
    with pytest.raises(BackboneError, match="own gives other embeddings now than when fit"):
        extractor.transform(images)
    assert extractor.fit_transform(images).shape == (len(images), 4)


def test_transform_trained_model_raises(images):
    model = random_model(0)
    extractor = FeatureExtractor(model, input_size=16).fit(images)
    model.layers[-1].kernel.assign(2 * model.layers[-1].kernel)
    with pytest.raises(BackboneError, match="Call fit again"):
        extractor.transform(images)


def test_transform_other_size_resizes_as_fit():
    large = np.random.default_rng(0).integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    small = large[:, ::2, ::2]
    extractor = FeatureExtractor(random_model(0)).fit(large)
    explicit = FeatureExtractor(random_model(0), input_size=24)
    np.testing.assert_array_equal(extractor.transform(small), explicit.fit_transform(small))


@pytest.mark.parametrize("given", ["arrays", "paths", "lazy"])
@pytest.mark.parametrize("resize", RESIZES)
def test_transform_resize_is_that_of_conform(resize, given, tmp_path):
    wide = pixels((48, 80, 3), n_images=3)
    ready = np.stack([conform_pixels(image, (64, 64, 3), resize) for image in wide])
    X = {
        "arrays": wide,
        "paths": write_images(tmp_path / "images", wide),
        "lazy": LazyItems(wide),
    }[given]
    embeddings, report = embed(X, resize=resize)
    assert report.n_forward == 3
    assert agree(embeddings, embed(ready, cache=None)[0])


def test_transform_resize_has_rows_of_its_own():
    wide = pixels((48, 80, 3), n_images=3)
    digests = set()
    for resize in RESIZES:
        extractor = FeatureExtractor("tiny", resize=resize)
        extractor.fit_transform(wide)
        assert extractor.report_.n_forward == 3
        extractor.transform(wide)
        assert extractor.report_.n_forward == 0
        digests.add(extractor.space_digest_)
    assert len(digests) == len(RESIZES)


def test_transform_views_show_what_is_resized():
    wide = pixels((48, 80, 3), n_images=3)
    ready = np.stack([conform_pixels(image, (64, 64, 3), "crop") for image in wide])
    params = {"views": 3, "augment": "standard", "cache": None}
    views = FeatureExtractor("tiny", resize="crop", **params).fit(wide).transform_views(wide)
    assert agree(views[:, 0], embed(ready, cache=None)[0])
    # Other views are drawn by pixels and number, which are the same for the image that is ready.
    expected = FeatureExtractor("tiny", **params).fit(ready).transform_views(ready)
    assert agree(views.reshape(9, -1), expected.reshape(9, -1))


def test_feature_names_before_fit_raise():
    with pytest.raises(NotFittedError):
        FeatureExtractor("tiny").get_feature_names_out()


@pytest.mark.parametrize("method", ["fit", "fit_transform"])
def test_fit_that_fails_changes_no_state(method):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    extractor = FeatureExtractor("tiny").fit(images)
    before = {name: value for name, value in vars(extractor).items() if name.endswith("_")}
    extractor.set_params(also_cache=["nope"], pooling="max")
    with pytest.raises(ParameterError, match="nope"):
        getattr(extractor, method)(images[:, :8])
    with pytest.raises(InputError):
        getattr(extractor, method)(np.zeros((0, 4)))
    after = {name: value for name, value in vars(extractor).items() if name.endswith("_")}
    assert after == before
    unfitted = FeatureExtractor("tiny", also_cache=["nope"])
    with pytest.raises(ParameterError, match="nope"):
        getattr(unfitted, method)(images)
    with pytest.raises(NotFittedError):
        unfitted.get_feature_names_out()
