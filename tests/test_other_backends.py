"""Keras on JAX or torch, in a process of its own and without TensorFlow, does what it does here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from digit_tuning import UNFROZEN

from featx import FeatureExtractor

WORKER = Path(__file__).with_name("backend_worker.py")
GATE = [3]  # rows of UNFROZEN: two layers of several
REST = [0, 1, 2, 4, 5, 6]
# JAX compiles for half a minute otherwise, and runs for a second.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["jax", "torch"])
def backend(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"needs {request.param}")
    return request.param


@pytest.fixture(scope="module")
def found(backend):
    return work(backend, GATE)


def work(backend, choices):
    """Run the worker; it unfreezes what these rows of UNFROZEN say."""
    done = subprocess.run(
        [sys.executable, WORKER, *map(str, choices)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": QUICKLY_COMPILED},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_changed(found, choices):
    for choice, (in_network, in_copy) in zip(choices, found["changed"], strict=True):
        assert not in_network
        assert {path.split("/")[0] for path in in_copy} == set(UNFROZEN[choice][1])
        assert not any("moving" in path for path in in_copy)


def test_transform_rows_are_the_same(found):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype="uint8")
    expected = FeatureExtractor("tiny", cache=None).fit_transform(images)
    difference = np.linalg.norm(found["rows"] - expected, axis=1)
    assert (difference <= 1e-4 * np.linalg.norm(expected, axis=1)).all()


def test_transform_views_do_not_depend_on_the_threads(found):
    one, several = found["views"]
    np.testing.assert_allclose(several, one, rtol=1e-5, atol=1e-6)
    assert np.abs(np.subtract(one, found["rows"])).max() > 1e-3


def test_fit_pixels_and_frontier_train_alike(found):
    if found["backend"] == "torch":
        pytest.skip("Keras' dropout draws from torch's own generator there, which has no seed")
    np.testing.assert_allclose(found["from pixels"], found["from the frontier"], rtol=1e-4)


def test_fit_trains_what_was_asked_for_and_nothing_else(found):
    check_changed(found, GATE)


@pytest.mark.long
def test_fit_trains_each_choice_and_nothing_else(backend):
    check_changed(work(backend, REST), REST)
