"""Where models come from: names, files and callables, and what is said when they cannot be had."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from featx.backbones.keras_models import called_model, file_model, is_backbone_file, named_model
from featx.backbones.registry import TINY_FILE, find_network
from featx.exceptions import BackboneError, WeightsError, WeightsWarning

MOBILENET = find_network("mobilenet_v2")
TINY = find_network("tiny")


def small_mobilenet(weights=None, **params):
    return named_model(
        MOBILENET, input_shape=(32, 32, 3), weights=weights, params={"alpha": 0.35, **params}
    )


@pytest.mark.parametrize("network", [MOBILENET, TINY], ids=["mobilenet_v2", "tiny"])
def test_named_model_random_weights_keep_random_state(network):
    def build():
        shape = (64, 64, 3)
        return named_model(network, input_shape=shape, weights=None, params={}).get_weights()

    random.seed(5)
    expected = (random.random(), random.random())
    random.seed(5)
    first = (random.random(), build())
    assert (first[0], random.random()) == expected
    random.seed(99)
    for one, other in zip(first[1], build(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_named_model_random_weights_repeat_across_processes():
    code = (
        "from featx.backbones.registry import find_network\n"
        "from featx.backbones.keras_models import named_model\n"
        "m = named_model(find_network('mobilenet_v2'), input_shape=(32, 32, 3), weights=None,\n"
        "                params={'alpha': 0.35})\n"
        "print(m.get_weights()[0].tobytes().hex())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == small_mobilenet().get_weights()[0].tobytes().hex()


def test_named_model_tiny_random_weights_are_untrained():
    shape = (64, 64, 3)
    trained, drawn = (
        named_model(TINY, input_shape=shape, weights=weights, params={}).get_weights()[0]
        for weights in ("pretrained", None)
    )
    assert trained.shape == drawn.shape
    assert not np.allclose(trained, drawn)


def test_named_model_takes_weights_from_a_file(tmp_path):
    path = tmp_path / "mine.weights.h5"
    model = small_mobilenet()
    model.set_weights([weight + 1 for weight in model.get_weights()])
    model.save_weights(path)
    for one, other in zip(model.get_weights(), small_mobilenet(path).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_named_model_file_of_other_network_raises(tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(path)
    with pytest.raises(WeightsError, match=r"other\.weights\.h5' do not fit MobileNetV2"):
        small_mobilenet(path)


@pytest.mark.long
def test_named_model_efficientnet_file_warns_of_scaling(tmp_path):
    network, size = find_network("efficientnetb0"), {"input_shape": (32, 32, 3), "params": {}}
    path = tmp_path / "b0.weights.h5"
    random_model = named_model(network, weights=None, **size)
    random_model.save_weights(path)
    with pytest.warns(WeightsWarning, match=r"into ~/\.keras/models"):
        from_file = named_model(network, weights=path, **size)
    np.testing.assert_array_equal(from_file.get_weights()[3], random_model.get_weights()[3])


@pytest.mark.parametrize("content", [b"", b"not a file of weights"])
def test_named_model_damaged_file_says_so(content, tmp_path):
    path = tmp_path / "mine.weights.h5"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="do not fit MobileNetV2"):
        small_mobilenet(path)


def test_file_model_of_weights_alone_names_the_parameter(tmp_path):
    path = tmp_path / "mine.weights.h5"
    small_mobilenet().save_weights(path)
    with pytest.raises(WeightsError, match="pass it as weights=, with a name as the backbone"):
        file_model(path)


def test_named_model_wrong_alpha_for_file_raises(tmp_path):
    path = tmp_path / "mine.weights.h5"
    small_mobilenet().save_weights(path)
    with pytest.raises(WeightsError, match="backbone_params"):
        small_mobilenet(path, alpha=0.5)


def test_named_model_unknown_parameter_says_so():
    with pytest.raises(BackboneError, match=r"MobileNetV2 cannot be built with.*widht"):
        small_mobilenet(widht=3)


def test_named_model_params_without_published_weights_raise():
    # Keras has no weights for this alpha, and knows it before any download.
    with pytest.raises(BackboneError, match="cannot be built with its pretrained weights"):
        small_mobilenet("pretrained", alpha=0.123)


def test_named_model_of_refused_size_raises():
    with pytest.raises(BackboneError, match="cannot be built"):
        named_model(find_network("inception_v3"), input_shape=(32, 32, 3), weights=None, params={})


def test_named_model_tiny_takes_no_file(tmp_path):
    with pytest.raises(WeightsError, match="brings its own weights"):
        named_model(TINY, input_shape=(64, 64, 3), weights=tmp_path / "mine.h5", params={})


@pytest.mark.long
def test_named_model_offline_names_ways_out(tmp_path):
    """The download is real; its only way out leads to a port where nobody listens."""
    code = (
        "from featx import FeatureExtractor\n"
        "import numpy as np\n"
        "FeatureExtractor('mobilenet_v2').fit(np.zeros((2, 32, 32, 3), 'uint8'))"
    )
    environment = {
        **{name: value for name, value in os.environ.items() if name.lower() != "no_proxy"},
        "KERAS_HOME": str(tmp_path),
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("Traceback") == 1  # of this alone, not of what the download called
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "featx.exceptions.WeightsError: the pretrained weights of 'mobilenet_v2'"
    )
    for way_out in ("weights=FILE", "backbone='tiny'", "weights=None", "~/.keras/models"):
        assert way_out in last


def test_file_model_loads_without_compiling():
    assert file_model(TINY_FILE).output_shape == (None, 400)


@pytest.mark.parametrize("suffix", ["", ".h5", ".bin"])
def test_file_model_of_any_suffix_is_loaded(suffix, tmp_path):
    path = tmp_path / f"mine{suffix}"
    shutil.copy(TINY_FILE, path)
    assert file_model(path).output_shape == (None, 400)


def test_file_model_of_hdf5_file_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    keras.saving.save_model(model, tmp_path / "mine.h5")
    (tmp_path / "mine.h5").rename(tmp_path / "mine")
    np.testing.assert_array_equal(
        file_model(tmp_path / "mine").get_weights()[0], model.get_weights()[0]
    )


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_file_model_missing_or_damaged_raises(content, tmp_path):
    path = tmp_path / "mine.keras"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"mine\.keras' cannot be loaded"):
        file_model(path)


def test_file_model_code_is_not_run_unasked(tmp_path):
    path = tmp_path / "lambda.keras"
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(path)
    with pytest.raises(WeightsError, match=r"load it yourself with keras\.saving\.load_model"):
        file_model(path)


def test_called_model_is_given_the_input_shape():
    def build(input_shape):
        return keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])

    assert called_model(build, (4, 5, 3)).output_shape == (None, 60)


def test_called_model_something_else_says_so():
    with pytest.raises(BackboneError, match=r"returned a dict for input_shape=\(4, 4, 3\)"):
        called_model(lambda input_shape: {}, (4, 4, 3))


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("vgg16", False),
        ("nowhere/mine.keras", True),
        (Path("mine"), True),
        (str(TINY_FILE), True),
        (keras.Model, False),
    ],
)
def test_is_file_tells_paths_from_names(backbone, expected):
    assert is_backbone_file(backbone) is expected


def test_tiny_file_holds_no_optimizer():
    import zipfile

    with zipfile.ZipFile(TINY_FILE) as archive:
        weights = archive.extract("model.weights.h5", path=os.environ["FEATX_CACHE"])
    with h5py.File(weights) as file:
        assert "optimizer" not in file
