"""Estimators in other processes and threads: before and after `fit`, with any backbone."""

import json
import multiprocessing
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from estimator_worker import work
from sample_networks import small_network
from sklearn.base import clone

from featx import FeatureExtractor, TransferClassifier
from featx.exceptions import EngineError

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
IMAGES[::2] //= 3
LABELS = np.arange(24) % 2


BACKBONES = {"name": lambda: "tiny", "model": lambda: small_network((64, 64, 3))}


@pytest.mark.parametrize(
    ("method", "backbone", "when"),
    [
        ("fork", "name", "after fit"),
        ("fork", "model", "after fit"),
        ("spawn", "name", "after fit"),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in (
                ("spawn", "model", "after fit"),
                *product(["fork", "spawn"], BACKBONES, ["before fit"]),
            )
        ),
    ],
)
def test_child_predicts_the_same(method, backbone, when):
    extractor = FeatureExtractor(BACKBONES[backbone](), preprocessing="unit")
    classifier = TransferClassifier(extractor)
    unfitted = cloudpickle.dumps(classifier)
    expected = classifier.fit(IMAGES, LABELS).predict_proba(IMAGES)
    data = unfitted if when == "before fit" else cloudpickle.dumps(classifier)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=work, args=(data, IMAGES, LABELS, answers))
    child.start()
    probabilities, imported = answers.get(timeout=60)
    child.join(60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(probabilities, expected)
    if (method, backbone) == ("spawn", "name"):
        assert not imported


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("name", marks=pytest.mark.long), "file"])
def test_workers_of_a_search_on_a_warm_cache_import_no_tensorflow(kind, tmp_path):
    backbone = "tiny"
    if kind == "file":
        backbone = str(tmp_path / "network.keras")
        small_network((64, 64, 3)).save(backbone)
    FeatureExtractor(backbone, preprocessing="unit").fit_transform(IMAGES)
    images = tmp_path / "images.npy"
    np.save(images, IMAGES)
    command = [sys.executable, Path(__file__).with_name("warm_search.py"), backbone, str(images)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shares = json.loads(done.stdout)
    assert shares["accuracy"] > 0.9
    assert (shares["worker"], shares["tensorflow"]) == (1, 0)


def test_threads_predict_at_once():
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None)).fit(IMAGES, LABELS)
    expected = classifier.predict_proba(IMAGES)
    barrier = threading.Barrier(2)

    def predict(number):
        barrier.wait(60)
        rows = np.random.default_rng(number).permutation(24)
        gaps = [classifier.predict_proba(IMAGES[rows]) - expected[rows] for _ in range(5)]
        return np.abs(gaps).max()

    with ThreadPoolExecutor(2) as threads:
        assert max(threads.map(predict, range(2))) <= 1e-4


def test_clones_share_the_callers_model():
    model = small_network((64, 64, 3))
    before = [weights.copy() for weights in model.get_weights()]
    classifier = TransferClassifier(FeatureExtractor(model)).fit(IMAGES, LABELS)
    assert clone(classifier).extractor.backbone is model
    assert clone(classifier.extractor_).backbone is model
    for weights, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, value)


def embed(data, images, answers):
    try:
        answers.put(len(cloudpickle.loads(data).transform(images)))
    except EngineError as exc:
        answers.put(str(exc))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pass_in_a_fork_of_a_process_that_ran_tensorflow_is_an_error(backbone):
    """TensorFlow would wait there forever."""
    extractor = FeatureExtractor(BACKBONES[backbone](), preprocessing="unit").fit(IMAGES)
    extractor.transform(IMAGES)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    for images, expected in ((IMAGES, 24), (255 - IMAGES, "forked")):
        data = cloudpickle.dumps(extractor)
        child = context.Process(target=embed, args=(data, images, answers))
        child.start()
        answer = answers.get(timeout=60)
        assert answer == expected or expected in answer
        child.join(60)
