"""What files contain is remembered, unless the file may still have been changing."""

import os
import time

import pytest

from featx.exceptions import CacheDamageWarning
from featx.samples.file_index import FileIndex, file_key

DIGEST = b"d" * 15 + b"\0"  # numpy's S16 strips the last byte, the index must not


def key(number):
    return number.to_bytes(16, "big")


def test_find_after_flush_in_a_new_object(tmp_path):
    index = FileIndex(tmp_path)
    index.add(key(1), DIGEST, modified_s=0)
    index.flush()
    assert FileIndex(tmp_path).find([key(2), key(1)]) == [None, DIGEST]


def test_find_before_flush_is_known_in_memory_only(tmp_path):
    index = FileIndex(tmp_path)
    index.add(key(1), DIGEST, modified_s=0)
    assert index.find([key(1)]) == [DIGEST]
    assert FileIndex(tmp_path).find([key(1)]) == [None]


def test_add_file_that_just_changed_is_not_trusted(tmp_path):
    index = FileIndex(tmp_path)
    index.add(key(1), DIGEST, modified_s=time.time())
    index.add(key(2), DIGEST, modified_s=time.time() + 3600)
    assert index.find([key(1), key(2)]) == [None, None]


def test_flush_nothing_writes_nothing(tmp_path):
    FileIndex(tmp_path / "files").flush()
    assert not (tmp_path / "files").exists()


def test_flush_without_a_folder_keeps_all_in_memory():
    index = FileIndex(None)
    index.add(key(1), DIGEST, modified_s=0)
    index.flush()
    assert index.find([key(1)]) == [DIGEST]


def test_flush_many_segments_are_merged(tmp_path):
    index = FileIndex(tmp_path)
    for number in range(40):
        index.add(key(number), DIGEST, modified_s=0)
        index.flush()
        assert index.find([key(number)]) == [DIGEST]
        assert len(os.listdir(tmp_path)) <= 17
    assert FileIndex(tmp_path).find([key(number) for number in range(40)]) == [DIGEST] * 40


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign"])
def test_find_damaged_segment_only_means_hashing_again(damage, tmp_path):
    index = FileIndex(tmp_path)
    for number in (1, 2):
        index.add(key(number), DIGEST, modified_s=0)
        index.flush()
    first = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)[0]
    data = bytearray(first.read_bytes())
    data[30] ^= 1
    content = {
        "flip": bytes(data),
        "truncate": bytes(data[:-1]),
        "empty": b"",
        "foreign": b"x" * 99,
    }
    first.write_bytes(content[damage])
    with pytest.warns(CacheDamageWarning, match="was damaged and is removed"):
        assert FileIndex(tmp_path).find([key(1), key(2)]) == [None, DIGEST]
    assert FileIndex(tmp_path).find([key(1), key(2)]) == [None, DIGEST]


def test_find_segment_that_vanished_after_the_listing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "featx.samples.file_index._segment_names", lambda folder: ["files-gone.index"]
    )
    assert FileIndex(tmp_path).find([key(1)]) == [None]


def test_file_key_changes_with_size_time_and_path(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    before = file_key(str(path), path.stat())
    assert file_key(str(path), path.stat()) == before
    assert file_key(str(path) + "b", path.stat()) != before
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    touched = file_key(str(path), path.stat())
    path.write_bytes(b"12")
    assert len({before, touched, file_key(str(path), path.stat())}) == 3


def test_file_key_name_that_is_no_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    assert len(file_key(path, tmp_path.stat())) == 16
