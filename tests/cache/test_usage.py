"""How often a space was used: counted without a lock, and never in the way."""

import time
from concurrent.futures import ThreadPoolExecutor

from featx.cache.usage import USAGE_FILE, note_use, read_usage


def test_note_use_adds_up(tmp_path):
    for n_hits in (3, 0, 4):
        note_use(tmp_path, n_hits=n_hits)
    usage = read_usage(tmp_path)
    assert usage.n_hits == 7
    assert abs(usage.last_used_s - time.time()) < 60


def test_note_use_from_threads_counts_all(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: note_use(tmp_path, n_hits=1), range(400)))
    assert read_usage(tmp_path).n_hits == 400


def test_note_use_long_file_becomes_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("featx.cache.usage._MAX_BYTES", 100)
    for _ in range(50):
        note_use(tmp_path, n_hits=2)
    assert read_usage(tmp_path).n_hits == 100
    assert (tmp_path / USAGE_FILE).stat().st_size <= 115


def test_note_use_without_folder_makes_nothing(tmp_path):
    note_use(tmp_path / "none", n_hits=1)
    assert not (tmp_path / "none").exists()
    assert read_usage(tmp_path / "none") == (0, 0.0)


def test_read_usage_garbled_lines_are_skipped(tmp_path):
    (tmp_path / USAGE_FILE).write_bytes(b"100 3\n\xff\xfe\n12\nx y\n50 4")
    assert read_usage(tmp_path) == (7, 100.0)


def test_note_use_leaves_hard_links_alone(tmp_path):
    backup = tmp_path / "backup"
    backup.write_bytes(b"1000 5\n")
    (tmp_path / USAGE_FILE).hardlink_to(backup)
    note_use(tmp_path, n_hits=2)
    assert backup.read_bytes() == b"1000 5\n"
    assert read_usage(tmp_path).n_hits == 7
