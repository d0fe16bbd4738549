"""Models inside saved files: what Keras reads, and under which settings."""

import contextlib
import io
import json
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest

from featx.backbones.untrusted_model import StoredModel, check_activations
from featx.exceptions import SavedFileError


@keras.saving.register_keras_serializable("featx_stored_model")
class Scale(keras.layers.Layer):
    """A custom layer."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.factor


@keras.saving.register_keras_serializable("featx_stored_model")
class Unpacking(keras.layers.Layer):
    """A layer that hands code from a file on to Keras, which may refuse it."""

    @classmethod
    def from_config(cls, config):
        code = {"class_name": "__lambda__", "config": {"value": {}}}
        keras.saving.deserialize_keras_object(code)
        return cls(**config)


class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x


def model(*layers):
    return keras.Sequential([keras.Input((4,)), *layers])


def stored(network, tmp_path, change=None, **more):
    """Return a model as it is stored, its configuration changed, or with other members."""
    network.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if change:
        config = json.loads(members["config.json"])
        change(config["config"]["layers"])
        members["config.json"] = json.dumps(config).encode()
    return zipped({**members, **more})


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return StoredModel(file.getvalue())


def compiled():
    inner = model(keras.layers.Dense(3, activation=keras.activations.gelu))
    inner.compile("adam", "mse")
    outer = model(inner)
    outer.compile("adam", "mse", metrics=["mae"])
    return outer


def with_operations():
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.RandomFlip(seed=1)(inputs) * 2.0
    x = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 1.0, 1.0])(x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(2, kernel_regularizer="l2"))(x)
    x = keras.layers.BatchNormalization(dtype="mixed_float16")(x)
    return keras.Model(inputs, keras.ops.mean(x, axis=(1, 2)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: model(keras.layers.Dense(3), keras.layers.Dropout(0.5)),
        lambda: model(Scale()),
        lambda: model(keras.layers.Dense(3, dtype="bfloat16")),
        compiled,
        with_operations,
    ],
    ids=["plain", "registered", "bfloat16", "compiled", "operations"],
)
def test_load_gives_the_weights_that_were_stored(make, tmp_path):
    network = make()
    loaded = stored(network, tmp_path).load()
    assert len(loaded.get_weights()) == len(network.get_weights())
    for ours, theirs in zip(loaded.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("network", "fault"),
    [
        (lambda: model(keras.layers.Lambda(lambda x: x)), "Lambda of keras.layers"),
        (lambda: model(Unregistered()), "register_keras_serializable"),
    ],
)
def test_check_refuses_code(network, fault, tmp_path):
    with pytest.raises(SavedFileError, match=fault):
        stored(network(), tmp_path).check()


def in_thread(job):
    """Run a job in a new thread, with which its settings of Keras end."""
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(job()))
    thread.start()
    thread.join()
    return outcome[0]


def test_load_is_safe_in_unsafe_application(tmp_path):
    """CVE-2025-9906: safe mode may have been switched off before."""
    own = tmp_path / "own.keras"
    model(keras.layers.Lambda(lambda x: x + 1)).save(own)
    file = stored(model(Unpacking()), tmp_path)

    def job():
        keras.config.enable_unsafe_deserialization()
        with pytest.raises(SavedFileError, match="deserialization of a Python lambda"):
            file.load()
        return keras.saving.load_model(own)(np.zeros((1, 4)))  # the application's setting stays

    np.testing.assert_array_equal(in_thread(job), np.ones((1, 4)))


def nested(depth):
    """Return a model whose inmost layer is called 2 ** depth times."""
    network = model(keras.layers.Dropout(0.5))
    for _ in range(depth):
        inputs = keras.Input((4,))
        network = keras.Model(inputs, network(network(inputs)))
    return network


def test_check_too_many_nested_calls_raise(tmp_path):
    def change(layers):
        for _ in range(3):
            layers[-1]["inbound_nodes"] *= 20
            layers = layers[-1]["config"]["layers"]

    stored(nested(3), tmp_path).check()
    with pytest.raises(SavedFileError, match=r"calls layers [0-9,]+ times, expected 16,384"):
        stored(nested(3), tmp_path, change).check()


def test_load_more_declared_than_stored_raises(tmp_path):
    def change(layers):
        layers[-1]["config"]["units"] = 10**11

    with pytest.raises(SavedFileError, match=r"declares 500,000,000,000 weights, and stores"):
        stored(model(keras.layers.Dense(3)), tmp_path, change).load()


def test_load_activations_of_any_size_raise(tmp_path):
    def change(layers):
        layers[-1]["config"]["n"] = 10**12

    with pytest.raises(SavedFileError, match=r"a tensor of 4,000,000,000,000 numbers"):
        stored(model(keras.layers.RepeatVector(2)), tmp_path, change).load()


def of_any_size(*layers):
    return keras.Sequential([keras.Input((None, None, 3)), *layers])


@pytest.mark.parametrize("nested", [False, True])
def test_check_activations_of_open_size_raises(nested):
    """Keras does not know the size that is made of (None, None, 3)."""
    network = of_any_size(keras.layers.UpSampling2D(400), keras.layers.GlobalAveragePooling2D())
    if nested:
        network = keras.Sequential([keras.Input((64, 64, 3)), network])
    with pytest.raises(SavedFileError, match="a tensor of 1,966,080,000 numbers for one sample"):
        check_activations(network, (64, 64, 3))


def test_check_activations_takes_what_it_should():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.RandomFlip(seed=1)(inputs) * 2.0
    left, right = keras.ops.split(keras.layers.Conv2D(4, 3)(x), 2, axis=-1)
    x = of_any_size(keras.layers.Conv2D(3, 1))(
        keras.layers.Concatenate()([left, right, left])[..., :3]
    )
    network = keras.Model(inputs, keras.ops.mean(x, axis=(1, 2)))
    check_activations(network, (64, 64, 3))
    with pytest.raises(SavedFileError, match=r"takes no samples of shape \(64, 64\)"):
        check_activations(network, (64, 64))


def test_load_external_weights_raise(tmp_path):
    """CVE-2026-1669, inside a model."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(48))
    network = model(keras.layers.Dense(3, use_bias=False))
    network.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
        group = file["layers/dense/vars"]
        del group["0"]
        group.create_dataset("0", (4, 3), np.float32, external=[(str(secret), 0, 48)])
    weights = (tmp_path / "model.weights.h5").read_bytes()
    with pytest.raises(SavedFileError, match="/layers/dense/vars/0 is stored in another file"):
        stored(network, tmp_path, **{"model.weights.h5": weights}).load()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"model.weights.npz": b""}, "4 members, expected 3 at most"),
        ({"metadata.json": None, "assets/vocabulary.txt": b"a"}, "'assets/vocabulary.txt' is"),
        ({"model.weights.h5": None}, r"'model\.weights\.h5' is missing"),
        ({"config.json": b"[]"}, "not that of a model"),
        ({"model.weights.h5": b"junk"}, "damaged"),
        ({"model.weights.h5": bytes(10**6)}, "damaged"),
    ],
)
def test_load_other_members_raise(more, fault, tmp_path):
    with pytest.raises(SavedFileError, match=fault):
        stored(model(keras.layers.Dense(3)), tmp_path, **more).load()


def test_check_bomb_raises():
    members = {"config.json": b"{}", "model.weights.h5": bytes(2**24)}
    with pytest.raises(SavedFileError, match="expands from"):
        zipped(members, zipfile.ZIP_DEFLATED).check()


def test_check_legacy_file_raises(tmp_path):
    """CVE-2025-9905: Keras reads models of the older format without safe mode."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Lambda", "config": {}})
    with pytest.raises(SavedFileError, match="not a zip file"):
        StoredModel(path.read_bytes()).check()


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers[-1]["config"].update(units=-1),
        lambda layers: layers[-1]["config"].update(units="many"),
        lambda layers: layers[-1]["config"].update(evil=1),
        lambda layers: layers[-1].update(config=5),
        lambda layers: layers.clear(),
        lambda layers: layers.append(5),
    ],
)
def test_load_senseless_configuration_raises(change, tmp_path):
    with pytest.raises(SavedFileError):
        stored(model(keras.layers.Dense(3)), tmp_path, change).load()


@pytest.mark.long
def test_load_flipped_bits_give_numbers_or_error(tmp_path):
    file = stored(model(keras.layers.Dense(3)), tmp_path)
    with zipfile.ZipFile(io.BytesIO(file.data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(members["model.weights.h5"]), 200).tolist():
        weights = bytearray(members["model.weights.h5"])
        weights[place] ^= int(rng.integers(1, 256))
        with contextlib.suppress(SavedFileError):
            loaded = zipped({**members, "model.weights.h5": bytes(weights)}).load()
            assert [weight.shape for weight in loaded.get_weights()] == [(4, 3), (3,)]
