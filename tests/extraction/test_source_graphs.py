"""Stored graphs: a later process starts without Keras, and never from a damaged or foreign one."""

import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import featx
from featx import EmbeddingCache, FeatureExtractor, TransferClassifier
from featx.cache.graph_store import GraphKey
from featx.engines import graph_bytes
from featx.exceptions import CacheDamageWarning, EngineError
from featx.extraction import engine_cache, source_graphs

pytestmark = [
    pytest.mark.stores_graphs,
    pytest.mark.skipif(
        importlib.util.find_spec("openvino") is None or keras.backend.backend() != "tensorflow",
        reason="needs OpenVINO, and Keras on TensorFlow",
    ),
]
WORKER = Path(__file__).parents[1] / "graph_worker.py"
SAME_ENGINE = 1e-5  # of the length of a row: batches of another size are rounded otherwise


def pictures(n_images, seed=0, size=64):
    shape = (n_images, size, size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paths = [str(folder / f"{number}.png") for number in range(8)]
    for path, pixels in zip(paths, pictures(len(paths), seed=1), strict=True):
        Image.fromarray(pixels).save(path)
    return paths


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Return the folder of a cache with the graph of "tiny" for uint8."""
    folder = tmp_path_factory.mktemp("converted")
    FeatureExtractor("tiny", cache=folder).fit_transform(pictures(2))
    return folder


@pytest.fixture
def cache(converted, tmp_path):
    return str(shutil.copytree(converted, tmp_path / "cache"))


@pytest.fixture
def as_new(monkeypatch):
    """Let the next pass find no engines in this process, as in a new one."""
    return lambda: monkeypatch.setattr(engine_cache, "_ENGINES", OrderedDict())


def in_new_process(job, paths, params, tmp_path):
    """Return the report of a process of its own, and its rows."""
    out = tmp_path / "rows.npy"
    command = [sys.executable, str(WORKER), json.dumps([job, paths, params, str(out)])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), np.load(out)


def difference(rows, expected):
    """Return the largest gap between two rows, as a fraction of their length."""
    gaps = np.linalg.norm(rows - expected, axis=1)
    return (gaps / np.linalg.norm(expected, axis=1)).max()


def rows_of_keras(images, backbone="tiny", **params):
    return FeatureExtractor(backbone, cache=None, engine="keras", **params).fit_transform(images)


def graphs_in(cache):
    return sorted((Path(cache) / "graphs").iterdir()) if (Path(cache) / "graphs").exists() else []


@pytest.mark.parametrize("engine", ["auto", pytest.param("openvino", marks=pytest.mark.long)])
def test_new_process_embeds_new_images_without_keras(engine, photos, cache, tmp_path):
    params = {"backbone": "tiny", "cache": cache, "engine": engine}
    report, rows = in_new_process("embed", photos, params, tmp_path)
    assert report == {"heavy": [], "warnings": []}
    assert 0 < difference(rows, rows_of_keras(photos)) < 1e-4


def test_loaded_file_predicts_new_images_without_keras(photos, tmp_path):
    cache, path = str(tmp_path / "cache"), str(tmp_path / "model.featx")
    network = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Conv2D(9, 5, strides=4)])
    network.save(tmp_path / "network.keras")  # so that the saved file holds the network
    extractor = FeatureExtractor(str(tmp_path / "network.keras"), cache=cache)
    classifier = TransferClassifier(extractor).fit(pictures(8), [0, 1] * 4)
    featx.save(classifier, path)
    params = {"path": path, "cache": cache}
    report, probabilities = in_new_process("predict", photos[:4], params, tmp_path)
    assert report == {"heavy": [], "warnings": []}
    exact = classifier.set_params(extractor__cache=None, extractor__engine="keras")
    np.testing.assert_allclose(probabilities, exact.predict_proba(photos[:4]), atol=1e-4)
    script = (
        "import sys; from featx.cli.main import main; main(sys.argv[1:]);"
        "print(sorted({'keras', 'tensorflow'} & sys.modules.keys()), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "predict", path, *photos[4:], "--cache", cache]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == photos[4:]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_refuses_instead_of_waiting(photos, cache, tmp_path):
    params = {"backbone": "tiny", "cache": cache}
    report, (is_refused,) = in_new_process("embed_after_fork", photos, params, tmp_path)
    assert report["heavy"] == []
    assert is_refused


def flip(data, place):
    changed = bytearray(data)
    changed[int(place * (len(data) - 1))] ^= 16
    return bytes(changed)


DAMAGE = {
    "first byte": lambda data: flip(data, 0),
    "key": lambda data: flip(data, 1e-5),
    "reference row": lambda data: flip(data, 1e-3),
    "weights": lambda data: flip(data, 0.7),
    "checksum": lambda data: flip(data, 1),
    "half": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
    "other file": lambda data: b"<net/>" * 100,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_graph_gives_right_rows_and_is_repaired(kind, cache, as_new):
    (file,) = graphs_in(cache)
    sound = file.read_bytes()
    file.write_bytes(DAMAGE[kind](sound))
    as_new()
    extractor = FeatureExtractor("tiny", cache=EmbeddingCache(cache))
    images = pictures(4, seed=2)
    with pytest.warns(CacheDamageWarning, match="checksum") as caught:
        rows = extractor.fit_transform(images)
    assert len(caught) == 1
    assert extractor.report_.engine == "keras"
    assert difference(rows, rows_of_keras(images)) <= SAME_ENGINE
    assert graphs_in(cache) == [file]
    assert file.read_bytes() == sound


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink(__file__, path)])
def test_irregular_graph_is_not_opened(make, cache, as_new):
    (file,) = graphs_in(cache)
    file.unlink()
    make(file)
    as_new()
    extractor = FeatureExtractor("tiny", cache=EmbeddingCache(cache))
    images = pictures(4, seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = extractor.fit_transform(images)
    assert difference(rows, rows_of_keras(images)) <= SAME_ENGINE


def stored_again(cache, change):
    """Replace the only graph of a cache by a changed one, with a right checksum."""
    (file,) = graphs_in(cache)
    graphs = EmbeddingCache(cache).graphs
    digest = FeatureExtractor("tiny", cache=cache).fit(pictures(1)).space_digest_
    key = GraphKey((digest,), "openvino", graph_bytes.engine_version("openvino"), "uint8")
    graphs.store(key, change(bytes(graphs.find(key))))
    assert graphs_in(cache) == [file]


def scaled(graph):
    """Change the reference rows of "tiny", (2, 400), as if its graph computed others."""
    rows = np.frombuffer(graph[:3200], np.float32) * np.float32(1.001)
    return rows.tobytes() + graph[3200:]


@pytest.mark.parametrize(
    ("change", "reason"),
    [(scaled, "differ"), (lambda graph: graph[:5000], "cannot run"), (lambda _: b"", "cannot run")],
)
def test_graph_of_other_rows_is_refused(change, reason, cache, as_new):
    stored_again(cache, change)
    as_new()
    images = pictures(4, seed=2)
    with pytest.warns(CacheDamageWarning, match=reason) as caught:
        rows = FeatureExtractor("tiny", cache=EmbeddingCache(cache)).fit_transform(images)
    assert len(caught) == 1
    assert difference(rows, rows_of_keras(images)) <= SAME_ENGINE


def test_graph_of_other_version_is_not_used(cache, as_new, monkeypatch):
    as_new()
    monkeypatch.setattr(source_graphs, "engine_version", lambda name: "1.0")
    extractor = FeatureExtractor("tiny", cache=cache)
    images = pictures(4, seed=2)
    assert difference(extractor.fit_transform(images), rows_of_keras(images)) <= SAME_ENGINE
    assert len(graphs_in(cache)) == 2
    as_new()
    extractor.transform(pictures(4, seed=3))
    assert extractor.report_.engine == "openvino"


def test_changed_file_of_network_gets_its_own_graph(tmp_path, as_new):
    path, cache = str(tmp_path / "network.keras"), str(tmp_path / "cache")
    network = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)])
    images = pictures(4, size=16)
    for n_graphs in (1, 2):
        network.layers[0].kernel.assign(n_graphs * network.layers[0].kernel)
        network.save(path)
        as_new()
        rows = FeatureExtractor(path, cache=EmbeddingCache(cache)).fit_transform(images)
        assert difference(rows, rows_of_keras(images, path)) <= SAME_ENGINE
        assert len(graphs_in(cache)) == n_graphs
    as_new()
    more = pictures(4, seed=5, size=16)
    extractor = FeatureExtractor(path, cache=EmbeddingCache(cache))
    assert difference(extractor.fit_transform(more), rows_of_keras(more, path)) < 1e-4
    assert extractor.report_.engine == "openvino"


def test_layers_and_dtypes_have_their_own_graphs(tmp_path, as_new):
    layers = {"layer": "stage2", "cache": str(tmp_path)}
    several = {**layers, "also_cache": ["stage1", ("stage1", "max")]}
    float_images = pictures(3, seed=2).astype(np.float32)
    for number, (params, images) in enumerate(
        [(layers, pictures(3)), (several, pictures(3, seed=1)), (layers, float_images)], start=1
    ):
        as_new()
        FeatureExtractor("tiny", **params).fit_transform(images)
        assert len(graphs_in(tmp_path)) == number
    as_new()
    images = pictures(5, seed=3)
    extractor = FeatureExtractor("tiny", **several).fit(images)
    assert difference(extractor.transform(images), rows_of_keras(images, layer="stage2")) < 1e-4
    assert extractor.report_.engine == "openvino"
    for pooling in ("avg", "max"):
        lower = {"layer": "stage1", "pooling": pooling}
        stored = FeatureExtractor("tiny", **lower, cache=str(tmp_path)).fit(images)
        assert difference(stored.transform(images), rows_of_keras(images, **lower)) < 1e-4
        assert stored.report_.n_hits == 5
    as_new()
    rows = extractor.set_params(also_cache=()).transform(float_images + 0.25)
    assert extractor.report_.engine == "openvino"
    assert difference(rows, rows_of_keras(float_images + 0.25, layer="stage2")) < 1e-4


NEVER = {
    "keras": {"engine": "keras"},
    "bfloat16": {"precision": "bfloat16"},
    "callable": {
        "backbone": lambda shape: keras.Sequential([keras.Input(shape), keras.layers.Conv2D(4, 3)])
    },
    "layer before it": {"preprocessing": keras.layers.Rescaling(1 / 255)},
}


@pytest.mark.parametrize("kind", NEVER)
def test_graph_is_never_stored_for(kind, tmp_path):
    params = {"backbone": "tiny", **NEVER[kind], "cache": str(tmp_path)}
    FeatureExtractor(**params).fit_transform(pictures(3))
    assert graphs_in(tmp_path) == []


def test_engine_keras_uses_no_graph(cache, as_new):
    as_new()
    extractor = FeatureExtractor("tiny", cache=cache, engine="keras")
    images = pictures(4, seed=2)
    assert difference(extractor.fit_transform(images), rows_of_keras(images)) <= SAME_ENGINE
    assert extractor.report_.engine == "keras"


def test_graph_is_not_used_in_fewer_bits(cache, as_new, monkeypatch):
    as_new()
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with pytest.raises(EngineError, match="fewer bits"):
        FeatureExtractor("tiny", cache=cache).fit_transform(pictures(4, seed=2))


def test_graph_beyond_the_file_size_limit_is_left_out(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows = FeatureExtractor("tiny", cache=tmp_path).fit_transform(pictures(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert difference(rows, rows_of_keras(pictures(3))) <= SAME_ENGINE
    assert graphs_in(tmp_path) == []


def test_failed_conversion_is_not_repeated(tmp_path, monkeypatch):
    class Failing(graph_bytes.CONVERTED["openvino"]):
        n_tries = 0

        def _load(self, model):
            Failing.n_tries += 1
            raise RuntimeError("no such operation")

    monkeypatch.setitem(graph_bytes.CONVERTED, "openvino", Failing)
    monkeypatch.setattr(source_graphs, "_STORED", {})
    for seed in range(3):
        FeatureExtractor("tiny", cache=tmp_path).fit_transform(pictures(3, seed=seed))
    assert Failing.n_tries == 1
    assert graphs_in(tmp_path) == []
