"""Saved estimators with a reader: featx' own are restored, those of the caller are checked."""

import json
import threading
import zipfile
from dataclasses import fields

import numpy as np
import pytest
from command_line import runner
from own_reader import read_scan, scan_paths

from featx import FeatureExtractor, TransferClassifier, load, save
from featx.exceptions import BackboneError, NotCachedWarning, ParameterError, SavedFileError
from featx.inputs.reader import Reader
from featx.readers import SHIPPED, DicomReader, TiffReader
from featx.saving.manifest import parse_manifest
from featx.saving.readers import entry_of_reader, is_reader_entry


def saved(path, read, **params):
    classifier = TransferClassifier(FeatureExtractor("tiny", read=read, cache=None, **params))
    classifier.fit(scan_paths(), [0, 1, 1])
    save(classifier, path)
    return classifier


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "model.featx")


def edited(path, **changes):
    """Change the entry of the reader in a saved file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = parse_manifest(members["featx.json"])
    manifest["reader"] = {**manifest["reader"], **changes}
    members["featx.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_load_shipped_reader_is_restored(path):
    classifier = saved(path, DicomReader(window=(40, 400)))
    loaded = load(path, cache=None)
    assert loaded.extractor.read == loaded.extractor_.read == DicomReader(window=(40, 400))
    np.testing.assert_array_equal(
        loaded.predict_proba(scan_paths()), classifier.predict_proba(scan_paths())
    )
    assert load(path, read=DicomReader(window=(40, 400))).predict(scan_paths()).tolist()


def test_load_own_reader_has_to_be_passed(path):
    classifier = saved(path, read_scan)
    with pytest.raises(SavedFileError, match=r"'read_scan', which no file holds: .*load\(path, re"):
        load(path)
    loaded = load(path, read=read_scan, cache=None)
    np.testing.assert_array_equal(
        loaded.predict_proba(scan_paths()), classifier.predict_proba(scan_paths())
    )


def test_load_reader_of_other_code_raises(path):
    saved(path, read_scan)
    with pytest.raises(SavedFileError, match=r"reader 'read_scan' of the digest .* <lambda> has"):
        load(path, read=lambda content: read_scan(content) / 2)
    with pytest.raises(SavedFileError, match="cannot be identified"):
        load(path, read=threading.Lock().locked)


def test_load_reader_for_estimator_without_one_raises(path, images):
    save(FeatureExtractor("tiny", cache=None).fit(images), path)
    with pytest.raises(ParameterError, match=r"read=.*: expected None: .* names no reader"):
        load(path, read=read_scan)


def test_load_other_release_of_package_is_named(path, monkeypatch):
    saved(path, DicomReader())
    monkeypatch.setattr("featx.inputs.reader.installed_version", lambda name: "99.0")
    with pytest.raises(SavedFileError, match=r"used pydicom 3.*, and 99.0 is installed"):
        load(path)


def test_save_unhashable_reader_raises(path):
    lock = threading.Lock()

    def read(content):
        with lock:
            return read_scan(content)

    extractor = FeatureExtractor("tiny", read=read, cache=None)
    with pytest.warns(NotCachedWarning):
        extractor.fit(scan_paths())
    with pytest.warns(NotCachedWarning), pytest.raises(BackboneError, match="cannot be saved"):
        save(extractor, path)


@pytest.mark.parametrize(
    "changes",
    [
        {"class": "Reader"},
        {"class": "DicomReader", "params": {}},
        {"class": "DicomReader", "params": {"window": [[1]]}},
        {"class": "DicomReader", "params": {"window": {"a": 1}}},
        {"digest": 3},
        {"label": "x" * 10_000},
        {"more": 1},
    ],
)
def test_load_entry_that_featx_does_not_write_raises(changes, path):
    saved(path, DicomReader())
    edited(path, **changes)
    with pytest.raises(SavedFileError, match="reader"):
        load(path)


def test_load_faulty_parameters_of_reader_raise(path):
    saved(path, DicomReader())
    edited(path, params={"window": [40, 0]})
    with pytest.raises(SavedFileError, match="width is 1 or more"):
        load(path)


def test_entries_of_shipped_readers_are_valid():
    readers = [kind() for kind in SHIPPED] + [TiffReader(bands=("B4", 3), scale=(0, 1.5))]
    for reader in readers:
        entry = json.loads(json.dumps(entry_of_reader(Reader(reader))))
        assert is_reader_entry(entry)
        assert entry["params"].keys() == {each.name for each in fields(reader)}
    assert not is_reader_entry([])


def test_command_predicts_scans(path, capsys):
    saved(path, DicomReader())
    code, out, err = runner(capsys)("predict", path, *scan_paths())
    assert (code, err) == (0, "")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["0", "1", "1"]
