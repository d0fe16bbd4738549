"""The environment of all tests, and the images and the browser that several files share."""

import gc
import importlib.util
import os
import shutil
import sys
import warnings

import numpy as np
import pytest

# TensorFlow switches oneDNN on by itself on CPUs with AVX-512 only. Without it, it computes no
# channels-first convolution on a CPU, which some tests need, and rounds otherwise.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

CHROMIUM = "chromium", "chromium-browser", "google-chrome"


@pytest.fixture(scope="session")
def browser():
    """Return Chromium without a window, for all tests of a process."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def images():
    """Light and dark noise: two classes that any head separates."""
    noise = np.random.default_rng(0).integers(0, 128, (20, 64, 64, 3), dtype=np.uint8)
    noise[::2] += 127
    return noise


@pytest.fixture
def labels():
    return np.array(["light", "dark"] * 10)


def pytest_collection_modifyitems(items):
    """Skip scikit-learn's checks on a GPU if PyTorch finds none; they ask only how it was built."""
    on_gpu = [item for item in items if "=cuda" in item.name or "device='cuda'" in item.name]
    if on_gpu and not has_cuda():
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU that PyTorch finds"))


@pytest.fixture(autouse=True)
def _graphs_stored_on_request(request, monkeypatch):
    """Store converted graphs only in tests of them: for others, a third of their time."""
    if request.node.get_closest_marker("stores_graphs") is None:
        engines = "featx.extraction.engine_cache.PassEngines"
        monkeypatch.setattr(f"{engines}.store_graphs", lambda self: None)


@pytest.fixture(autouse=True)
def _memory_freed_after_long_forms(request):
    """Free the networks of a long form: those of all, together, need 16 GB in one process."""
    yield
    keras = sys.modules.get("keras")
    if keras and request.node.get_closest_marker("long"):
        keras.utils.clear_session()
        gc.collect()


def has_cuda():
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a driver that is missing
        return torch.cuda.is_available()
