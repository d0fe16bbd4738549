"""OpenedFiles: a file that changes between hashing and reading is a fault, never a wrong row."""

import os

import numpy as np
import pytest

from featx import FeatureExtractor
from featx.exceptions import BadSampleError, InputError, UnreadableImageError
from featx.inputs.file_index import FileIndex, file_key
from featx.inputs.items import digest_of_file
from featx.inputs.kinds import InputForm
from featx.inputs.opened_files import OpenedFiles
from featx.inputs.reader import Reader
from featx.inputs.recognize import as_samples
from featx.readers import ArrayReader, Page, Region

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
FORM = InputForm((8, 8, 3))


def read_path(path, part=None):
    return np.load(path) if part is None else np.load(path, mmap_mode="r")[part.index]


read_path.takes = "path"


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "stack.npy", PIXELS)
    return str(tmp_path / "stack.npy")


def opened(path, changed_s):
    files, state = OpenedFiles(), file_key(path, os.stat(path))
    files.add(path, state, digest_of_file(path), changed_s=changed_s)
    assert files.digest(path, state) == digest_of_file(path)
    assert files.digest(path, b"other") is None
    return files


def test_check_unchanged_other_size_raises(path):
    files = opened(path, changed_s=0)
    files.check_unchanged(path)
    files.check_unchanged("never hashed")
    with open(path, "ab") as file:
        file.write(b"more")
    with pytest.raises(UnreadableImageError, match="changed after it was hashed"):
        files.check_unchanged(path)


def test_check_unchanged_young_file_is_hashed_again(path):
    files = opened(path, changed_s=os.stat(path).st_mtime)
    files.check_unchanged(path)
    hashed = files._hashed[path]
    files._hashed[path] = hashed._replace(digest=b"other content, same state")
    with pytest.raises(UnreadableImageError, match="changed after it was hashed"):
        files.check_unchanged(path)


@pytest.mark.parametrize("read", [read_path, ArrayReader()])
def test_batch_page_of_changed_file_is_fault(read, path):
    pages = [Page(path, index) for index in range(3)]
    samples = as_samples(pages).read_by(Reader(read)).for_inputs(FORM.shape)
    keys, faults = samples.keys(FileIndex(None))
    assert len(set(keys.tolist())) == 3
    assert not faults
    np.testing.assert_array_equal(samples.batch(np.arange(3), FORM)[1], PIXELS)
    np.save(path, 255 - PIXELS)
    _, _, faults = samples.batch(np.arange(3), FORM)
    assert [fault.reason[:27] for fault in faults] == ["changed after it was hashed"] * 3


def test_batch_content_of_changed_file_is_fault(path):
    def read(content, part):
        return PIXELS[part.index]

    samples = as_samples([Page(path, 0)]).read_by(Reader(read))
    samples.keys(FileIndex(None))
    assert samples.batch(np.arange(1), FORM)[1].shape == (1, 8, 8, 3)
    np.save(path, 255 - PIXELS)
    assert samples.batch(np.arange(1), FORM)[2]


def test_keys_pages_hash_their_file_once(path, monkeypatch):
    hashed = []
    monkeypatch.setattr(
        "featx.inputs.sequence.digest_of_file",
        lambda path: hashed.append(path) or digest_of_file(path),
    )
    pages = [Page(path, index) for index in range(3)]
    as_samples(pages).read_by(Reader(ArrayReader())).keys(FileIndex(None))
    assert hashed == [path]


def test_transform_same_page_of_copy_runs_once(path, tmp_path):
    copy = tmp_path / "copy.npy"
    copy.write_bytes((tmp_path / "stack.npy").read_bytes())
    extractor = FeatureExtractor("tiny", read=ArrayReader(), cache=tmp_path / "cache")
    extractor.fit_transform([Page(path, 0), Page(copy, 0), Page(path, 1)])
    assert extractor.report_.n_forward == 2


def test_transform_pages_of_missing_file_are_faults(tmp_path):
    extractor = FeatureExtractor("tiny", read=ArrayReader(), cache=None)
    with pytest.raises(BadSampleError, match=r"\[0\] .*gone.npy\[1\]: no such file"):
        extractor.fit_transform([Page(tmp_path / "gone.npy", 1)])


def test_fit_page_without_reader_raises(path):
    with pytest.raises(InputError, match=r"X\[0\] is a Page, .*, which needs a reader"):
        FeatureExtractor("tiny", cache=None).fit([Page(path, 0)])


def test_fit_page_for_reader_of_files_raises(path):
    extractor = FeatureExtractor("tiny", read=lambda content: PIXELS[0], cache=None)
    with pytest.raises(InputError, match="reads whole files: give the function a second"):
        extractor.fit([Region(path, 0, 0, 1, 1)])


def test_fit_bytes_for_reader_of_paths_raises(path):
    extractor = FeatureExtractor("tiny", read=read_path, cache=None)
    with pytest.raises(InputError, match=r"X\[0\] is 3 bytes, and read=read_path takes paths"):
        extractor.fit([b"abc"])
