"""The pass: what it stores and when, and that it loses nothing."""

import threading
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from featx import EmbeddingCache, FeatureExtractor
from featx.digests import keras_graph
from featx.digests.key_table import NO_KEY, keys_from
from featx.engines.keras_engine import KerasEngine
from featx.exceptions import BackboneError, BadSampleError, BadSampleWarning, CacheWriteWarning
from featx.extraction.faults import with_duplicates
from featx.inputs import samples, sequence
from featx.inputs.recognize import as_samples


def test_pass_stores_rows_while_it_runs(images, monkeypatch):
    monkeypatch.setattr("featx.extraction.row_writer._STORE_EVERY_S", 0.0)
    FeatureExtractor("tiny", batch_size=3).fit_transform(images)
    assert EmbeddingCache().info()["n_shards"] == 3


def test_pass_stores_a_full_buffer_at_once(images, monkeypatch):
    monkeypatch.setattr("featx.extraction.row_writer._STORE_EVERY_BYTES", 1)
    FeatureExtractor("tiny", batch_size=5).fit_transform(images)
    assert EmbeddingCache().info()["n_shards"] == 2


def test_pass_that_fails_keeps_finished_rows(images, monkeypatch):
    finish, calls = KerasEngine.finish, []

    def failing(self, pending):
        calls.append(pending)
        if len(calls) == 3:
            raise RuntimeError("the device is lost")
        return finish(self, pending)

    with monkeypatch.context() as patch:
        patch.setattr(KerasEngine, "finish", failing)
        with pytest.raises(RuntimeError, match="lost"):
            FeatureExtractor("tiny", batch_size=2).fit_transform(images)
    assert EmbeddingCache().info()["n_rows"] == 4
    extractor = FeatureExtractor("tiny")
    extractor.fit_transform(images)
    assert extractor.report_.n_forward == 5


def test_pass_on_a_full_disk_warns_once(images, monkeypatch):
    monkeypatch.setattr("featx.extraction.row_writer._STORE_EVERY_S", 0.0)
    from featx.cache.store import SpaceStore

    append, calls = SpaceStore.append, []

    def filling(self, keys, embeddings):
        calls.append(len(keys))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return append(self, keys, embeddings)

    monkeypatch.setattr(SpaceStore, "append", filling)
    with pytest.warns(CacheWriteWarning, match="No space left") as caught:
        embeddings = FeatureExtractor("tiny", batch_size=3).fit_transform(images)
    assert len(caught) == 1
    assert np.isfinite(embeddings).all()
    assert EmbeddingCache().info()["n_rows"] == 3


@pytest.mark.parametrize("size", [64, 40])  # sliced; resized
@pytest.mark.parametrize("cache", ["auto", None])
def test_pass_runs_late_duplicates_once(images, size, cache, monkeypatch):
    monkeypatch.setitem(samples.ArraySamples.__init__.__kwdefaults__, "block_bytes", 1)
    places = np.array([0, 1, 1, 2, 0, 3, 4, 4, 4, 5, 6, 7, 8, 8, 0])
    extractor = FeatureExtractor("tiny", batch_size=4, cache=cache)
    rows = extractor.fit_transform(images[places, :size])
    assert extractor.report_.n_forward == len(images)
    alone = FeatureExtractor("tiny", batch_size=4, cache=None).fit_transform(images[:, :size])
    np.testing.assert_allclose(rows, alone[places], rtol=0, atol=1e-5)
    assert extractor.transform(images[places, :size]).tobytes() == rows.tobytes() or not cache
    assert extractor.report_.n_forward == (0 if cache else len(images))


class NetworkBegins:
    """Lets digests be made, after the first few, only when the network has begun."""

    def __init__(self, monkeypatch, digest, *, n_free):
        self._digest, self._n_free = digest, n_free
        self._has_begun = threading.Event()
        self.n_digests = 0
        start = KerasEngine.start

        def starting(engine, inputs):
            self._has_begun.set()
            return start(engine, inputs)

        monkeypatch.setattr(KerasEngine, "start", starting)

    def __call__(self, *args):
        self.n_digests += 1
        assert self.n_digests <= self._n_free or self._has_begun.wait(60)
        return self._digest(*args)


def test_pass_identifies_arrays_ahead(monkeypatch):
    monkeypatch.setitem(samples.ArraySamples.__init__.__kwdefaults__, "block_bytes", 1)
    digest = NetworkBegins(monkeypatch, samples.digests_of_rows, n_free=16)
    monkeypatch.setattr(samples, "digests_of_rows", digest)
    images = np.random.default_rng(0).integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    extractor = FeatureExtractor("tiny", batch_size=8)
    rows = extractor.fit_transform(images)
    assert digest.n_digests == extractor.report_.n_forward == 64
    assert np.isfinite(rows).all()


@pytest.fixture
def impatient(monkeypatch):
    """Files are identified ahead of the pass, two at a time, however few there are."""
    monkeypatch.setattr(sequence, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(sequence, "_FILES_AT_ONCE", 2)
    monkeypatch.setattr("featx.extraction.prefetch.GROUP_SIZE", 2)
    digest = NetworkBegins(monkeypatch, sequence.ItemSamples._digest_of_row, n_free=8)
    monkeypatch.setattr(sequence.ItemSamples, "_digest_of_row", lambda *args: digest(*args))
    return digest


@pytest.fixture
def paths(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    return [str(path) for path in sorted(tmp_path.glob("*.png"))]


def test_pass_identifies_files_ahead(paths, impatient):
    extractor = FeatureExtractor("tiny", batch_size=2, n_jobs=1)
    repeated = [*paths, *paths[:3]]
    rows = extractor.fit_transform(repeated)
    assert impatient.n_digests == len(repeated)
    assert extractor.report_.n_forward == 30
    np.testing.assert_array_equal(rows[-3:], rows[:3])
    assert extractor.transform(repeated).tobytes() == rows.tobytes()
    assert extractor.report_.n_forward == 0


def test_pass_on_error_nan_continues_past_faults(paths, impatient):
    Path(paths[20]).write_bytes(b"no image")
    Path(paths[27]).write_bytes(b"")
    Path(paths[25]).write_bytes(Path(paths[25]).read_bytes()[:3000])
    extractor = FeatureExtractor("tiny", batch_size=2, n_jobs=1, on_error="nan")
    with pytest.warns(BadSampleWarning, match="4 of 31"):
        rows = extractor.fit_transform([*paths, paths[25]])
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [20, 25, 27, 30]
    assert EmbeddingCache().info()["n_rows"] == extractor.report_.n_forward == 27


def test_embed_ends_when_a_fault_is_met(paths, impatient):
    Path(paths[20]).write_bytes(b"no image")
    Path(paths[25]).write_bytes(Path(paths[25]).read_bytes()[:3000])
    with pytest.raises(BadSampleError) as caught:
        FeatureExtractor("tiny", batch_size=2, n_jobs=1).fit_transform([*paths, paths[25]])
    assert [fault.position for fault in caught.value.faults] == [20, 25, 30]
    n_stored = EmbeddingCache().info()["n_rows"]
    assert 0 < n_stored < 28


def test_pass_stores_file_digests_while_it_runs(paths, impatient, monkeypatch):
    monkeypatch.setattr("featx.inputs.file_index._SETTLED_S", 0.0)
    entries = []

    def look(n_done, n_samples):
        entries.append(len(list(EmbeddingCache().path.glob("files/*"))))

    FeatureExtractor("tiny", batch_size=2, n_jobs=1, verbose=look).fit_transform(paths)
    assert len(entries) > 2
    assert entries[-2] > 0


@pytest.mark.parametrize("patience_s", [0.0, 60.0])
def test_pass_keeps_rows_that_it_reported(paths, patience_s, monkeypatch):
    monkeypatch.setattr(sequence, "_PATIENCE_S", patience_s)
    counts = []

    def interrupt(n_done, n_samples):
        counts.append(n_done)
        if len(counts) == 3:
            raise KeyboardInterrupt

    extractor = FeatureExtractor("tiny", batch_size=4, verbose=interrupt)
    with pytest.raises(KeyboardInterrupt):
        extractor.fit_transform(paths)
    assert not [
        one
        for one in threading.enumerate()
        if one.name.startswith(("featx-prefetch", "featx-started"))
    ]
    assert EmbeddingCache().info()["n_rows"] == counts[-1] == 12
    extractor.set_params(verbose=0).fit_transform(paths)
    assert extractor.report_.n_forward == 18


@pytest.mark.parametrize("patience_s", [0.0, 60.0])
def test_pass_file_changed_before_decoding_is_faulty(paths, patience_s, monkeypatch):
    monkeypatch.setattr(sequence, "_PATIENCE_S", patience_s)
    expected = FeatureExtractor("tiny", cache=None).fit_transform(paths)
    before, other = Path(paths[7]).read_bytes(), Path(paths[8]).read_bytes()
    batch = sequence.ItemSamples.batch

    def changing(samples, rows, shape):
        Path(paths[7]).write_bytes(other)
        return batch(samples, rows, shape)

    extractor = FeatureExtractor("tiny")
    with monkeypatch.context() as patch:
        patch.setattr(sequence.ItemSamples, "batch", changing)
        with pytest.raises(BadSampleError, match="changed") as caught:
            extractor.fit_transform(paths)
    assert [fault.position for fault in caught.value.faults] == [7]
    Path(paths[7]).write_bytes(before)
    rows = extractor.fit_transform(paths)
    assert extractor.report_.n_forward == 1
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-5)


def test_pass_duplicate_of_missing_file_names_it(paths, monkeypatch):
    duplicate = str(Path(paths[0]).with_name("duplicate.png"))
    Path(duplicate).write_bytes(Path(paths[3]).read_bytes())
    batch = sequence.ItemSamples.batch

    def losing(samples, rows, shape):
        Path(paths[3]).unlink(missing_ok=True)
        return batch(samples, rows, shape)

    monkeypatch.setattr(sequence.ItemSamples, "batch", losing)
    extractor = FeatureExtractor("tiny", on_error="nan")
    with pytest.warns(BadSampleWarning, match=r"duplicate\.png: no such file \(found in .*03\.png"):
        extractor.fit_transform([*paths, duplicate])


def test_with_duplicates_names_the_first_file():
    samples = as_samples(["a.png", "b.png", "c.png", "d.png"])
    keys = keys_from([b"k" * 16, b"k" * 16, NO_KEY, b"o" * 16], count=4)
    faults = with_duplicates([samples.fault(0, "gone")], samples, keys)
    keys[2] = b"k" * 16  # identified later
    faults = with_duplicates(faults, samples, keys)
    expected = "gone (found in a.png, which had the same content)"
    assert [fault.reason for fault in faults] == ["gone", expected, expected]


def test_pass_fails_before_all_is_identified(paths, impatient, monkeypatch):
    monkeypatch.setattr("featx.extraction.missing._IDENTIFY_FAULTY_S", 0.0)
    Path(paths[10]).write_bytes(b"no image")
    with pytest.raises(BadSampleError, match="more were not decoded yet") as caught:
        FeatureExtractor("tiny", batch_size=2, n_jobs=1).fit_transform(paths)
    assert [fault.position for fault in caught.value.faults] == [10]
    assert caught.value.n_unseen >= 30 - 12


def test_pass_lists_all_damaged_duplicates(tmp_path, images):
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(images[number]).save(path)
    damaged = (tmp_path / "1.png").read_bytes()[:3000]
    (tmp_path / "1.png").write_bytes(damaged)
    (tmp_path / "3.png").write_bytes(damaged)
    with pytest.raises(BadSampleError) as caught:
        FeatureExtractor("tiny").fit_transform(paths)
    assert [fault.position for fault in caught.value.faults] == [1, 3]


def test_pass_warns_of_failed_compaction(images, monkeypatch):
    monkeypatch.setattr("featx.extraction.row_writer._STORE_EVERY_S", 0.0)
    monkeypatch.setattr("featx.extraction.row_writer.MAX_SHARDS", 1)

    def fail(store):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featx.extraction.row_writer.compact", fail)
    with pytest.warns(CacheWriteWarning, match="No space left"):
        embeddings = FeatureExtractor("tiny", batch_size=3).fit_transform(images)
    assert np.isfinite(embeddings).all()
    assert EmbeddingCache().info()["n_rows"] == 9


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_pass_order_is_independent_of_threads(n_jobs, images):
    reference = FeatureExtractor("tiny", cache=None, n_jobs=None).fit_transform(list(images))
    other = FeatureExtractor("tiny", cache=None, n_jobs=n_jobs, batch_size=2)
    rows = other.fit_transform(list(images))
    assert np.linalg.norm(rows - reference) <= 1e-5 * np.linalg.norm(reference)


class Changing:
    """A lazy sequence that changes the weights of a model while an item is read."""

    def __init__(self, images, model, at):
        self.images, self.model, self.at = images, model, at

    def __len__(self):
        return len(self.images)

    def __getitem__(self, position):
        if position == self.at:
            self.model.set_weights([-weight for weight in self.model.get_weights()])
        return self.images[position]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3), keras.layers.ReLU()], name="mine"
    )


@pytest.mark.parametrize("every_s", [0.0, 60.0])
@pytest.mark.parametrize("options", [{}, {"also_cache": ["conv"]}, {"views": 2}])
def test_pass_model_changed_meanwhile_stores_nothing_wrong(model, every_s, options, monkeypatch):
    monkeypatch.setattr("featx.extraction.row_writer._STORE_EVERY_S", every_s)
    model.layers[0].name = "conv"
    options = {"augment": "standard", **options} if "views" in options else options
    X = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    before = model.get_weights()
    extractor = FeatureExtractor(model, batch_size=8, **options)
    with pytest.raises(BackboneError, match="mine was changed while it embedded samples"):
        extractor.fit_transform(Changing(X, model, at=200))
    model.set_weights(before)
    rows = FeatureExtractor(model, batch_size=8).fit_transform(X)
    right = FeatureExtractor(model, batch_size=8, cache=None).fit_transform(X)
    np.testing.assert_allclose(rows, right, rtol=1e-4, atol=1e-3)


def test_pass_preprocessing_changed_meanwhile_raises(model):
    scaled = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 1)])
    X = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    extractor = FeatureExtractor(lambda shape: model, preprocessing=scaled, input_size=16)
    with pytest.raises(BackboneError, match="was changed while"):
        extractor.fit_transform(Changing(X, scaled, at=200))
    assert EmbeddingCache().info()["n_rows"] == 0


def test_pass_without_cache_model_changed_raises(model):
    X = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    with pytest.raises(BackboneError, match="was changed while"):
        FeatureExtractor(model, cache=None).fit_transform(Changing(X, model, at=200))


def test_pass_that_fails_drops_rows_of_changed_model(model):
    X = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)

    def fail(n_done, n_samples):
        if n_done >= 200:
            model.set_weights([-weight for weight in model.get_weights()])
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        FeatureExtractor(model, batch_size=8, verbose=fail).fit_transform(X)
    assert EmbeddingCache().info()["n_rows"] == 0


def test_unchanged_check_hashes_weights_once_for_layers(model, monkeypatch):
    counted = []
    read = keras_graph._own_weights_of_layer
    monkeypatch.setattr(
        keras_graph,
        "_own_weights_of_layer",
        lambda layer, *rest: counted.append(layer) or read(layer, *rest),
    )
    X = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    conv, relu = model.layers
    counted.clear()
    FeatureExtractor(model, layer=relu.name, also_cache=[conv.name]).fit_transform(X)
    assert counted.count(conv) == 3  # when the space is found, those of other layers, and checked
