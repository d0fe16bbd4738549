"""On a GPU: rows are the CPU's, precisions keep what they promise, large batches are halved."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from featx import FeatureExtractor
from featx.engines.devices import has_accelerator

pytestmark = pytest.mark.skipif(not has_accelerator(), reason="needs a GPU")

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)


def answer_of(script, **environment):
    """Return what a script prints, as JSON, from a process of its own."""
    environment = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def rows_of_cpu():
    script = """
import json, numpy as np
from featx import FeatureExtractor
from featx.engines.devices import device_name
assert device_name().startswith("cpu:0,"), device_name()
images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
print(json.dumps(FeatureExtractor("tiny", cache=None).fit_transform(images).tolist()))
"""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    return np.asarray(answer_of(script, **hidden), np.float32)


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("float32", 1e-4), ("tf32", 1e-2), ("bfloat16", 5e-2), ("float16", 1e-2)],
)
def test_transform_rows_are_those_of_the_cpu(precision, tolerance, rows_of_cpu):
    extractor = FeatureExtractor("tiny", precision=precision, cache=None)
    rows = extractor.fit_transform(IMAGES)
    gaps = np.linalg.norm(rows - rows_of_cpu, axis=1) / np.linalg.norm(rows_of_cpu, axis=1)
    assert gaps.max() < tolerance
    assert extractor.report_.engine == "keras"


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="needs the JAX backend, whose memory can be limited"
)
def test_transform_batches_beyond_memory_are_halved():
    script = """
import json, keras, numpy as np
from featx import FeatureExtractor
keras.utils.set_random_seed(0)
images = np.random.default_rng(0).integers(0, 256, (1024, 224, 224, 3), np.uint8)
extractor = FeatureExtractor("resnet50", weights=None, batch_size=1024, cache=None)
rows = extractor.fit_transform(images)
size = extractor.report_.batch_size
small = extractor.set_params(batch_size=16).transform(images[-32:])
gaps = np.linalg.norm(rows[-32:] - small, axis=1) / np.linalg.norm(small, axis=1)
print(json.dumps({"size": size, "gap": float(gaps.max())}))
"""
    found = answer_of(script, XLA_PYTHON_CLIENT_MEM_FRACTION="0.02")
    assert found["size"] < 1024
    assert found["gap"] < 1e-4
