"""``FeatureExtractor(read=...)``: from files of any format to embeddings, models and reports."""

import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import own_reader
import pydicom
import pytest
from own_reader import read_scan, scan_paths
from sample_networks import small_network
from sklearn.base import clone
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from featx import (
    EmbeddingCache,
    FeatureExtractor,
    FineTune,
    MistakesDisplay,
    TransferClassifier,
    find_image_issues,
    report,
)
from featx.evaluation.comparison import EmbeddingPass, compare
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    InputError,
    NearDuplicateWarning,
    NotCachedWarning,
    ParameterError,
)

LABELS = [0, 1, 1]


def extractor_of(tmp_path, **params):
    return FeatureExtractor("tiny", **{"read": read_scan, "cache": tmp_path / "cache", **params})


def pixels_of_scans():
    """Return the arrays of pydicom itself, with the levels of the reader."""
    values = [pydicom.dcmread(path).pixel_array.astype(float) for path in scan_paths()]
    return [(each - each.min()) / np.ptp(each) * 255 for each in values]


def test_transform_scans_equals_their_pixels(tmp_path):
    expected = FeatureExtractor("tiny", cache=None).fit_transform(pixels_of_scans())
    np.testing.assert_allclose(
        extractor_of(tmp_path).fit_transform(scan_paths()), expected, rtol=1e-5, atol=1e-5
    )


def test_transform_each_distinct_file_runs_once(tmp_path):
    extractor = extractor_of(tmp_path)
    first = extractor.fit_transform(scan_paths() * 2)
    assert extractor.report_.n_forward == 3
    contents = [Path(path).read_bytes() for path in scan_paths()]
    np.testing.assert_array_equal(extractor.transform(contents), first[:3])
    assert extractor.report_.n_forward == 0


def test_transform_warm_process_imports_no_tensorflow(tmp_path):
    extractor_of(tmp_path).fit_transform(scan_paths())
    done = subprocess.run(
        [sys.executable, own_reader.__file__, tmp_path / "cache"], capture_output=True, check=True
    )
    assert done.stdout.decode().split() == ["0"]


def test_transform_other_code_is_other_space(tmp_path):
    def read_inverted(content):
        return 255 - read_scan(content)

    ours = extractor_of(tmp_path)
    others = extractor_of(tmp_path, read=read_inverted)
    assert not np.allclose(ours.fit_transform(scan_paths()), others.fit_transform(scan_paths()))
    assert others.report_.n_forward == 3
    assert ours.space_.description["packages"] == {"pydicom": pydicom.__version__}
    assert "decoder" not in ours.space_.description
    assert "read by read_scan" in ours.space_.label


def test_transform_faults_are_named_with_position(tmp_path):
    (tmp_path / "note.dcm").write_text("no scan")
    paths = [*scan_paths(), str(tmp_path / "note.dcm"), str(tmp_path / "gone.dcm"), None]
    with pytest.raises(BadSampleError) as caught:
        extractor_of(tmp_path).fit_transform(paths)
    reasons = {fault.position: fault.reason for fault in caught.value.faults}
    assert reasons.keys() == {3, 4, 5}
    assert reasons[3].startswith("InvalidDicomError: ")
    assert reasons[4] == "no such file"


def test_transform_faulty_scan_becomes_nan(tmp_path):
    extractor = extractor_of(tmp_path, on_error="nan").fit(scan_paths())
    with pytest.warns(UserWarning, match="InvalidDicomError"):
        embeddings = extractor.transform([*scan_paths(), b"no scan"])
    assert np.isnan(embeddings[3]).all()
    assert np.isfinite(embeddings[:3]).all()


def test_transform_without_reader_after_one_is_fault(tmp_path):
    extractor_of(tmp_path).fit_transform(scan_paths())
    with pytest.raises(BadSampleError, match=r"\[2\] .*featx.readers.DicomReader"):
        extractor_of(tmp_path, read=None).fit_transform(scan_paths())


def test_classifier_with_reader_survives_pickling(tmp_path):
    classifier = TransferClassifier(extractor_of(tmp_path)).fit(scan_paths(), LABELS)
    again = pickle.loads(pickle.dumps(classifier))
    assert again.predict(scan_paths()).tolist() == LABELS
    assert again.extractor_.report_.n_forward == 0


@pytest.mark.parametrize("X", [np.zeros((2, 8, 8), np.uint8), [np.zeros((8, 8), np.uint8)]])
def test_fit_arrays_beside_reader_raises(X, tmp_path):
    with pytest.raises(InputError, match="read=read_scan reads files: pass paths or bytes"):
        extractor_of(tmp_path).fit(X)


def test_transform_unhashable_reader_is_not_cached(tmp_path):
    lock = threading.Lock()

    def read_locked(content):
        with lock:
            return read_scan(content)

    extractor = extractor_of(tmp_path, read=read_locked)
    with pytest.warns(NotCachedWarning, match="lock"):
        first = extractor.fit_transform(scan_paths())
    with pytest.warns(NotCachedWarning, match="lock"):
        np.testing.assert_array_equal(extractor.transform(scan_paths()), first)
    assert extractor.report_.n_forward == 3


def test_transform_changing_reader_stores_nothing(tmp_path):
    counts = [0]

    def read_counted(content):
        counts[0] += 1
        return read_scan(content)

    extractor = extractor_of(tmp_path, read=read_counted)
    with pytest.raises(BackboneError, match=r"reader .*read_counted changed while it read"):
        extractor.fit_transform(scan_paths())
    assert EmbeddingCache(tmp_path / "cache").info()["n_rows"] == 0


@pytest.mark.parametrize("read", [dict, 3])
def test_check_params_no_function_raises(read, tmp_path):
    with pytest.raises(ParameterError, match="a function from the bytes of a file"):
        extractor_of(tmp_path, read=read).check_params()


def with_attributes(**attributes):
    def read(content):
        return read_scan(content)

    vars(read).update(attributes)
    return read


def test_check_params_attributes_of_reader_are_checked(tmp_path):
    with pytest.raises(ParameterError, match="'bytes', 'path', 'any'"):
        extractor_of(tmp_path, read=with_attributes(takes="file")).check_params()
    with pytest.raises(ParameterError, match=r"\['no_such_package'\] are not installed"):
        extractor_of(tmp_path, read=with_attributes(packages=["no_such_package"])).check_params()


def test_cache_open_finds_rows_without_reader(tmp_path):
    extractor = extractor_of(tmp_path)
    expected = extractor.fit_transform(scan_paths())
    cache = EmbeddingCache(tmp_path / "cache")
    np.testing.assert_array_equal(cache.open(X=scan_paths())[:], expected)
    assert cache.verify(sample=3, extractor=extractor, X=scan_paths())["differing"] == []


class Scans:
    """Contents of files, read when they are indexed."""

    def __len__(self):
        return 3

    def __getitem__(self, row):
        return Path(scan_paths()[row]).read_bytes()


def test_transform_lazy_contents_find_rows_of_files(tmp_path):
    extractor = extractor_of(tmp_path)
    expected = extractor.fit_transform(scan_paths())
    np.testing.assert_array_equal(extractor.transform(Scans()), expected)
    assert extractor.report_.n_forward == 0
    fresh = extractor_of(tmp_path, cache=None)
    np.testing.assert_allclose(fresh.fit_transform(Scans()), expected, rtol=1e-5)


def read_corner(content):
    """Return raw values, far beyond 0..255, of exactly the shape (16, 16, 1)."""
    scan = pydicom.dcmread(io.BytesIO(content))
    return scan.pixel_array[:16, :16, np.newaxis] * 1000.0


def test_transform_without_preprocessing_takes_exact_arrays(tmp_path):
    network = small_network((16, 16, 1))
    extractor = FeatureExtractor(network, read=read_corner, cache=tmp_path / "cache")
    embeddings = extractor.fit_transform(scan_paths())
    values = np.stack([read_corner(Path(path).read_bytes()) for path in scan_paths()])
    expected = np.asarray(network(values)).mean(axis=(1, 2))
    np.testing.assert_allclose(embeddings, expected, rtol=1e-4)


def test_transform_network_that_scales_takes_pixels_only(tmp_path):
    def read_scaled(content):
        return np.ones((64, 64, 3)) * 0.5

    extractor = FeatureExtractor(
        "efficientnetb0", weights=None, input_size=64, read=read_scaled, cache=tmp_path / "cache"
    )
    with pytest.raises(BadSampleError, match="floating-point pixels that never exceed"):
        extractor.fit_transform(scan_paths())


def test_transform_views_augments_what_was_read(tmp_path):
    extractor = extractor_of(tmp_path, views=3, augment="standard")
    views = extractor.fit(scan_paths()).transform_views(scan_paths())
    assert views.shape == (3, 3, 400)
    assert extractor.report_.n_forward == 9


@pytest.mark.parametrize("unfreeze", [1, pytest.param("all", marks=pytest.mark.long)])
def test_fit_fine_tuning_reads_with_reader(unfreeze, tmp_path):
    tuned = FineTune(unfreeze, epochs=1)
    classifier = TransferClassifier(extractor_of(tmp_path), fine_tune=tuned, random_state=0)
    classifier.fit(scan_paths() * 4, LABELS * 4)
    assert classifier.predict(scan_paths()).tolist() == LABELS


def test_compare_warns_of_copies_of_scans(tmp_path):
    extractors, paths, labels = [extractor_of(tmp_path)], scan_paths() * 4, LABELS * 4
    with pytest.warns(NearDuplicateWarning):
        found = list(compare(paths, labels, extractors=extractors, heads=["ridge"], n_folds=2))
    assert [step.n_forward for step in found if isinstance(step, EmbeddingPass)] == [3]


def test_search_over_readers_finds_better(tmp_path):
    classifier = TransferClassifier(extractor_of(tmp_path))
    assert clone(classifier).extractor.read is read_scan
    readers = {"extractor__read": [read_black, read_scan]}
    search = GridSearchCV(classifier, readers, cv=2).fit(scan_paths() * 4, LABELS * 4)
    assert search.best_params_["extractor__read"] is read_scan


def read_black(content):
    return np.zeros((8, 8), np.uint8)


def test_report_of_scans_shows_thumbnails(tmp_path):
    found = report(TransferClassifier(extractor_of(tmp_path)), scan_paths() * 4, LABELS * 4, cv=2)
    found.to_html(tmp_path / "report.html")
    assert "data:image/" in (tmp_path / "report.html").read_text()
    assert "unreadable" not in found.to_dict()["image_issues"]


def test_find_image_issues_reads_with_reader(tmp_path):
    found = find_image_issues([*scan_paths(), b"no scan"], read=read_scan)
    assert found.issues["unreadable"].tolist() == [3]
    assert found.issues["exact duplicate"].tolist() == [2]
    assert found.width.tolist() == [128, 64, 64, 0]


@pytest.mark.parametrize(
    "combined", [TransferClassifier, lambda extractor: make_pipeline(extractor, RidgeClassifier())]
)
def test_mistakes_of_scans_show_pictures(combined, tmp_path):
    classifier = combined(extractor_of(tmp_path)).fit(scan_paths() * 2, LABELS * 2)
    display = MistakesDisplay.from_estimator(classifier, scan_paths(), [1, 1, 1])
    assert [mistake.row for mistake in display.mistakes] == [0]
    assert display.mistakes[0].image.size == (128, 128)
