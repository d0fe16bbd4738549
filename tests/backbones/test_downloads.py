"""Published weights come from a server on loopback: complete, once, and verified, or not at all."""

import gc
import importlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
from weights_server import weights_server

from featx import FeatureExtractor
from featx.backbones import downloads
from featx.backbones.keras_models import named_model
from featx.backbones.registry import find_network
from featx.exceptions import WeightsError

MOBILENET_V2 = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"
WAYS_OUT = (
    "weights=FILE",
    "backbone='tiny'",
    "weights=None",
    "~/.keras/models",
    "another backbone",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small network with weights of its own, and the bytes of its weight file."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2((96, 96, 3), 0.35, include_top=False, weights=None)
    path = tmp_path_factory.mktemp("published") / MOBILENET_V2
    keras.saving.save_model(model, path)
    return model, path.read_bytes()


@pytest.fixture
def server(published, monkeypatch):
    """A server from which Keras downloads, which has the weights of MobileNetV2."""
    monkeypatch.setenv("no_proxy", "*")
    with weights_server() as server:
        server.files[MOBILENET_V2] = published[1]
        for name in ("mobilenet_v2", "mobilenet_v3"):
            module = importlib.import_module(f"keras.src.applications.{name}")
            monkeypatch.setattr(module, "BASE_WEIGHT_PATH", server.url)
        yield server


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of weights of Keras, as if it had been imported with another KERAS_HOME."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras" / "models"


def load(name, size, **params):
    shape, network = (size, size, 3), find_network(name)
    return named_model(network, input_shape=shape, weights="pretrained", params=params)


def load_small():
    return load("mobilenet_v2", 96, alpha=0.35)


def check_fails(match, load=load_small):
    """Check that the weights cannot be had, and that the error names the ways out."""
    with pytest.raises(WeightsError, match=match) as caught:
        load()
    for way_out in WAYS_OUT:
        assert way_out in str(caught.value)


def check_has_published_weights(model, published):
    for ours, theirs in zip(model.get_weights(), published[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_download_once_gives_published_weights(server, folder, published, capsys):
    check_has_published_weights(load_small(), published)
    check_has_published_weights(load_small(), published)
    assert server.asked == [MOBILENET_V2] == os.listdir(folder)
    assert capsys.readouterr().out == ""  # standard output is for results
    assert socket.getdefaulttimeout() is None


@pytest.mark.long
def test_download_in_one_process_serves_the_next(server, published, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np\n"
        "from keras.src.applications import mobilenet_v2\n"
        "from featx import FeatureExtractor\n"
        f"mobilenet_v2.BASE_WEIGHT_PATH = {server.url!r}\n"
        "e = FeatureExtractor('mobilenet_v2', input_size=96, backbone_params={'alpha': 0.35},\n"
        "                     cache=None)\n"
        "np.save(sys.argv[1], e.fit_transform(np.load('images.npy')))"
    )
    environment = {**os.environ, "KERAS_HOME": str(tmp_path / "keras")}
    for name in ("first.npy", "second.npy"):
        command = [sys.executable, "-c", code, name]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert server.asked == [MOBILENET_V2]
    rows = FeatureExtractor(published[0], preprocessing="tf", cache=None).fit_transform(images)
    for name in ("first.npy", "second.npy"):
        np.testing.assert_allclose(np.load(tmp_path / name), rows, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        (404, "cannot be downloaded.*404"),
        (500, "cannot be downloaded.*500"),
        ("closed", "cannot be downloaded.*closed connection without response"),
        ("short", "cannot be downloaded.*retrieval incomplete"),
        ("unannounced", "were damaged.*truncated file.*The file is removed"),
    ],
)
def test_download_fails_then_next_call_works(fault, match, server, folder, published):
    server.fault = fault
    check_fails(match)
    assert os.listdir(folder) == []
    server.fault = None
    check_has_published_weights(load_small(), published)
    assert server.asked == [MOBILENET_V2] * 2


def test_download_refused_leaves_no_open_connection(server, folder):
    server.fault = 404
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        check_fails("404")
        gc.collect()
    assert [str(each.message) for each in caught] == []


def test_download_from_silent_server_times_out(server, folder, monkeypatch):
    monkeypatch.setattr(downloads, "SILENCE_S", 0.2)
    server.fault = "silent"
    check_fails("cannot be downloaded.*timed out")
    assert os.listdir(folder) == []
    assert socket.getdefaulttimeout() is None


def test_download_keeps_own_timeout_of_process(server, folder):
    server.fault = "silent"
    socket.setdefaulttimeout(0.2)
    try:
        check_fails("cannot be downloaded.*timed out")
        assert socket.getdefaulttimeout() == 0.2
    finally:
        socket.setdefaulttimeout(None)


def test_download_refused_connection_names_ways_out(folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        monkeypatch.setattr("keras.src.applications.mobilenet_v2.BASE_WEIGHT_PATH", url)
        check_fails("cannot be downloaded.*refused")
    assert os.listdir(folder) == []


def test_download_of_wrong_content_is_refused(server, folder):
    name = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    server.files[name] = server.files[MOBILENET_V2]
    for _ in range(2):
        check_fails("hash does not match", lambda: load("mobilenet_v3_small", 224))
        assert os.listdir(folder) == []
    assert server.asked == [name] * 2


def test_load_file_of_killed_download_is_replaced(server, folder, published):
    file = folder / MOBILENET_V2
    file.write_bytes(published[1][:10_000])
    check_fails(f"{re.escape(repr(str(file)))} were damaged.*the next call downloads it again")
    assert server.asked == []
    check_has_published_weights(load_small(), published)


def test_load_file_of_running_download_is_kept(server, folder, published):
    file = folder / MOBILENET_V2
    is_over = threading.Event()

    def download():  # as another process does
        with file.open("wb") as target:
            for start in range(0, 10**9, 10):
                target.write(published[1][start : start + 10])
                target.flush()
                if is_over.wait(0.05):
                    return

    thread = threading.Thread(target=download)
    thread.start()
    try:
        check_fails("not complete.*another process seems to download them. Repeat the call")
        assert file.exists()
    finally:
        is_over.set()
        thread.join()


@pytest.mark.slow
def test_download_by_two_processes_is_made_once(server, folder, published):
    waiting = Path("/proc/locks")  # of Linux
    if not waiting.exists():
        pytest.skip("there is no list of the processes that wait for a lock")
    server.fault = "slow"
    code = (
        "import sys\n"
        "from keras.src.applications import mobilenet_v2\n"
        "from featx.backbones.keras_models import named_model\n"
        "from featx.backbones.registry import find_network\n"
        f"mobilenet_v2.BASE_WEIGHT_PATH = {server.url!r}\n"
        "model = named_model(find_network('mobilenet_v2'), input_shape=(96, 96, 3),\n"
        "                    weights='pretrained', params={'alpha': 0.35})\n"
        "print(model.count_params())"
    )
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(load_small)
        while not server.asked and not first.done():
            time.sleep(0.01)
        second = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            while second.poll() is None and f" {second.pid} " not in waiting.read_text():
                time.sleep(0.05)
        finally:
            server.may_finish.set()
        output, errors = second.communicate()
        check_has_published_weights(first.result(), published)
    assert (output, second.returncode) == (f"{published[0].count_params()}\n", 0), errors
    assert server.asked == [MOBILENET_V2] == os.listdir(folder)


def test_download_makes_nobody_wait_for_known_files(server, folder, published, monkeypatch):
    held, locked = [], downloads._locked

    def noted(path):
        held.append(path)
        return locked(path)

    monkeypatch.setattr(downloads, "_locked", noted)
    for _ in range(2):
        load_small()
    assert len(held) == 1
    (folder / MOBILENET_V2).unlink()
    check_has_published_weights(load_small(), published)
    assert len(held) == 2


def test_load_file_of_other_network_is_kept(server, folder, tmp_path):
    file = folder / MOBILENET_V2
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    keras.saving.save_model(other, tmp_path / "other.h5")
    (tmp_path / "other.h5").rename(file)
    check_fails("cannot be loaded: .*layer")
    assert file.exists()


def test_download_to_read_only_home_uses_folder_of_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "nowhere"))
    assert str(downloads.weights_folder()) == "/tmp/.keras/models"
