"""Lazy sequences: each item is read once for a pass, in order, and few are alive at a time."""

import io
import pickle
import threading
import weakref

import numpy as np
import pytest
from PIL import Image, ImageSequence
from sklearn.model_selection import cross_val_score

from featx import EmbeddingCache, FeatureExtractor, TransferClassifier
from featx.exceptions import BackboneError, BadSampleError, BadSampleWarning, InputError
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import InputForm
from featx.inputs.lazy import LazySamples
from featx.inputs.recognize import as_samples
from featx.inputs.sequence import ItemSamples

SHAPE = (8, 8, 3)
FORM = InputForm(SHAPE)


class Lazy:
    """Makes items when it is indexed, and counts them."""

    def __init__(self, make, n_items):
        self.make, self.n_items = make, n_items
        self.rows, self.n_alive, self.most_alive = [], 0, 0
        self._lock = threading.Lock()

    def __len__(self):
        return self.n_items

    def __getitem__(self, row):
        if row >= self.n_items:
            raise IndexError(row)
        item = self.make(row)
        self.rows.append(row)
        if isinstance(item, Image.Image):
            self._count(1)
            weakref.finalize(item, self._count, -1)
        return item

    def _count(self, change):
        with self._lock:
            self.n_alive += change
            self.most_alive = max(self.most_alive, self.n_alive)


def pixels(row, side=64):
    return np.random.default_rng(row).integers(0, 256, (side, side, 3), dtype=np.uint8)


def pil(row):
    return Image.fromarray(pixels(row))


def read(X, shape=SHAPE, is_wanted=lambda key: True):
    samples = as_samples(X)
    assert isinstance(samples, LazySamples)
    return samples, list(
        samples.for_inputs(shape).read(
            InputForm(shape), FileIndex(None), is_wanted=is_wanted, n_jobs=2
        )
    )


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("wrap", [np.asarray, Image.fromarray, encoded])
def test_read_each_item_once_in_order(wrap):
    def make(row):
        return wrap(pixels(row, 8))

    X = Lazy(make, 150)
    samples, blocks = read(X)
    assert X.rows == list(range(150))
    images = np.stack([pixels(row, 8) for row in range(150)])
    np.testing.assert_array_equal(np.concatenate([block.inputs for block in blocks]), images)
    expected = as_samples([make(row) for row in range(150)]).keys(FileIndex(None))[0]
    np.testing.assert_array_equal(samples.keys(FileIndex(None))[0], expected)
    assert len(X.rows) == 150  # the keys were known


def test_read_unwanted_items_are_hashed_only():
    _, blocks = read(Lazy(pil, 70), is_wanted=lambda key: False)
    assert [len(block.loaded) for block in blocks] == [0, 0]
    assert all(key for block in blocks for key in block.identified.keys)


def pages(path):
    first, *others = [Image.fromarray(pixels(row, 8)) for row in range(40)]
    first.save(path, save_all=True, append_images=others)
    return Image.open(path)


def test_read_reused_object_keeps_pixels(tmp_path):
    buffer = np.empty(SHAPE, np.uint8)

    def fill(row):
        buffer[:] = pixels(row, 8)
        return buffer

    with pages(tmp_path / "pages.tif") as file:

        def turn_to(row):
            file.seek(row)
            return file

        for make in (fill, turn_to):
            _, blocks = read(Lazy(make, 40))
            images = np.stack([pixels(row, 8) for row in range(40)])
            np.testing.assert_array_equal(blocks[0].inputs, images)
        with pytest.raises(InputError, match=r"the same image object .*frame.copy\(\)"):
            as_samples(ImageSequence.Iterator(file))


def test_keys_of_lazy_samples_read_each_once():
    X = Lazy(pil, 70)
    samples = as_samples(X)
    keys = samples.keys(FileIndex(None))[0]
    samples.keys(FileIndex(None))
    assert X.rows == list(range(70))
    assert len(set(keys)) == 70


def test_fit_transform_reads_each_once_few_alive(tmp_path):
    X = Lazy(pil, 500)
    extractor = FeatureExtractor("tiny", cache=tmp_path)
    embeddings = extractor.fit_transform(X)
    assert X.rows == list(range(500))
    assert X.most_alive <= 100
    images = np.stack([pixels(row) for row in range(500)])
    np.testing.assert_allclose(
        embeddings, FeatureExtractor("tiny", cache=None).fit_transform(images), atol=1e-4
    )
    X.rows.clear()
    np.testing.assert_array_equal(extractor.transform(X), embeddings)
    assert X.rows == list(range(500))
    assert extractor.report_.n_hits == 500
    assert extractor.report_.engine is None


def test_fit_classifier_reads_each_once():
    X = Lazy(pil, 80)
    TransferClassifier(FeatureExtractor("tiny", cache=None)).fit(X, np.arange(80) % 2)
    assert X.rows == list(range(80))


def test_transform_half_known_lazy_runs_the_rest():
    extractor = FeatureExtractor("tiny")
    extractor.fit_transform(Lazy(pil, 40))
    X = Lazy(lambda row: pil((row + 20) % 60), 120)  # 20..59 and 0..19, twice
    embeddings = extractor.transform(X)
    report = extractor.report_
    assert (report.n_forward, report.n_hits, report.n_unread) == (20, 80, 0)
    expected = extractor.transform([pil((row + 20) % 60) for row in range(120)])
    np.testing.assert_array_equal(embeddings, expected)


def test_transform_lazy_stores_other_layers():
    extractor = FeatureExtractor("tiny", also_cache=[(None, "max")])
    extractor.fit_transform(Lazy(pil, 5))
    other = FeatureExtractor("tiny", pooling="max").fit(Lazy(pil, 5))
    other.transform(Lazy(pil, 5))
    assert other.report_.n_hits == 5


def test_transform_views_lazy_equals_images():
    params = {"views": 3, "augment": "standard"}
    extractor = FeatureExtractor("tiny", cache=None, **params)
    X = [pil(row) for row in range(5)]
    expected = extractor.fit(X).transform_views(X)
    views = extractor.fit(Lazy(pil, 5)).transform_views(Lazy(pil, 5))
    np.testing.assert_allclose(views, expected, atol=1e-4)


def broken(row):
    if row == 2:
        raise OSError("truncated")
    return [None, 7, None, b"no image"][row] if row in (0, 3) else pil(row)


@pytest.mark.parametrize("first", [0, 1])
def test_transform_lazy_lists_all_faults(first):
    X = Lazy(lambda row: broken(row + first), 70)
    with pytest.raises(BadSampleError) as caught:
        FeatureExtractor("tiny").fit_transform(X)
    reasons = {fault.position + first: fault.reason for fault in caught.value.faults}
    assert list(reasons) == [0, 2, 3][first:]
    assert reasons[2] == "OSError: truncated"
    assert "not an image" in reasons[3]
    assert EmbeddingCache().info()["n_rows"] == 67 + first


def test_transform_lazy_faults_become_rows_of_nan():
    with pytest.warns(BadSampleWarning, match="3 of 70"):
        embeddings = FeatureExtractor("tiny", on_error="nan").fit_transform(Lazy(broken, 70))
    assert np.flatnonzero(np.isnan(embeddings[:, 0])).tolist() == [0, 2, 3]


def test_transform_raises_error_of_sequence():
    def make(row):
        return pil(row) if row < 3 else {}["no such key"]

    with pytest.raises(KeyError, match="no such key"):
        FeatureExtractor("tiny", cache=None).fit_transform(Lazy(make, 5))


def test_transform_length_that_is_wrong_is_named():
    class Longer(Lazy):
        def __len__(self):
            return 5

    with pytest.raises(InputError, match=r"has 5 samples by its length, but X\[3\] raises Index"):
        FeatureExtractor("tiny", cache=None).fit_transform(Longer(pil, 3))


def test_transform_lazy_unit_floats_are_refused():
    with pytest.raises(InputError, match="255"):
        FeatureExtractor("tiny", cache=None).fit_transform(Lazy(lambda row: pixels(row) / 255, 5))


def test_batch_changed_item_is_a_fault():
    drawn = iter(range(100))
    samples, _ = read(Lazy(lambda row: pixels(next(drawn), 8), 3))
    _, _, faults = samples.batch(np.arange(3), FORM)
    assert len(faults) == 3
    assert "random transforms" in faults[0].reason


def vector_model(shape):
    import keras

    return keras.Sequential([keras.Input(shape), keras.layers.Dense(2, kernel_initializer="ones")])


def test_transform_lazy_vectors_and_signals_go():
    rows = np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32)
    extractor = FeatureExtractor(vector_model((5,)), preprocessing=None, cache=None)
    expected = extractor.fit_transform(rows)
    np.testing.assert_allclose(extractor.fit_transform(Lazy(rows.__getitem__, 70)), expected)
    rows[3] = np.nan
    with pytest.raises(BadSampleError, match=r"\[3\] .*NaN or infinite values"):
        extractor.fit_transform(Lazy(rows.__getitem__, 70))
    with pytest.raises(InputError, match=r"X holds images, but the backbone takes .*\(5,\)"):
        extractor.fit_transform(Lazy(pil, 3))


def test_read_vectors_of_bytes_not_encoded_images():
    rows = np.arange(15, dtype=np.uint8).reshape(3, 5)
    samples = as_samples(Lazy(rows.__getitem__, 3)).for_inputs((5,))
    (block,) = samples.read(InputForm((5,)), FileIndex(None), is_wanted=lambda key: True, n_jobs=1)
    np.testing.assert_array_equal(block.inputs, rows)


def test_read_masked_or_too_large_is_fault():
    rows = [np.ma.masked_greater(np.arange(5.0), 3), np.full(5, 1e300), np.zeros(5)]
    samples = as_samples(Lazy(rows.__getitem__, 3)).for_inputs((5,))
    (block,) = samples.read(InputForm((5,)), FileIndex(None), is_wanted=lambda key: True, n_jobs=1)
    assert block.loaded.tolist() == [2]
    reasons = [fault.reason for fault in block.identified.faults]
    assert "masked values" in reasons[0]
    assert "beyond float32" in reasons[1]


def test_as_samples_lazy_wrong_length_is_named():
    class Longer(Lazy):
        def __len__(self):
            return 5

    with pytest.raises(InputError, match=r"has 5 samples by its length, but X\[3\] raises Index"):
        as_samples(Longer(str, 3))


def test_fit_transform_different_shapes_names_cure():
    import keras

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    X = Lazy(lambda row: pixels(row, 8 + row), 3)
    with pytest.raises(BackboneError, match=r"pass input_size=\(height, width\)"):
        FeatureExtractor(model, cache=None, preprocessing=None).fit_transform(X)
    FeatureExtractor(model, cache=None, preprocessing=None, input_size=8).fit_transform(X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda row: (pil(row), row), r"a .* Lazy of \(PIL Image, int\) tuples: .*X\[i\]\[0\]"),
        (lambda row: {"image": pil(row), "label": 1}, r"rows with 'image', 'label'.*X\['image'\]"),
        (lambda row: np.zeros((2, *SHAPE)), "which are batches"),
        (lambda row: object(), r"3 of 3 samples are of unknown types: \[0\] object"),
    ],
)
def test_as_samples_lazy_other_items_raise(make, message):
    with pytest.raises(InputError, match=message):
        as_samples(Lazy(make, 3))


def test_as_samples_lazy_paths_are_read_once(tmp_path):
    X = Lazy(lambda row: str(tmp_path / f"{row}.png"), 70)
    assert isinstance(as_samples(X), ItemSamples)
    assert X.rows == list(range(70))


def test_take_of_lazy_samples_stays_lazy():
    X = Lazy(pil, 10)
    part = as_samples(X).take(np.array([2, 5, 7]))
    X.rows.clear()
    assert len(part[1:]) == 2
    assert np.asarray(part[-1]).tolist() == pixels(7).tolist()
    assert X.rows == [7]
    copied = pickle.loads(pickle.dumps(part))
    assert [np.asarray(image).tolist() for image in copied] == [
        pixels(row).tolist() for row in (2, 5, 7)
    ]


def test_score_leaves_out_unreadable_lazy_items():
    classifier = TransferClassifier(FeatureExtractor("tiny", cache=None, on_error="nan"))
    labels = np.arange(20) % 2
    classifier.fit([pil(row) for row in range(20)], labels)
    X = Lazy(lambda row: broken(2) if row == 5 else pil(row), 20)
    with pytest.warns(BadSampleWarning):
        assert classifier.score(X, labels) == 1.0


def test_cross_val_score_takes_a_lazy_sequence():
    classifier = TransferClassifier(FeatureExtractor("tiny"))
    X, y = Lazy(pil, 12), np.arange(12) % 2
    scores = cross_val_score(classifier, X, y, cv=2)
    np.testing.assert_array_equal(scores, cross_val_score(classifier, list(X), y, cv=2))
