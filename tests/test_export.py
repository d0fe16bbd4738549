"""Exported models agree with the estimator, in runtimes without featx."""

import json
import os
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
from exported_samples import N_IMAGES, images_of, small
from sample_networks import pixels

from featx import FeatureExtractor, TransferClassifier, __version__
from featx.engines import registry
from featx.exceptions import BackboneError, EngineError, MissingExtraError, ParameterError
from featx.export import FORMATS, FULL_PRECISION, _move_folder, check_model_export, export
from featx.heads.named import CLASSIFIER_HEADS, REGRESSOR_HEADS, make_head

SUFFIXES = {"keras": ".keras", "onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}
CLASSES = ["żółw", 'the "third" <b>', "hedgehog"]
BATCH_SIZES = (1, 5, N_IMAGES)
NETWORKS = {
    "tiny": lambda: FeatureExtractor("tiny", cache=None),
    "mobilenet_v2": lambda: FeatureExtractor(_mobilenet(), preprocessing="tf", cache=None),
}


def _mobilenet():
    """Make a network whose normalizations have the statistics of images, as if trained."""
    keras.utils.set_random_seed(0)
    constructor = keras.applications.MobileNetV2
    model = constructor(weights=None, include_top=False, alpha=0.35, input_shape=(96, 96, 3))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    for _ in range(2):
        model(images_of(96) / np.float32(127.5) - 1, training=True)
    return model


@pytest.fixture(
    scope="module", params=["tiny", pytest.param("mobilenet_v2", marks=pytest.mark.long)]
)
def fitted(request):
    images = images_of({"tiny": 64, "mobilenet_v2": 96}[request.param])
    y = np.array(CLASSES)[np.arange(N_IMAGES) % 3]
    return TransferClassifier(NETWORKS[request.param]()).fit(images, y), images


def saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return lambda inputs: loaded.serve(inputs).numpy()


def onnx_runtime(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["inputs"]
    return lambda inputs: session.run(None, {"inputs": inputs})[0]


def openvino_runtime(path):
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    settings = json.loads(model.get_rt_info("full_precision").value)
    compiled = core.compile_model(model, "CPU", settings)
    return lambda inputs: compiled({"inputs": inputs})[0]


def interpreter(path):
    import tensorflow as tf

    with warnings.catch_warnings(action="ignore"):  # deprecated
        loaded = tf.lite.Interpreter(model_path=str(path))
    run = loaded.get_signature_runner()
    return lambda inputs: next(iter(run(inputs=inputs).values()))


RUNTIMES = {
    "keras": lambda path: lambda inputs: np.asarray(keras.saving.load_model(path)(inputs)),
    "saved_model": saved_model,
    "onnx": onnx_runtime,
    "openvino": openvino_runtime,
    "litert": interpreter,
}


def archived(path, name):
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{name}.json")


def onnx_entry(path, name):
    import onnxruntime

    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map[name]


def openvino_entry(path, name):
    import openvino

    return openvino.Core().read_model(path).get_rt_info(name).value


ENTRIES = {
    "keras": archived,
    "saved_model": lambda path, name: (path / "assets.extra" / f"{name}.json").read_bytes(),
    "onnx": onnx_entry,
    "openvino": openvino_entry,
    "litert": archived,
}


def needs(format, *marks):
    missing = registry.missing_packages(format)
    skip = pytest.mark.skipif(bool(missing), reason=f"needs featx[{format}]")
    return pytest.param(format, marks=[skip, *marks])


all_formats = pytest.mark.parametrize("format", [needs(format) for format in FORMATS])


def place(folder, format):
    return folder / f"model{SUFFIXES.get(format, '')}"


@pytest.mark.slow
@all_formats
def test_export_agrees_for_any_batch_size(fitted, format, tmp_path):
    classifier, images = fitted
    path = place(tmp_path, format)
    export(classifier.extractor_, classifier.head_, path, format=format)
    run = RUNTIMES[format](path)
    expected = classifier.predict_proba(images)
    for batch_size in BATCH_SIZES:
        rows = run(images[:batch_size])
        assert rows.dtype == np.float32
        np.testing.assert_allclose(rows, expected[:batch_size], atol=1e-4)
    assert json.loads(ENTRIES[format](path, "class_names")) == sorted(CLASSES)
    side = images.shape[1]
    assert json.loads(ENTRIES[format](path, "inputs")) == {
        "featx": __version__,
        "dtype": "uint8",
        "shape": [side, side, 3],
        "range": [0, 255],
        "size": [side, side],
        "resize": "stretch",
        "resampling": "lanczos3",
    }
    others = {path.with_suffix(".bin")} if format == "openvino" else set()
    assert set(tmp_path.iterdir()) == {path} | others


@pytest.mark.slow
@all_formats
def test_export_regressor_returns_values_without_names(format, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 20, 2)).astype(np.float32), rng.normal(size=(30, 2))
    inputs = keras.Input((20, 2))
    x = keras.layers.Conv1D(6, 3, strides=2, activation="gelu")(inputs)
    extractor = FeatureExtractor(keras.Model(inputs, x), pooling="flatten", cache=None)
    head = make_head("ridge", REGRESSOR_HEADS).fit(extractor.fit_transform(X), y)
    path = place(tmp_path, format)
    export(extractor, head, path, format=format)
    run = RUNTIMES[format](path)
    for size in (1, 30):
        expected = head.predict(extractor.transform(X[:size]))
        np.testing.assert_allclose(run(X[:size]), expected, atol=1e-4)
    assert json.loads(ENTRIES[format](path, "full_precision")) == FULL_PRECISION[format]
    expected = {"featx": __version__, "dtype": "float32", "shape": [20, 2]}
    assert json.loads(ENTRIES[format](path, "inputs")) == expected
    with pytest.raises((KeyError, FileNotFoundError, RuntimeError)):
        ENTRIES[format](path, "class_names")


@pytest.mark.slow
@pytest.mark.parametrize(
    "format",
    [
        needs(format, *([pytest.mark.long] if format in ("openvino", "litert") else []))
        for format in FORMATS
    ],
)
def test_export_include_resize_takes_any_size(format, tmp_path):
    extractor, head = small(resize="crop")
    path = place(tmp_path, format)
    export(extractor, head, path, format=format, include_resize=True)
    run = RUNTIMES[format](path)
    for size, n_images in (((8, 8), 2), ((37, 21), 3), ((5, 50), 1)):
        images = pixels((*size, 3), n_images=n_images)
        expected = head.predict_proba(extractor.transform(images))
        np.testing.assert_allclose(run(images), expected, atol=2e-2)
        assert np.abs(run(images) - expected).mean() < 3e-3
    inputs = json.loads(ENTRIES[format](path, "inputs"))
    assert (inputs["shape"], inputs["size"]) == ([None, None, 3], [8, 8])
    assert inputs["resize"] == "crop"


def test_export_include_resize_of_vectors_raises(tmp_path):
    X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    inputs = keras.Input((5,))
    extractor = FeatureExtractor(keras.Model(inputs, keras.layers.Dense(3)(inputs)), cache=None)
    head = make_head("ridge", REGRESSOR_HEADS).fit(extractor.fit_transform(X), np.arange(12.0))
    with pytest.raises(ParameterError, match=r"include_resize=True.*\(5,\), which are not resized"):
        export(extractor, head, tmp_path / "model.keras", format="keras", include_resize=True)
    assert [file for file in tmp_path.iterdir() if file.suffix == ".keras"] == []


@pytest.mark.slow
def test_export_keras_file_loads_without_featx(fitted, tmp_path):
    classifier, images = fitted
    path = place(tmp_path, "keras")
    options = {"format": "keras", "include_resize": True}
    export(classifier.extractor_, classifier.head_, path, **options)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, keras, numpy as np\n"
        "sys.modules['featx'] = sys.modules['sklearn'] = None  # importing them fails\n"
        "model = keras.saving.load_model(sys.argv[1] + '/model.keras')\n"
        "np.save(sys.argv[1] + '/rows.npy', model(np.load(sys.argv[1] + '/images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True)
    rows = np.load(tmp_path / "rows.npy")
    np.testing.assert_allclose(rows, classifier.predict_proba(images), atol=1e-4)


@pytest.mark.long
def test_export_litert_needs_no_tensorflow_operations(fitted, tmp_path):
    classifier, _ = fitted
    path = place(tmp_path, "litert")
    options = {"format": "litert", "include_resize": True}
    export(classifier.extractor_, classifier.head_, path, **options)
    assert b"Flex" not in path.read_bytes()


def scaled_by(function):
    """Fit on a backbone whose layer cannot be copied, since it has no configuration."""

    class Custom(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def call(self, x):
            return self.function(x)

    inputs = keras.Input((8, 8, 3))
    extractor = FeatureExtractor(keras.Model(inputs, Custom(function)(inputs)), cache=None)
    embeddings = extractor.fit_transform(images_of(8))
    head = make_head("logistic", CLASSIFIER_HEADS).fit(embeddings, np.arange(N_IMAGES) % 3)
    return extractor, head, head.predict_proba(embeddings)


def test_export_uncopyable_layer_is_converted(tmp_path):
    extractor, head, expected = scaled_by(lambda x: x / 255.0)
    with pytest.raises(BackboneError, match="get_config"):
        export(extractor, head, tmp_path / "model.keras", format="keras")
    export(extractor, head, tmp_path / "model", format="saved_model")
    rows = saved_model(tmp_path / "model")(images_of(8))
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir() if file.name != "cache"] == ["model"]


def test_export_failed_conversion_keeps_old_file(tmp_path):
    import tensorflow as tf

    def in_python(x):
        y = tf.numpy_function(lambda array: array / 2, [x], tf.float32)
        return tf.ensure_shape(y, x.shape)

    extractor, head, _ = scaled_by(in_python)
    path = tmp_path / "model.tflite"
    path.write_text("old")
    with pytest.raises(EngineError, match="litert cannot hold this network"):
        export(extractor, head, path, format="litert")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model.tflite"]


def test_export_under_a_global_policy_stays_float32(tmp_path):
    extractor, head = small()
    expected = head.predict_proba(extractor.transform(images_of(8)))
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        export(extractor, head, tmp_path / "model.keras", format="keras")
        rows = RUNTIMES["keras"](tmp_path / "model.keras")(images_of(8))
    finally:
        keras.config.set_dtype_policy(policy)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, expected, atol=1e-4)


@pytest.mark.parametrize("format", ["keras", "saved_model"])
def test_export_replaces_existing_files(format, tmp_path):
    extractor, head = small()
    path = place(tmp_path, format)
    for _ in range(2):
        export(extractor, head, path, format=format)
    rows = RUNTIMES[format](path)(images_of(8))
    expected = head.predict_proba(extractor.transform(images_of(8)))
    np.testing.assert_allclose(rows, expected, atol=1e-4)
    assert list(tmp_path.iterdir()) == [path]


def test_export_over_other_folder_raises(tmp_path):
    extractor, head = small()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(ParameterError, match="a folder that holds only a SavedModel"):
        export(extractor, head, tmp_path / "photos", format="saved_model")
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"
    (tmp_path / "model.keras").mkdir()
    with pytest.raises(
        ParameterError, match=r"model.keras' is a folder: expected the name of a file"
    ):
        export(extractor, head, tmp_path / "model.keras", format="keras")


def test_export_over_saved_model_with_files_raises(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").touch()
    check_model_export(tmp_path / "model", "saved_model")
    (tmp_path / "link").symlink_to("model")
    (tmp_path / "notes" / "variables").mkdir(parents=True)
    for name in ("saved_model.pb", "notes.txt"):
        (tmp_path / "notes" / name).touch()
    for name in ("link", "notes"):
        with pytest.raises(ParameterError, match="a folder that holds only a SavedModel"):
            check_model_export(tmp_path / name, "saved_model")


def test_export_interrupted_between_moves_keeps_old(tmp_path, monkeypatch):
    written, path = tmp_path / "beside" / "replaced", tmp_path / "replaced"
    for folder, content in ((written, "new"), (path, "old")):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_text(content)
    real_replace, moves = os.replace, []

    def replace(source, target):
        moves.append(source)
        if len(moves) == 2:
            raise KeyboardInterrupt
        real_replace(source, target)

    monkeypatch.setattr("os.replace", replace)
    with pytest.raises(KeyboardInterrupt):
        _move_folder(written, path)
    assert (path / "saved_model.pb").read_text() == "old"
    _move_folder(written, path)
    assert (path / "saved_model.pb").read_text() == "new"


def test_export_over_second_link_raises(tmp_path):
    (tmp_path / "model.bin").symlink_to("elsewhere")
    with pytest.raises(ParameterError, match=r"model\.bin' is a link"):
        check_model_export(tmp_path / "model.xml", "openvino")


def test_export_lists_faults_of_all_arguments(tmp_path):
    with pytest.raises(ParameterError, match="Did you mean 'onnx'") as caught:
        export(None, None, tmp_path / "gone" / "model.onnx", format="onx")
    assert "existing folder" in str(caught.value)
    with pytest.raises(ParameterError, match=r"ends with '\.tflite', or format='onnx'"):
        export(None, None, tmp_path / "model.onnx", format="litert")


def test_export_without_packages_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(registry._PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(MissingExtraError, match=r"pip install 'featx\[onnx\]'"):
        export(None, None, tmp_path / "model.onnx", format="onnx")


@pytest.mark.slow
def test_export_on_another_backend_names_the_cure(tmp_path, monkeypatch):
    extractor, head = small()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ParameterError, match="KERAS_BACKEND=tensorflow"):
        export(extractor, head, tmp_path / "model.onnx", format="onnx")


def test_import_export_loads_no_keras():
    code = "import sys, featx.export; sys.exit(bool({'keras', 'tensorflow'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)
