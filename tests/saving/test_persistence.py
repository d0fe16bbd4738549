"""Saving and loading: one file, no pickle, nothing untrusted, the space checked."""

import json
import os
import re
import subprocess
import sys
import zipfile
from functools import partial

import keras
import numpy as np
import pytest
import skops.io
from extracted_files import agree
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from skops.io.exceptions import UntrustedTypesFoundException

import featx
from featx import (
    EmbeddingCache,
    FeatureExtractor,
    FineTune,
    TransferClassifier,
    TransferRegressor,
    load,
    save,
)
from featx.exceptions import BackboneError, ParameterError, SavedFileError, UntrustedTypesError
from featx.heads.named import CLASSIFIER_HEADS, make_head
from featx.saving.persistence import check_savable


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def labels():
    return np.array(["a", "b", "c"] * 4)


def model(n_channels=3):
    import keras

    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((64, 64, n_channels)), keras.layers.Conv2D(4, 3)])


def round_trip(estimator, path, **kwargs):
    save(estimator, path, **kwargs)
    return load(path, **kwargs)


@pytest.mark.parametrize(
    "head", ["logistic", "ridge", "svm", "knn", "nearest_mean", "lda", LogisticRegression()]
)
def test_round_trip_classifier_predicts_the_same(head, images, labels, path):
    classifier = TransferClassifier("tiny", head).fit(images, labels)
    loaded = round_trip(classifier, path)
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))
    assert str(loaded.get_params()["head"]) == str(head)


def test_round_trip_regressor_predicts_the_same(images, path):
    regressor = TransferRegressor("tiny", random_state=3).fit(images, np.arange(12.0))
    loaded = round_trip(regressor, path)
    np.testing.assert_array_equal(loaded.predict(images), regressor.predict(images))
    assert loaded.random_state == 3


def test_round_trip_extractor_embeds_the_same(images, path):
    extractor = FeatureExtractor("tiny", layer="stage3", pooling="max")
    embeddings = extractor.fit_transform(images)
    loaded = round_trip(extractor, path)
    np.testing.assert_array_equal(loaded.transform(images), embeddings)
    assert loaded.report_.n_forward == 0
    assert loaded.feature_shape_ == embeddings.shape[1:]


@pytest.mark.parametrize("backbone", ["random", "object", "file"])
def test_round_trip_keeps_names_of_features(backbone, images, path, tmp_path):
    network = model()
    network.save(tmp_path / "my network.keras")
    extractor = {
        "random": FeatureExtractor("tiny", weights=None, layer="stage1", pooling="max"),
        "object": FeatureExtractor(network, preprocessing="unit"),
        "file": FeatureExtractor(tmp_path / "my network.keras", preprocessing="unit"),
    }[backbone].fit(images)
    names = extractor.get_feature_names_out().tolist()
    stem = {"random": "tiny_stage1_max", "object": f"{network.name}_avg", "file": "my network_avg"}
    assert names[0] == f"{stem[backbone]}_0"
    for _ in range(2):
        extractor = round_trip(extractor, path)
        assert extractor.get_feature_names_out().tolist() == names


def test_load_file_without_label_has_that_of_space(images, path):
    extractor = FeatureExtractor("tiny", weights=None).fit(images)
    save(extractor, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(entries["featx.json"])
    del manifest["backbone"]["label"]
    entries["featx.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    names = load(path).get_feature_names_out().tolist()
    assert names == extractor.get_feature_names_out().tolist()


def test_round_trip_keeps_the_way_to_resize(images, path):
    wide = np.concatenate([images, images[::-1]], axis=2)
    extractor = FeatureExtractor("tiny", resize="crop")
    embeddings = extractor.fit_transform(wide)
    loaded = round_trip(extractor, path)
    np.testing.assert_array_equal(loaded.transform(wide), embeddings)
    loaded = load(path, cache=None)
    assert agree(loaded.transform(wide), embeddings)
    assert loaded.report_.n_forward == len(wide)


def test_round_trip_random_weights_travel(images, labels, path):
    extractor = FeatureExtractor("tiny", weights=None)
    classifier = TransferClassifier(extractor).fit(images, labels)
    loaded = round_trip(classifier, path)
    assert loaded.extractor_.preprocessing == "tf"
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


def test_round_trip_model_object_shares_cache(images, labels, path):
    classifier = TransferClassifier(model()).fit(images, labels)
    loaded = round_trip(classifier, path)
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))
    assert loaded.extractor_.report_.n_forward == 0


def test_cache_info_names_file_of_space(images, labels, path, tmp_path):
    save(TransferClassifier("tiny").fit(images, labels), path)
    classifier = TransferClassifier(FeatureExtractor("tiny", weights=None)).fit(images, labels)
    save(classifier, path)
    assert {space["file"] for space in EmbeddingCache().info()["spaces"]} == {None, path.name}
    other = EmbeddingCache(tmp_path / "other")
    load(path, cache=other).predict(images)
    assert [space["file"] for space in other.info()["spaces"]] == [path.name]


def test_round_trip_preprocessing_layer_travels(images, labels, path):
    import keras

    extractor = FeatureExtractor(model(), preprocessing=keras.layers.Rescaling(1 / 255, -0.5))
    classifier = TransferClassifier(extractor).fit(images, labels)
    loaded = round_trip(classifier, path)
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


def test_load_forest_needs_no_trust(images, labels, path):
    classifier = TransferClassifier("tiny", "forest", random_state=0).fit(images, labels)
    loaded = round_trip(classifier, path)
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))


def test_load_other_types_need_trust(images, labels, path):
    head = KNeighborsClassifier(2, algorithm="kd_tree")
    classifier = TransferClassifier("tiny", head).fit(images, labels)
    with pytest.raises(UntrustedTypesError) as caught:
        save(classifier, path)
    assert not path.exists()
    trusted = str(caught.value).partition("trusted=")[2].strip("[]'").split("', '")
    loaded = round_trip(classifier, path, trusted=trusted)
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))
    with pytest.raises(UntrustedTypesError):
        load(path)


@pytest.mark.parametrize("trusted", [True, "sklearn.tree._tree.Tree", [1], None])
def test_load_trusted_that_is_no_list_raises(trusted, path):
    """CVE-2024-37065: True once meant everything."""
    with pytest.raises(ParameterError, match="trusted="):
        load(path, trusted=trusted)


def test_save_unfitted_raises(path):
    with pytest.raises(NotFittedError):
        save(TransferClassifier("tiny"), path)


def test_save_foreign_object_raises(path):
    with pytest.raises(ParameterError, match="estimator is a LogisticRegression"):
        save(LogisticRegression(), path)


def test_save_drops_generator_as_random_state(images, labels, path):
    state = np.random.RandomState(0)
    classifier = TransferClassifier("tiny", random_state=state).fit(images, labels)
    assert round_trip(classifier, path).random_state is None


def test_save_keeps_no_pickle_or_path(images, labels, path):
    extractor = FeatureExtractor("tiny", cache=path.parent / "secret")
    save(TransferClassifier(extractor).fit(images, labels), path)
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {"featx.json", "head.skops"}
        for name in archive.namelist():
            assert b"secret" not in archive.read(name)


def test_load_missing_file_raises(tmp_path):
    with pytest.raises(SavedFileError, match="no such file"):
        load(tmp_path / "gone.featx")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_load_foreign_file_raises(content, path):
    path.write_bytes(content)
    with pytest.raises(SavedFileError, match="not a saved featx estimator"):
        load(path)


@pytest.mark.parametrize("manifest", [b"{}", b"[]", b"no json", b'{"class": "os.system"}'])
def test_load_zip_of_something_else_raises(manifest, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("featx.json", manifest)
    with pytest.raises(SavedFileError, match="not a saved featx estimator"):
        load(path)


def test_load_flipped_byte_raises(images, labels, path):
    save(TransferClassifier("tiny").fit(images, labels), path)
    data = path.read_bytes()
    expected = load(path).predict_proba(images)
    for offset in np.random.default_rng(0).integers(0, len(data), 40).tolist():
        damaged = bytearray(data)
        damaged[offset] ^= 0x55
        path.write_bytes(damaged)
        try:
            loaded = load(path)
        except (SavedFileError, UntrustedTypesError):
            continue
        np.testing.assert_array_equal(loaded.predict_proba(images), expected)


def test_load_other_weights_than_trained_on_raises(images, labels, path):
    save(TransferClassifier("tiny").fit(images, labels), path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(entries["featx.json"])
    manifest["space"]["identity"]["graph"] = "0" * 32
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            content = json.dumps(manifest) if name == "featx.json" else data
            archive.writestr(name, content)
    with pytest.raises(SavedFileError, match="fitted on embeddings of the space"):
        load(path)


def test_load_warm_predicts_without_tensorflow(images, labels, path, tmp_path):
    np.save(tmp_path / "images.npy", images)
    save(TransferClassifier("tiny").fit(images, labels), path)
    code = f"""if True:
        import sys
        import numpy as np
        import featx
        classifier = featx.load({str(path)!r})
        classifier.predict(np.load({str(tmp_path / "images.npy")!r}))
        assert not {{"tensorflow", "keras", "jax"}} & set(sys.modules), "imported"
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_load_model_fitted_on_float16_cache(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    cache = EmbeddingCache(tmp_path / "half", dtype="float16")
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=cache)).fit(images, [0, 1] * 3)
    save(classifier, tmp_path / "model.featx")
    for place in ("auto", None, cache):
        loaded = load(tmp_path / "model.featx", cache=place)
        np.testing.assert_array_equal(loaded.predict(images), [0, 1] * 3)


@pytest.mark.parametrize("input_size", [None, 32])
def test_round_trip_backbone_of_any_input_size(input_size, images, labels, path):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(8, 3)(inputs))
    extractor = FeatureExtractor(model, input_size=input_size)
    classifier = TransferClassifier(extractor).fit(images, labels)
    save(classifier, path)
    loaded = load(path)
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


def test_round_trip_imagenet_is_another_name(images, labels, path):
    """Files of the first version hold "imagenet" where others hold "pretrained"."""
    classifier = TransferClassifier(FeatureExtractor("tiny", weights="imagenet"))
    save(classifier.fit(images, labels), path)
    with zipfile.ZipFile(path) as archive:
        assert "backbone.keras" not in archive.namelist()
    loaded = load(path)
    assert loaded.extractor_.weights == "imagenet"
    np.testing.assert_array_equal(loaded.predict(images), labels)
    assert loaded.extractor_.report_.n_forward == 0


@pytest.mark.long
def test_load_warm_own_weights_needs_no_tensorflow(images, labels, path, tmp_path):
    np.save(tmp_path / "images.npy", images)
    extractor = FeatureExtractor("mobilenet_v2", weights=None, backbone_params={"alpha": 0.35})
    extractor.set_params(input_size=32)
    save(TransferClassifier(extractor).fit(images, labels), path)
    load(path).predict(images)  # the first time, Keras reads the file
    code = f"""if True:
        import sys, numpy as np, featx
        featx.load({str(path)!r}).predict(np.load({str(tmp_path / "images.npy")!r}))
        print({{"keras", "tensorflow"}} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("head.skops", None, "it has the members"),
        ("head.skops", b"junk", "the head in it is damaged: .*Restore the file from a copy"),
        ("featx.json", b'{"format": 99}', "format=99: expected 2"),
    ],
)
def test_load_file_with_a_damaged_part_raises(name, content, fault, images, labels, path):
    save(TransferClassifier("tiny").fit(images, labels), path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    entries[name] = content
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries.items():
            if data is not None:
                archive.writestr(entry, data)
    with pytest.raises(SavedFileError, match="is not a saved featx estimator of this") as caught:
        load(path)
    assert re.search(fault, str(caught.value), re.DOTALL)


def test_load_model_of_keras_names_the_way(path):
    path = path.with_suffix(".keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    with pytest.raises(SavedFileError, match=r"not a saved featx .*: FeatureExtractor\(path\)"):
        load(path)


def test_load_zip_without_a_manifest_raises(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", b"a")
    with pytest.raises(SavedFileError, match=r"a file that featx.save wrote$"):
        load(path)


def test_load_folder_raises(tmp_path):
    with pytest.raises(SavedFileError, match="is a folder"):
        load(tmp_path)


def test_check_savable_names_types_before_fit():
    head = KNeighborsClassifier(2, algorithm="kd_tree")
    with pytest.raises(UntrustedTypesError, match=r"KDTree"):
        check_savable(TransferClassifier("tiny", head))
    check_savable(TransferClassifier("tiny", "forest"))
    check_savable(TransferRegressor("tiny"))
    check_savable(TransferClassifier("tiny", make_pipeline(PCA(64), LogisticRegression())))


def test_save_into_missing_folder_raises(images, tmp_path):
    extractor = FeatureExtractor("tiny").fit(images)
    with pytest.raises(ParameterError, match="no such folder to write to"):
        save(extractor, tmp_path / "none" / "model.featx")


@pytest.mark.parametrize("path", [None, b"model.featx", 5, ["model.featx"]])
def test_path_of_another_type_raises(path, images):
    classifier = TransferClassifier("tiny").fit(images, np.arange(len(images)) % 2)
    cache = EmbeddingCache()
    for call in (partial(save, classifier), load, classifier.export, cache.export, cache.import_):
        with pytest.raises(ParameterError, match=r"path=.*expected the path of a file"):
            call(path)


def test_save_over_a_folder_raises(images, tmp_path):
    extractor = FeatureExtractor("tiny").fit(images)
    with pytest.raises(ParameterError, match=r"is a folder: expected the name of a file$"):
        save(extractor, tmp_path)


def test_save_over_a_link_raises(images, tmp_path):
    (tmp_path / "model.featx").symlink_to("elsewhere")
    extractor = FeatureExtractor("tiny").fit(images)
    with pytest.raises(ParameterError, match="is a link: expected the name of a file"):
        save(extractor, tmp_path / "model.featx")


def test_save_over_a_file_keeps_its_mode(images, tmp_path):
    extractor = FeatureExtractor("tiny").fit(images)
    (tmp_path / "model.featx").touch(mode=0o600)
    save(extractor, tmp_path / "model.featx")
    assert (tmp_path / "model.featx").stat().st_mode & 0o777 == 0o600
    load(tmp_path / "model.featx")


def test_round_trip_fine_tuned_classifier_predicts_equally(images, labels, path):
    tune = FineTune("all", epochs=3, learning_rate=3e-3, patience=None)
    classifier = TransferClassifier("tiny", fine_tune=tune, random_state=0).fit(images, labels)
    assert classifier.report_.kept == "tuned"
    save(classifier, path)
    loaded = load(path)
    np.testing.assert_allclose(
        loaded.predict_proba(images), classifier.predict_proba(images), atol=1e-5
    )
    assert loaded.fine_tune is None  # it is what the training made of it


@pytest.mark.filterwarnings("ignore::featx.exceptions.NotCachedWarning")
def test_save_extractor_that_cannot_be_identified_raises(images, path):
    handle = open(os.devnull)  # noqa: SIM115
    opaque = keras.layers.Lambda(lambda x: x if handle.closed else x * 2)
    model = keras.Sequential([keras.Input(images.shape[1:]), opaque, keras.layers.Flatten()])
    extractor = FeatureExtractor(model).fit(images)
    with pytest.raises(BackboneError, match="cannot be saved: what it computes cannot be"):
        save(extractor, path)
    assert not path.exists()
    handle.close()


def test_save_extractor_under_other_settings_raises(images, path):
    model = keras.Sequential([keras.Input(images.shape[1:]), keras.layers.Flatten()])
    try:
        keras.config.set_epsilon(1e-2)
        extractor = FeatureExtractor(model, cache=None).fit(images)
        with pytest.raises(
            BackboneError, match=r"settings of Keras that are not the defaults.*'epsilon': 0\.01"
        ):
            save(extractor, path)
    finally:
        keras.config.set_epsilon(1e-7)


def test_skops_reads_estimator_with_trusted_types(images, labels):
    classifier = TransferClassifier("tiny", "nearest_mean").fit(images, labels)
    loaded = skops.io.loads(skops.io.dumps(classifier), trusted=featx.TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.predict(images), classifier.predict(images))


@pytest.mark.parametrize("head", ["probe", "ridge", "knn", "nearest_mean", "calibrated"])
def test_skops_reads_head_with_trusted_types(head):
    rows = np.random.default_rng(0).normal(size=(40, 6))
    heads = {**CLASSIFIER_HEADS, "calibrated": lambda: CalibratedClassifierCV(LinearSVC(), cv=2)}
    fitted = make_head(head, heads).fit(rows, ["a", "b", "c", "d"] * 10)
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=featx.TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.predict(rows), fitted.predict(rows))


def test_skops_refuses_trees_beside_trusted_types():
    fitted = DecisionTreeClassifier().fit(np.arange(8).reshape(-1, 1), ["a", "b"] * 4)
    with pytest.raises(UntrustedTypesFoundException, match=r"_tree\.Tree"):
        skops.io.loads(skops.io.dumps(fitted), trusted=featx.TRUSTED_TYPES)
