"""The web service of ``examples/serve`` answers on a loopback port, and stops when asked."""

import http.client
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featx import FeatureExtractor, TransferClassifier, save

SERVE = Path(__file__).parents[1] / "examples" / "serve"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs uvicorn"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved classifier, alone in its folder."""
    images = np.random.default_rng(0).integers(0, 128, (6, 64, 64, 3), dtype=np.uint8)
    images[::2] += 127
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None))
    path = tmp_path_factory.mktemp("models") / "model of señor.featx"
    save(classifier.fit(images, ["light", "dark"] * 3), path)
    return path


@pytest.fixture(scope="module")
def port(model):
    """The port of a running service; afterwards the service has stopped cleanly."""
    command = [sys.executable, "-m", "uvicorn", "--app-dir", SERVE, "app:app", "--port", "0"]
    environment = {**os.environ, "FEATX_MODEL": str(model)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as service:
        lines = iter(service.stderr.readline, "")
        found = next(filter(None, (re.search(r"127\.0\.0\.1:(\d+)", line) for line in lines)))
        yield int(found[1])
        service.terminate()
        assert "Finished server process" in service.communicate(timeout=60)[1]


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def encoded(level, size=(90, 60)):
    file = io.BytesIO()
    Image.new("L", size, level).save(file, "PNG")
    return file.getvalue()


def test_predict_returns_label_and_probabilities(port, model):
    status, answer = ask(port, "POST", "/predict", encoded(220))
    assert status == 200
    assert set(answer["probabilities"]) == {"light", "dark"}
    assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert [path.name for path in model.parent.iterdir()] == [model.name]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty file"),
        (b"no image", "not an image"),
        (encoded(9)[:-30], "damaged PNG"),
    ],
)
def test_predict_bad_image_returns_its_fault(port, body, reason):
    status, answer = ask(port, "POST", "/predict", body)
    assert status == 422
    assert reason in answer["error"]


def test_predict_image_of_many_pixels_names_limit(port):
    status, answer = ask(port, "POST", "/predict", encoded(9, size=(8000, 7000)))
    assert (status, answer) == (422, {"error": "the image has more than 25000000 pixels"})


def stderr_of_start(model):
    command = [sys.executable, "-m", "uvicorn", "--app-dir", SERVE, "app:app", "--port", "0"]
    environment = {**os.environ, "FEATX_MODEL": str(model)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_start_without_probabilities_is_one_error(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None), head="ridge")
    save(classifier.fit(images, ["light", "dark"] * 3), tmp_path / "ridge.featx")
    assert "a model without probabilities" in stderr_of_start(tmp_path / "ridge.featx")


@pytest.mark.parametrize(
    ("name", "reason"), [("", "FEATX_MODEL is not set"), ("no such.featx", "no such file")]
)
def test_start_without_model_is_one_error(name, reason):
    assert reason in stderr_of_start(name)


def test_predict_large_body_is_refused(port):
    status, answer = ask(port, "POST", "/predict", bytes(20_000_001))
    assert (status, answer) == (413, {"error": "the image has more than 20000000 bytes"})


def test_other_routes_answer(port):
    assert ask(port, "GET", "/healthz") == (200, {"status": "ready"})
    assert ask(port, "GET", "/predict")[0] == 404
