"""What files contain is remembered, unless the file may still have been changing."""

import multiprocessing
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from featx._files import seal
from featx.digests.key_table import NO_KEY, bytes_from_keys, keys_from
from featx.exceptions import CacheDamageWarning
from featx.inputs import file_index
from featx.inputs.file_index import FileIndex, file_key

DIGEST = b"d" * 15 + b"\0"  # numpy's S16 strips the last byte, the index must not


def key(number):
    return number.to_bytes(16, "big")


def digests_in(index, keys):
    """Return the digest of each key, None if the index does not know it."""
    found = bytes_from_keys(index.find(keys_from(keys, count=len(keys))))
    return [None if digest == NO_KEY else digest for digest in found]


def test_find_after_flush_in_a_new_object(tmp_path):
    index = FileIndex(tmp_path)
    index.add(key(1), DIGEST, modified_s=0)
    index.flush()
    assert digests_in(FileIndex(tmp_path), [key(2), key(1)]) == [None, DIGEST]


def test_find_before_flush_known_in_memory_only(tmp_path):
    index = FileIndex(tmp_path)
    index.add(key(1), DIGEST, modified_s=0)
    assert digests_in(index, [key(1)]) == [DIGEST]
    assert digests_in(FileIndex(tmp_path), [key(1)]) == [None]


def test_add_just_changed_file_not_trusted(tmp_path):
    index = FileIndex(tmp_path)
    index.add(key(1), DIGEST, modified_s=time.time())
    index.add(key(2), DIGEST, modified_s=time.time() + 3600)
    assert digests_in(index, [key(1), key(2)]) == [None, None]


def test_flush_nothing_writes_nothing(tmp_path):
    FileIndex(tmp_path / "files").flush()
    assert not (tmp_path / "files").exists()


def test_flush_without_folder_keeps_all_in_memory():
    index = FileIndex(None)
    index.add(key(1), DIGEST, modified_s=0)
    index.flush()
    assert digests_in(index, [key(1)]) == [DIGEST]


def test_flush_many_segments_are_merged(tmp_path):
    index = FileIndex(tmp_path)
    for number in range(40):
        index.add(key(number), DIGEST, modified_s=0)
        index.flush()
        assert digests_in(index, [key(number)]) == [DIGEST]
        assert len(os.listdir(tmp_path)) <= 17
    assert digests_in(FileIndex(tmp_path), [key(number) for number in range(40)]) == [DIGEST] * 40


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
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
    }
    first.write_bytes(content[damage])
    with pytest.warns(CacheDamageWarning, match="was damaged and has been removed"):
        assert digests_in(FileIndex(tmp_path), [key(1), key(2)]) == [None, DIGEST]
    assert digests_in(FileIndex(tmp_path), [key(1), key(2)]) == [None, DIGEST]


def test_find_segment_that_vanished_after_the_listing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "featx.inputs.file_index._segment_names", lambda folder: ["files-gone.index"]
    )
    assert digests_in(FileIndex(tmp_path), [key(1)]) == [None]


def test_file_key_follows_size_time_and_path(tmp_path):
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


@pytest.fixture
def hasty_disk(monkeypatch):
    """Do not wait for the disk, which takes milliseconds a file."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


N_FLUSHES = [20, pytest.param(300, marks=pytest.mark.long)]


def add_and_flush(index, first, n_flushes):
    for number in range(first, first + n_flushes):
        index.add(key(number), DIGEST, modified_s=0)
        index.flush()


def check_holds_each_once(folder, n_entries):
    index = FileIndex(folder)
    index.flush()
    assert digests_in(index, list(map(key, range(n_entries)))) == [DIGEST] * n_entries
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert sum(sizes) <= 2 * 32 * n_entries
    assert len(sizes) <= 16


@pytest.mark.parametrize("n_flushes", N_FLUSHES)
def test_flush_by_threads_keeps_each_entry_once(n_flushes, tmp_path, hasty_disk):
    index = FileIndex(tmp_path)
    with ThreadPoolExecutor(16) as threads:
        firsts = range(0, 16 * n_flushes, n_flushes)
        list(threads.map(lambda first: add_and_flush(index, first, n_flushes), firsts))
    check_holds_each_once(tmp_path, 16 * n_flushes)


@pytest.mark.parametrize("n_flushes", N_FLUSHES)
def test_flush_by_processes_keeps_each_entry_once(n_flushes, tmp_path, hasty_disk):
    processes = multiprocessing.get_context("fork")
    firsts = range(0, 4 * n_flushes, n_flushes)
    workers = [
        processes.Process(target=add_and_flush, args=(FileIndex(tmp_path), first, n_flushes))
        for first in firsts
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    check_holds_each_once(tmp_path, 4 * n_flushes)


def write_segment(folder, name, pairs):
    payload = b"featx-file-index-1\n" + b"".join(name + digest for name, digest in pairs)
    folder.mkdir(exist_ok=True)
    (folder / f"files-{name}.index").write_bytes(seal(payload))


def test_flush_shrinks_segments_with_same_entries(tmp_path):
    pairs = [(key(number), DIGEST) for number in range(500)]
    for name in ("a", "b", "c"):
        write_segment(tmp_path, name, pairs * 3)
    write_segment(tmp_path, "d", pairs[:300])
    FileIndex(tmp_path).flush()
    assert sum(map(len, FileIndex(tmp_path)._refreshed().by_name.values())) == 500
    check_holds_each_once(tmp_path, 500)


def test_flush_drops_entry_with_two_digests(tmp_path):
    rest = [(key(number), DIGEST) for number in range(2, 30)]
    for name, digest in (("a", DIGEST), ("b", b"e" * 16)):
        write_segment(tmp_path, name, [(key(1), digest), *rest])
    index = FileIndex(tmp_path)
    index.flush()
    assert digests_in(index, [key(1), key(2)]) == [None, DIGEST]


def test_flush_entry_that_is_stored_writes_nothing(tmp_path):
    add_and_flush(FileIndex(tmp_path), 1, 1)
    add_and_flush(FileIndex(tmp_path), 1, 1)
    assert len(os.listdir(tmp_path)) == 1


def test_flush_rewrites_each_entry_few_times(tmp_path, monkeypatch, hasty_disk):
    written = []
    write = file_index.write_atomically
    monkeypatch.setattr(
        file_index, "write_atomically", lambda path, data: [written.append(data), write(path, data)]
    )
    add_and_flush(FileIndex(tmp_path), 0, 400)
    assert sum(map(len, written)) <= 400 * 32 * 10


def test_flush_merge_that_another_did_loses_nothing(tmp_path):
    """Two indexes that have read the same segments merge them, one after the other."""
    for number in range(16):
        write_segment(tmp_path, f"{number}", [(key(number), DIGEST)])
    first, second = FileIndex(tmp_path), FileIndex(tmp_path)
    for index, number in ((first, 16), (second, 17)):
        digests_in(index, [key(0)])
        index.add(key(number), DIGEST, modified_s=0)
    first.flush()
    second.flush()
    check_holds_each_once(tmp_path, 18)


SENSELESS = {
    "odd length": seal(b"featx-file-index-1\n" + b"x" * 33),
    "no pairs": seal(b"featx-file-index-1\n")[:-1],
}


@pytest.mark.parametrize("content", SENSELESS.values(), ids=SENSELESS)
def test_find_invalid_segment_is_removed(content, tmp_path):
    (tmp_path / "files-x.index").write_bytes(content)
    index = FileIndex(tmp_path)
    with pytest.warns(CacheDamageWarning, match="was damaged and has been removed"):
        assert digests_in(index, [key(1)]) == [None]
    assert digests_in(index, [key(1)]) == [None]


def test_flush_foreign_segment_stays(tmp_path):
    paths = tmp_path / "files-mine.index", tmp_path / "files-list.txt"
    for path in paths:
        path.write_text("mine")
    index = FileIndex(tmp_path)
    with pytest.warns(CacheDamageWarning, match="not written by featx and is ignored") as caught:
        add_and_flush(index, 1, 1)
    add_and_flush(index, 2, 40)
    assert len(caught) == 1
    assert [path.read_text() for path in paths] == ["mine", "mine"]


def test_find_digest_of_zeros_is_not_known(tmp_path):
    write_segment(tmp_path, "a", [(key(1), bytes(16)), (key(2), DIGEST)])
    assert digests_in(FileIndex(tmp_path), [key(1), key(2)]) == [None, DIGEST]


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_find_irregular_segment_is_left_out_unopened(kind, tmp_path):
    folder, path = tmp_path / "files", tmp_path / "files" / "files-x.index"
    add_and_flush(FileIndex(folder), 1, 1)
    make = {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
    }
    make[kind]()
    with pytest.warns(CacheDamageWarning, match="was damaged"):
        assert digests_in(FileIndex(folder), [key(1)]) == [DIGEST]
    assert digests_in(FileIndex(folder), [key(1)]) == [DIGEST]


def test_flush_into_a_linked_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "files").symlink_to(tmp_path / "elsewhere")
    index = FileIndex(tmp_path / "files")
    index.add(key(1), DIGEST, modified_s=0)
    with pytest.raises(NotADirectoryError, match="not a folder, or a link"):
        index.flush()
    assert digests_in(index, [key(1)]) == [DIGEST]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_index_other_process_reads_same_folder(tmp_path):
    index = FileIndex(tmp_path)
    add_and_flush(index, 1, 1)
    assert digests_in(pickle.loads(pickle.dumps(index)), [key(1)]) == [DIGEST]
