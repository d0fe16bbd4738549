"""What all tests share, those in docstrings too."""

import os

# Before numpy is loaded, here and in child processes: on matrices as small as those of the tests
# the threads of BLAS, and of scikit-learn's loops (OpenMP), mostly wait for one another, on a busy
# machine for twenty times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Before scipy is loaded: else scikit-learn skips its check of array API inputs.
os.environ.setdefault("SCIPY_ARRAY_API", "1")
# Before matplotlib is loaded: plots open no window.
os.environ.setdefault("MPLBACKEND", "Agg")

import sys

import pytest

# Before OpenVINO is loaded: with each conversion it sends statistics to its makers, from a fork of
# the process, which takes a second where TensorFlow is loaded. Without this module it sends none.
sys.modules["openvino_telemetry"] = None


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Give each test a cache of its own, for its child processes too."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FEATX_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _figures_closed():
    """Close the figures of a test, also of one in a docstring."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def pytest_collection_modifyitems(items):
    """Measure coverage without the slow tests: Python 3.11 runs traced code much slower."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("no_cover")
