"""Estimators of named networks with weights of a file: the saved file holds that weight file."""

import json
import os
import subprocess
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from sample_networks import with_statistics

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    TransferClassifier,
    load,
    model_card,
    report,
    save,
)
from featx.exceptions import SavedFileError

LABELS = [0, 1, 0, 1]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """The same network in the two formats of weight files, and its weights."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(3)
    model = keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None)
    with_statistics(model)
    keras.saving.save_model(model, folder / "mine.h5")
    model.save_weights(folder / "mine.weights.h5")
    return folder


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def classifier_of(weights, **params):
    params = {"input_size": 32, "backbone_params": {"alpha": 0.35}, **params}
    return TransferClassifier(FeatureExtractor("mobilenet_v2", weights=weights, **params))


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def change_manifest(path, change):
    members = members_of(path)
    manifest = json.loads(members["featx.json"])
    change(manifest)
    write_members(path, members | {"featx.json": json.dumps(manifest)})


@pytest.mark.parametrize(
    "name", ["mine.h5", pytest.param("mine.weights.h5", marks=pytest.mark.long)]
)
def test_round_trip_weight_file_travels(name, networks, images, path, tmp_path):
    weights = tmp_path / name
    weights.write_bytes((networks / name).read_bytes())
    classifier = classifier_of(weights).fit(images, LABELS)
    save(classifier, path)
    expected = classifier.predict_proba(images)
    weights.unlink()
    assert members_of(path).keys() == {"featx.json", "head.skops", "weights.h5"}
    for loaded in (load(path), load(path, cache=tmp_path / "other")):
        np.testing.assert_array_equal(loaded.predict_proba(images), expected)
        assert loaded.extractor_.space_digest_ == classifier.extractor_.space_digest_
        names = classifier.extractor_.get_feature_names_out()
        np.testing.assert_array_equal(loaded.extractor_.get_feature_names_out(), names)
    save(loaded, tmp_path / "again.featx")
    assert members_of(tmp_path / "again.featx")["weights.h5"] == members_of(path)["weights.h5"]


@pytest.mark.long
def test_round_trip_weight_file_keeps_channels(networks, path):
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
    classifier = classifier_of(networks / "mine.h5", in_channels=1, layer="block_5_add")
    save(classifier.fit(images, LABELS), path)
    loaded = load(path, cache=None)
    np.testing.assert_array_equal(loaded.predict_proba(images), classifier.predict_proba(images))


@pytest.mark.long
def test_fit_and_save_warm_needs_no_tensorflow(networks, images, path, tmp_path):
    cache, weights = tmp_path / "cache", networks / "mine.h5"
    classifier_of(weights, cache=cache).fit(images, LABELS)
    np.save(tmp_path / "images.npy", images)
    code = f"""if True:
        import sys, numpy as np
        from featx import FeatureExtractor, TransferClassifier, load, save
        extractor = FeatureExtractor(
            "mobilenet_v2", weights={str(weights)!r}, backbone_params={{"alpha": 0.35}},
            input_size=32, cache={str(cache)!r},
        )
        images = np.load({str(tmp_path / "images.npy")!r})
        save(TransferClassifier(extractor).fit(images, {LABELS}), {str(path)!r})
        load({str(path)!r}, cache={str(cache)!r}).predict(images)
        print({{"keras", "tensorflow"}} & set(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.long
def test_save_compressed_weight_file_stores_the_model(networks, images, path, tmp_path):
    """Keras reads such files, but a saved file of unknown origin may not hold them."""
    compressed = tmp_path / "compressed.weights.h5"
    with h5py.File(networks / "mine.weights.h5") as old, h5py.File(compressed, "w") as new:
        copy_compressed(old, new)
    classifier = classifier_of(compressed).fit(images, LABELS)
    save(classifier, path)
    assert "backbone.keras" in members_of(path)
    np.testing.assert_array_equal(load(path).predict(images), classifier.predict(images))


def copy_compressed(old, new):
    for name, value in old.attrs.items():
        new.attrs[name] = value
    for name, part in old.items():
        if isinstance(part, h5py.Group):
            copy_compressed(part, new.create_group(name))
        else:
            compression = "gzip" if part.shape else None
            new.create_dataset(name, data=part[()], compression=compression)


def test_save_after_file_changed_raises_and_keeps_the_old(networks, images, path, tmp_path):
    weights = tmp_path / "mine.weights.h5"
    weights.write_bytes((networks / "mine.weights.h5").read_bytes())
    classifier = classifier_of(weights).fit(images, LABELS)
    save(classifier, path)
    saved = path.read_bytes()
    with h5py.File(weights, "r+") as file:
        kernel = file["layers/conv2d/vars/0"]
        kernel[...] = kernel[...] + 1
    os.utime(weights, (1, 1))
    with pytest.raises(Exception, match="gives other embeddings now"):
        save(classifier, path)
    assert path.read_bytes() == saved


def other_weights(members):
    keras.utils.set_random_seed(4)
    model = keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None)
    return members | {"weights.h5": file_bytes(model.save_weights)}


def weights_of_another_network(members):
    dense = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    return members | {"weights.h5": file_bytes(dense.save_weights)}


def file_bytes(save_to):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "x.weights.h5")
        save_to(file)
        with open(file, "rb") as content:
            return content.read()


def no_weights(members):
    return {name: data for name, data in members.items() if name != "weights.h5"}


def junk(members):
    return members | {"weights.h5": b"junk"}


def link_to_another_file(members):
    def write(path):
        with h5py.File(path, "w") as file:
            file["layers"] = h5py.ExternalLink("/etc/passwd", "/")

    return members | {"weights.h5": file_bytes(write)}


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (other_weights, "now computes those of"),
        (weights_of_another_network, "do not fit MobileNetV2"),
        (no_weights, "it has the members"),
        (junk, "the weights in it cannot be used"),
        (link_to_another_file, "the weights in it cannot be used: .* is a link"),
    ],
)
def test_load_damaged_weights_raises(damage, fault, networks, images, path):
    save(classifier_of(networks / "mine.weights.h5").fit(images, LABELS), path)
    write_members(path, damage(members_of(path)))
    with pytest.raises(SavedFileError, match=fault):
        load(path)


@pytest.mark.parametrize(
    ("param", "value", "fault"),
    [
        ("backbone_params", {"alpha": 300}, "declares .* weights, and stores"),
        ("input_size", 30_000, "makes a tensor of .* numbers for one sample"),
    ],
)
def test_load_network_of_huge_tensors_raises(param, value, fault, networks, images, path):
    save(classifier_of(networks / "mine.weights.h5").fit(images, LABELS), path)
    change_manifest(path, lambda manifest: manifest["params"].update({param: value}))
    with pytest.raises(SavedFileError, match=fault):
        load(path)


def test_extractor_of_stored_weights_embeds_the_same(networks, images, path, tmp_path):
    extractor = FeatureExtractor(
        "mobilenet_v2",
        weights=networks / "mine.weights.h5",
        backbone_params={"alpha": 0.35},
        input_size=32,
        cache=EmbeddingCache(tmp_path / "cache"),
    )
    embeddings = extractor.fit_transform(images)
    save(extractor, path)
    loaded = load(path, cache=tmp_path / "cache")
    np.testing.assert_array_equal(loaded.transform(images), embeddings)
    assert loaded.report_.n_forward == 0
    assert "weights mine.weights.h5" in loaded.space_.label


def test_report_of_stored_weights_names_their_file(networks, images, path):
    save(classifier_of(networks / "mine.weights.h5").fit(images, LABELS), path)
    found = report(load(path), X_test=images, y_test=LABELS)
    assert found.to_dict()["model"]["weights"] == "weights of mine.weights.h5"
    assert load(path)._repr_html_()
    assert "| weights | in the saved file |" in str(model_card(load(path)))
