"""Real faults done to a real store: what was lost, and what was wrong.

Each test counts the rows that were stored, lost and wrong; the last two must be zero. Lost is a row
that was reported as stored and is not found again, although nothing happened to the bytes that hold
it. Short forms run in the gate; ``pytest -m long`` runs the long ones.
"""

import builtins
import contextlib
import errno
import os
import random
import resource
import shutil
import subprocess
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from cache_worker import (
    keys_of,
    open_store,
    reported,
    rows_folder,
    rows_of,
    small_blocks,
    start_worker,
)

from featx.cache.maintenance import compact, find_damage
from featx.exceptions import CacheDamageWarning


def long(*values):
    return pytest.param(*values, marks=pytest.mark.long)


@dataclass
class Tally:
    """Counts over all the faults of a test."""

    stored: int = 0
    lost: int = 0
    wrong: int = 0
    undetected: int = 0

    def check(self, store, numbers):
        """Look rows up again that were reported as stored."""
        numbers = np.asarray(numbers)
        rows, found = store.find(keys_of(numbers))
        self.stored += len(numbers)
        self.lost += int((~found).sum())
        self.wrong += int((rows[found] != rows_of(numbers[found])).any(axis=1).sum())
        return found

    def assert_clean(self):
        print(self)
        assert (self.lost, self.wrong, self.undetected) == (0, 0, 0)


@pytest.mark.parametrize("n_kills", [4, long(100)])
def test_append_killed_loses_no_reported_row(n_kills, tmp_path):
    tally, rng = Tally(), random.Random(0)
    for number in range(n_kills):
        worker = start_worker("write", tmp_path, "--first", number * 10**6, "--seconds", 60)
        first = worker.stdout.readline()
        time.sleep(rng.uniform(0, 0.3))
        worker.kill()
        rest, _ = worker.communicate()
        numbers = reported([first, *rest.splitlines(keepends=True)])
        tally.check(open_store(tmp_path), numbers)
    store = open_store(tmp_path)
    compact(store)
    assert find_damage(store) == {}
    tally.assert_clean()
    assert tally.stored >= 50 * n_kills


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """Two shards of 20 rows each."""
    folder = tmp_path_factory.mktemp("pristine")
    store = open_store(folder)
    with small_blocks():
        for start in (0, 20):
            numbers = np.arange(start, start + 20)
            store.append(keys_of(numbers), rows_of(numbers))
    assert [len(shard.checksums.blocks) for shard in store.shards()] == [5, 5]
    return folder


def check_after(damage, pristine, folder, tally):
    """Damage a copy of the store; what was not hit is there, and the damage was noticed."""
    shutil.copytree(pristine, folder)
    file, first_byte, last_byte = damage(rows_folder(folder))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store = open_store(folder)
        found = tally.check(store, np.arange(40))
        noticed = any(issubclass(warning.category, CacheDamageWarning) for warning in caught)
        tally.undetected += not (noticed or find_damage(store))
    # Rows whose bytes were hit are not lost, they are computed again.
    hit = keys_hit(open_store(pristine), file, first_byte, last_byte)
    tally.lost -= int((~found & np.isin(keys_of(np.arange(40)), hit)).sum())
    shutil.rmtree(folder)


def keys_hit(store, file, first_byte, last_byte):
    """Return the keys of the rows that lie in a part of a file; an index holds none."""
    shard = next(shard for shard in store.shards() if shard.path.stem == file.stem)
    starts = shard.offset + np.arange(len(shard)) * shard.row_bytes
    hit = (starts + shard.row_bytes > first_byte) & (starts <= last_byte)
    return shard.keys[hit & (file.suffix == ".h5")]


@pytest.mark.parametrize("n_flips", [30, long(1000)])
def test_find_flipped_bits_give_no_wrong_row(n_flips, pristine, tmp_path):
    tally, rng = Tally(), random.Random(0)

    def flip(rows):
        files = sorted(rows.glob("shard-*"))
        sizes = [file.stat().st_size for file in files]
        place = rng.randrange(sum(sizes))
        for file, size in zip(files, sizes, strict=True):
            if place < size:
                content = bytearray(file.read_bytes())
                content[place] ^= 1 << rng.randrange(8)
                file.write_bytes(content)
                return file, place, place
            place -= size
        raise AssertionError

    for _ in range(n_flips):
        check_after(flip, pristine, tmp_path / "copy", tally)
    tally.assert_clean()


@pytest.mark.parametrize("n_lengths", [6, long(50)])
@pytest.mark.parametrize("suffix", [".h5", ".index"])
def test_find_truncated_files_give_no_wrong_row(suffix, n_lengths, pristine, tmp_path):
    tally, rng = Tally(), random.Random(1)

    def cut(rows):
        file = sorted(rows.glob(f"*{suffix}"))[rng.randrange(2)]
        size = file.stat().st_size
        length = rng.randrange(size)
        os.truncate(file, length)
        return file, length, size

    for _ in range(n_lengths):
        check_after(cut, pristine, tmp_path / "copy", tally)
    tally.assert_clean()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 5 MB, or, where none may be mounted, a limit of 5 MB for each file."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        return
    yield folder, None
    subprocess.run(["umount", "-l", folder], check=True)


def test_append_full_disk_harms_nothing(small_disk):
    folder, limit = small_disk
    tally = Tally()
    worker = start_worker("fill", folder, preexec_fn=limit)
    output, warned = worker.communicate()
    lines = output.splitlines(keepends=True)
    assert (worker.returncode, warned) == (0, "")
    assert any(name in "".join(lines) for name in ("No space left", "File too large"))
    tally.check(open_store(folder), reported(lines))
    assert not list(rows_folder(folder).glob(".*.part"))
    tally.assert_clean()
    assert tally.stored > 0


@pytest.mark.parametrize(("n_writers", "seconds"), [(2, 2), long(8, 20)])
def test_many_processes_write_read_and_compact(n_writers, seconds, tmp_path):
    """Writers store overlapping rows; readers check every row they get; all see all at the end."""
    jobs = ["write"] * n_writers + ["read", "read", "compact"]
    workers = [start_worker(job, tmp_path, "--seconds", seconds) for job in jobs]
    answers = [worker.communicate() for worker in workers]
    outputs = [output.splitlines(keepends=True) for output, _ in answers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    assert [warned for _, warned in answers] == [""] * len(workers)
    tally = Tally()
    for lines in outputs[:n_writers]:
        tally.check(open_store(tmp_path), sorted(set(reported(lines))))
    tally.assert_clean()
    n_read = sum(int(lines[-1]) for lines in outputs[n_writers : n_writers + 2])
    print(f"{n_read} rows read meanwhile")
    assert n_read > 0


CALLS = ("os.replace", "os.fsync", "os.open", "os.mkdir", "builtins.open")
METHODS = ("write", "flush", "close")
ERRORS = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES", "ENOENT", "ESTALE", "EMFILE")


@pytest.mark.parametrize("error", [ERRORS[0], *map(long, ERRORS[1:])])
def test_append_any_failing_call_harms_nothing(error, tmp_path, monkeypatch):
    """Each call that a commit makes fails once: the rows are stored whole or not at all."""
    tally, n_failed = Tally(), 0
    for name in (*CALLS, *METHODS):
        for which in range(8):
            folder = tmp_path / f"{name}-{which}"
            store = open_store(folder)
            old, new = np.arange(10), np.arange(10, 20)
            store.append(keys_of(old), rows_of(old))
            with monkeypatch.context() as patch:
                has_failed = fail_once(patch, name, which, error, inside=folder)
                reported_rows = old
                with contextlib.suppress(OSError):
                    store.append(keys_of(new), rows_of(new))
                    reported_rows = np.arange(20)
            n_failed += has_failed()
            tally.check(open_store(folder), reported_rows)
            found = open_store(folder).find(keys_of(new))[1]
            assert found.all() or not found.any()
            assert not list(rows_folder(folder).glob(".*.part"))
    tally.assert_clean()
    assert n_failed >= 8


def fail_once(patch, name, which, error, *, inside):
    """Make the n-th call of a function, on files of a folder, fail as the system would."""
    calls = []

    def count(target):
        if isinstance(target, int) or str(inside) in str(target):
            calls.append(target)
            if len(calls) == which + 1:
                raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)))

    module, _, function = name.rpartition(".")
    if module:
        holder = {"os": os, "builtins": builtins}[module]
        real = getattr(holder, function)

        def call(target, *arguments, **options):
            count(target)
            return real(target, *arguments, **options)

        patch.setattr(holder, function, call)
    else:
        real_open = builtins.open

        def open_failing(target, *arguments, **options):
            file = real_open(target, *arguments, **options)
            return FailingFile(file, function, count) if "x" in str(arguments) else file

        patch.setattr(builtins, "open", open_failing)
    return lambda: len(calls) > which


class FailingFile:
    """A file of which one method is counted, and fails when its turn has come."""

    def __init__(self, file, method, count):
        self.file = file
        self.method = method
        self.count = count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        if self.method == "close":
            self.count(self.file.name)

    def __getattr__(self, name):
        if name == self.method:
            self.count(self.file.name)
        return getattr(self.file, name)
