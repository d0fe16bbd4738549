"""Several GPUs: each sample goes once through the network, in a process that sees one GPU."""

import contextlib
import os

import numpy as np
import pytest
from gpu_networks import Exits, Opaque, TellsGpu, Unseeded
from PIL import Image

from featx import EmbeddingCache, FeatureExtractor, embed_on_gpus, multi_gpu
from featx.engines.devices import has_accelerator
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    EngineError,
    EngineWarning,
    ParameterError,
)

pytestmark = pytest.mark.filterwarnings("ignore:Keras finds no GPU:featx.exceptions.EngineWarning")
ROWS = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)


@pytest.fixture
def no_gpus_listed(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.slow
def test_embed_on_gpus_embeds_each_row_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,GPU-a")
    notes = tmp_path / "notes"
    extractor = FeatureExtractor(TellsGpu(notes), on_error="nan")
    rows = np.concatenate([ROWS, [[np.nan] * 5]], dtype=np.float32)
    expected = contextlib.nullcontext()
    if not has_accelerator():
        expected = pytest.warns(EngineWarning, match=r"no GPU [02]: its process runs on the CPU")
    with expected:
        report = embed_on_gpus(extractor, rows, gpus=[2, 0])
    assert set(notes.read_text().split()) == {"GPU-a", "5"}
    counts = (report.n_samples, report.n_unread, report.n_forward, report.n_hits)
    assert counts == (41, 1, 40, 0)
    assert set(report.n_forward_of) == {0, 2}
    assert sum(report.n_forward_of.values()) == 40
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5,7,GPU-a"
    found = extractor.fit_transform(ROWS)
    assert extractor.report_.n_hits == 40
    plain = FeatureExtractor(TellsGpu(notes), cache=None)
    np.testing.assert_allclose(found, plain.fit_transform(ROWS), rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_embed_on_gpus_counts_positions_over_all(no_gpus_listed, tmp_path, monkeypatch):
    monkeypatch.setattr(multi_gpu, "_SAMPLES_PER_PART", 4)
    paths = [str(tmp_path / f"{number}.png") for number in range(40)]
    for number, path in enumerate(paths):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(path)
    with open(paths[6], "wb") as file:
        file.write(b"no image")
    with pytest.raises(BadSampleError, match="not an image") as caught:
        embed_on_gpus(FeatureExtractor("tiny"), paths, gpus=1)
    assert [fault.position for fault in caught.value.faults] == [6]
    assert caught.value.n_samples == 40
    assert caught.value.n_unseen == 32  # two parts were sent
    assert EmbeddingCache().info()["n_rows"] == 4


@pytest.mark.slow
@pytest.mark.long
def test_embed_on_gpus_interrupted_run_continues(no_gpus_listed, tmp_path, monkeypatch):
    def stop(n_done, n_total):
        if n_done >= n_total // 2:
            raise KeyboardInterrupt

    extractor = FeatureExtractor(TellsGpu(tmp_path / "notes"), verbose=stop)
    with pytest.raises(KeyboardInterrupt):
        embed_on_gpus(extractor, ROWS, gpus=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    extractor.set_params(verbose=0).fit_transform(ROWS)
    assert extractor.report_.n_hits >= 20
    assert extractor.report_.n_hits + extractor.report_.n_forward == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "n_gpus"),
    [
        pytest.param(Opaque(), 1, id="opaque", marks=pytest.mark.long),
        pytest.param(Unseeded(), 2, id="unseeded"),
    ],
)
def test_embed_on_gpus_unshareable_network_is_refused(network, n_gpus, no_gpus_listed):
    with pytest.raises(BackboneError, match="cannot share embeddings"):
        embed_on_gpus(FeatureExtractor(network), ROWS, gpus=n_gpus)


@pytest.mark.slow
@pytest.mark.long
def test_embed_on_gpus_ended_process_is_named(no_gpus_listed):
    with pytest.raises(EngineError, match="GPU 0 ended while it embedded samples 0 to 9;"):
        embed_on_gpus(FeatureExtractor(Exits()), ROWS, gpus=1)


@pytest.mark.long
def test_embed_on_gpus_unwritable_cache_is_refused(no_gpus_listed, tmp_path):
    (tmp_path / "file").touch()
    extractor = FeatureExtractor("tiny", cache=tmp_path / "file")
    images = np.zeros((4, 64, 64, 3), np.uint8)
    with pytest.raises(BackboneError, match="cannot share embeddings"):
        embed_on_gpus(extractor, images, gpus=1)


@pytest.mark.parametrize("gpus", [0, -1, True, 1.5, "0", [], [0, 0], [-1], ["0"], None])
def test_embed_on_gpus_lists_all_faults(gpus):
    extractor = FeatureExtractor("tiny", cache=None, pooling="average")
    with pytest.raises(ParameterError, match=r"(?s)extractor__pooling.*extractor__cache.*gpus="):
        embed_on_gpus(extractor, ROWS, gpus=gpus)


@pytest.mark.parametrize("listed", ["", "3,4"])
def test_embed_on_gpus_invisible_gpus_are_refused(listed, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    with pytest.raises(ParameterError, match="that CUDA_VISIBLE_DEVICES="):
        embed_on_gpus(FeatureExtractor("tiny"), ROWS, gpus=[2])


def test_embed_on_gpus_without_extractor_is_refused():
    with pytest.raises(ParameterError, match="a FeatureExtractor"):
        embed_on_gpus("tiny", ROWS, gpus=1)
