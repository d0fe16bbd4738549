"""Keras' global settings: default ones where featx builds networks, restored afterwards."""

import json
import random
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

from featx import FeatureExtractor, FineTune, TransferClassifier, load, save
from featx.backbones.augment import Augmentation
from featx.backbones.resolve import _BUILT, _KNOWN
from featx.digests.keras_settings import STANDARD, KerasSettings, backend_name, current_settings
from featx.exceptions import EngineError, ParameterError, WeightsError


def set_all(policy="mixed_bfloat16", floatx="float64", epsilon=1e-2, data_format="channels_first"):
    keras.config.set_floatx(floatx)
    keras.config.set_epsilon(epsilon)
    keras.config.set_image_data_format(data_format)
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def other_settings():
    """Set all global settings of Keras to other values."""
    set_all()
    yield current_settings()
    set_all("float32", "float32", 1e-7, "channels_last")


@pytest.mark.parametrize("name", ["TF_SET_ONEDNN_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE"])
def test_transform_float32_in_fewer_bits_is_refused(name, monkeypatch, tmp_path):
    # Rows of MobileNetV2 differ by 0.4 % (TensorFlow 2.21, a CPU that knows bfloat16).
    images = np.zeros((2, 64, 64, 3), np.uint8)
    extractor = FeatureExtractor("tiny", cache=tmp_path).fit(images)
    monkeypatch.setenv(name, "BF16")
    with pytest.raises(EngineError, match=f"{name}=BF16 is set"):
        extractor.transform(images)
    monkeypatch.setenv(name, "STRICT")
    rows = extractor.transform(images)
    monkeypatch.setenv(name, "BF16")
    np.testing.assert_array_equal(extractor.transform(images), rows)  # from the cache


@pytest.mark.parametrize("backbone", ["tiny", "model"])
def test_fit_inside_a_graph_is_refused(backbone):
    import tensorflow as tf

    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(2, 3)(inputs))
    extractor = FeatureExtractor(model if backbone == "model" else backbone, cache=None)
    with tf.Graph().as_default(), pytest.raises(EngineError, match="call it outside"):
        extractor.fit_transform(np.zeros((2, 8, 8, 3), np.uint8))


@pytest.fixture
def restored():
    yield
    set_all("float32", "float32", 1e-7, "channels_last")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


def forget_built():
    """Do as a new process would."""
    _BUILT.clear()
    _KNOWN.clear()


def mobilenet(**params):
    forget_built()
    return FeatureExtractor(
        "mobilenet", weights=None, backbone_params={"alpha": 0.25}, input_size=32, **params
    )


@keras.saving.register_keras_serializable("featx_keras_settings")
class AsksForEpsilon(layers.Layer):
    """A custom layer that asks for a setting while it is called."""

    def call(self, inputs):
        return inputs * keras.config.epsilon()


@keras.saving.register_keras_serializable("featx_keras_settings")
class AsksForPolicy(layers.Layer):
    """A custom layer that rounds to the dtype of the current policy."""

    def call(self, inputs):
        rounded = ops.cast(inputs / 3, keras.config.dtype_policy().compute_dtype)
        return ops.cast(rounded, "float32")


def test_transform_named_network_ignores_global_settings(images, restored):
    expected = mobilenet(cache=None).fit_transform(images)
    set_all()
    rows = mobilenet(cache=None).fit_transform(images)
    np.testing.assert_array_equal(rows, expected)


def test_transform_under_other_policy_poisons_no_rows(images, restored):
    expected = mobilenet(cache=None).fit_transform(images)
    mobilenet().fit_transform(images[:1])  # remembers the space
    set_all("mixed_float16", "float32", 1e-7, "channels_last")
    mobilenet().fit_transform(images)
    set_all("float32", "float32", 1e-7, "channels_last")
    read = mobilenet()
    # Batches of one image and of several round differently; float16 is off by 1e-3.
    gaps = np.linalg.norm(read.fit_transform(images) - expected, axis=1)
    assert (gaps <= 1e-5 * np.linalg.norm(expected, axis=1)).all()
    assert read.report_.n_forward == 0


@pytest.mark.parametrize("layer", [AsksForEpsilon, AsksForPolicy])
def test_transform_layer_that_asks_for_settings(layer, images, restored):
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Flatten(), layer(dtype="float32")])
    for policy, epsilon in (("float32", 1e-7), ("mixed_bfloat16", 1e-2), ("float32", 1e-7)):
        set_all(policy, "float32", epsilon, "channels_last")
        rows = FeatureExtractor(model).fit_transform(images)
        np.testing.assert_allclose(rows, model(images.astype("float32")), rtol=1e-6)


def test_transform_plain_model_ignores_policy(images, restored):
    model = keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(2, 3)])
    FeatureExtractor(model).fit(images).transform(images)
    keras.config.set_dtype_policy("mixed_float16")
    extractor = FeatureExtractor(model)
    extractor.fit_transform(images)
    assert extractor.report_.n_forward == 0


def test_transform_callable_runs_under_callers_settings(images, other_settings):
    found = []

    def build(shape):
        found.append(current_settings())
        inputs = keras.Input(shape, dtype="float32")
        return keras.Model(inputs, layers.Flatten()(inputs))

    FeatureExtractor(build, cache=None).fit_transform(images)
    assert found == [other_settings]


def test_augmentation_ignores_global_settings(images, restored):
    expected = Augmentation("standard", (32, 32, 3))
    image = images[0].astype("float32")
    key, changed = expected.digest, expected(image, 1)
    set_all()
    again = Augmentation("standard", (32, 32, 3))
    assert again.digest == key
    np.testing.assert_array_equal(again(image, 1), changed)


def test_augmentation_layers_follow_keras_settings(restored):
    digests = set()
    for epsilon in (1e-7, 1e-2):
        keras.config.set_epsilon(epsilon)
        digests.add(Augmentation(AsksForEpsilon(), (8, 8, 3)).digest)
    assert len(digests) == 2


def test_transform_restores_settings(images, other_settings):
    mobilenet(cache=None).fit_transform(images)
    assert current_settings() == other_settings


def test_fit_file_that_is_refused_restores_settings(images, other_settings, tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"no model")
    with pytest.raises(WeightsError):
        FeatureExtractor(tmp_path / "bad.keras").fit(images)
    assert current_settings() == other_settings


def test_applied_in_several_threads_restores_settings(other_settings):
    seen = []

    def work(settings):
        for _ in range(50):
            with settings.applied():
                seen.append(current_settings() == settings)
            seen.append(current_settings()._of_process == other_settings._of_process)

    others = [STANDARD, KerasSettings("float32", "float16", 1e-5, "channels_last")]
    threads = [threading.Thread(target=work, args=(each,)) for each in others * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen)
    assert len(seen) == 400
    assert current_settings() == other_settings


def test_applied_nested_after_an_error_restores_settings(other_settings):
    def fail():
        with STANDARD.applied():
            with other_settings.applied():
                assert current_settings() == other_settings
            assert current_settings() == STANDARD
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert current_settings() == other_settings


def test_backend_name_reads_what_keras_reads(tmp_path, monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "")  # which Keras takes for none
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert backend_name() == "tensorflow"
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    assert backend_name() == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert backend_name() == "torch"


class DrawsAnywhere(layers.Layer):
    """A layer that draws from the generators of the process."""

    def call(self, inputs, training=False):
        if not training:
            return inputs
        drawn = float(np.random.rand() + random.random())  # noqa: NPY002
        return inputs + keras.random.uniform((1,), dtype=inputs.dtype) + drawn


def global_state():
    """Return all that the process shares and a call of featx might leave changed."""
    generator = np.random.get_state()  # noqa: NPY002
    drawn = keras.random.uniform((1,), dtype="float32")  # from Keras' own generator
    return (
        current_settings(),
        keras.config.is_traceback_filtering_enabled(),
        keras.config.is_interactive_logging_enabled(),
        random.getstate(),
        (generator[1].tolist(), generator[2]),
        float(np.asarray(drawn)[0]),
    )


@pytest.fixture
def fitted(images):
    X = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
    return X, TransferClassifier(FeatureExtractor("tiny")).fit(X, [0, 1, 0, 1])


def test_public_calls_leave_global_state(fitted, other_settings, tmp_path):
    X, classifier = fitted
    y = [0, 1, 0, 1]
    anywhere = DrawsAnywhere(dtype="float32")

    def tune():
        tuning = FineTune(1, epochs=1, validation=0.5)
        params = {"fine_tune": tuning, "random_state": 0}  # None draws from NumPy's generator
        TransferClassifier(FeatureExtractor("tiny"), **params).fit(X, y)

    def refused():
        with pytest.raises(ParameterError, match="do not follow from a seed"):
            FeatureExtractor("tiny", views=2, augment=anywhere).fit(X)

    def saved():
        save(classifier, tmp_path / "model.featx")
        load(tmp_path / "model.featx").predict(X)

    calls = {
        "fit": lambda: TransferClassifier(FeatureExtractor("tiny", cache=None)).fit(X, y),
        "views": lambda: FeatureExtractor("tiny", views=2, augment="standard").fit_transform(X),
        "tune": tune,
        "refused": refused,
        "save": saved,
        "export": lambda: classifier.export(tmp_path / "model.keras"),
    }
    changed = []
    for name, call in calls.items():
        keras.utils.set_random_seed(0)
        expected = global_state()
        keras.utils.set_random_seed(0)
        call()
        if global_state() != expected:
            changed.append(name)
    assert changed == []
