"""Files are whole or not there, and damage of sealed data is found."""

import os
import tempfile
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from featx._files import (
    check_replaceable,
    remove_written,
    replaced_atomically,
    seal,
    unseal,
    write_atomically,
)
from featx.exceptions import ParameterError


def test_write_atomically_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "rows"
    write_atomically(path, b"rows")
    assert path.read_bytes() == b"rows"
    assert os.listdir(path.parent) == ["rows"]


def test_write_atomically_replaces_the_old_file(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old and longer")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_write_atomically_failing_rename_keeps_old_file(tmp_path):
    path = tmp_path / "rows"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="rows"):
        write_atomically(path, b"new")
    assert os.listdir(tmp_path) == ["rows"]
    assert (path / "inside").is_dir()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_write_atomically_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    real_open = open

    def open_full(name, mode):
        # What is written beside goes to a device that is always full.
        real_open(name, mode).close()
        return real_open("/dev/full", "wb")

    monkeypatch.setattr("builtins.open", open_full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["rows"]


def test_write_atomically_outlasts_repeated_clearing(tmp_path, monkeypatch):
    """On a slow disk every flush may find the folder cleared away meanwhile."""
    real_fsync, n_cleared = os.fsync, 0

    def clear_meanwhile(descriptor):
        nonlocal n_cleared
        real_fsync(descriptor)
        if n_cleared < 20:
            n_cleared += 1
            remove_written(tmp_path / "rows", {".*": b""})

    monkeypatch.setattr("os.fsync", clear_meanwhile)
    write_atomically(tmp_path / "rows" / "a", b"rows")
    assert n_cleared == 20
    assert (tmp_path / "rows" / "a").read_bytes() == b"rows"


def test_write_atomically_into_dangling_link_raises(tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", Mock(side_effect=AssertionError("waited")))
    (tmp_path / "rows").symlink_to(tmp_path / "gone")
    with pytest.raises(NotADirectoryError, match=r"a link to a missing folder: .*rows'"):
        write_atomically(tmp_path / "rows" / "inside" / "a", b"rows")
    assert os.listdir(tmp_path) == ["rows"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("path", ["/proc/rows/a", "/proc/a"])
def test_write_atomically_into_proc_raises_at_once(path, monkeypatch):
    monkeypatch.setattr("time.sleep", Mock(side_effect=AssertionError("waited")))
    with pytest.raises(PermissionError, match=r"no files can be created: '/proc'"):
        write_atomically(Path(path), b"rows")


def test_write_atomically_gives_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr("featx._files._PATIENCE_S", 0.05)
    monkeypatch.setattr("os.fsync", lambda _: remove_written(tmp_path / "rows", {".*": b""}))
    with pytest.raises(FileNotFoundError, match="rows"):
        write_atomically(tmp_path / "rows" / "a", b"rows")


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_remove_written_leaves_irregular_files(tmp_path):
    (tmp_path / "rows" / "a").mkdir(parents=True)
    (tmp_path / "rows" / "b").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "rows" / "c")
    (tmp_path / "rows" / "d").write_bytes(b"rows")
    (tmp_path / "link").symlink_to(tmp_path / "rows")
    assert remove_written(tmp_path / "link", {".": b""}) == 0
    assert remove_written(tmp_path / "rows", {".": b"ro"}) == 4
    assert sorted(os.listdir(tmp_path / "rows")) == ["a", "b", "c"]


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_replaced_atomically_keeps_mode_and_owner(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old")
    path.chmod(0o200)  # may not even be read
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    before = path.stat()
    with replaced_atomically(path) as beside:
        beside.write_bytes(b"new")
        assert beside.parent.stat().st_mode & 0o077 == 0
    after = path.stat()
    assert (after.st_mode, after.st_uid) == (before.st_mode, before.st_uid)
    path.chmod(0o600)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["rows"]


@pytest.mark.skipif(os.name == "nt", reason="needs permissions")
def test_replaced_atomically_new_file_has_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    with replaced_atomically(tmp_path / "rows") as beside:
        beside.touch()
    assert (tmp_path / "rows").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("fault", [KeyboardInterrupt, SystemExit, OSError, None])
def test_replaced_atomically_interrupted_leaves_the_old_file(fault, tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"old")

    def write():
        with replaced_atomically(path) as beside:
            if fault:
                beside.write_bytes(b"ne")
                raise fault

    with pytest.raises(fault or FileNotFoundError):  # where nothing was written
        write()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["rows"]


@pytest.mark.skipif(os.name == "nt", reason="needs folders with permissions")
def test_check_replaceable_locked_folder_raises(monkeypatch):
    with tempfile.TemporaryDirectory() as place:  # pytest's is root's alone
        os.chmod(place, 0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
            # os.access goes by the real user
            monkeypatch.setattr("os.access", partial(os.access, effective_ids=True))
        try:
            with pytest.raises(PermissionError, match="no permission to write to the folder"):
                check_replaceable(Path(place) / "rows")
        finally:
            os.seteuid(user)


def test_replaced_atomically_longest_name(tmp_path):
    with replaced_atomically(tmp_path / ("x" * 255)) as beside:
        beside.write_bytes(b"new")
    assert os.listdir(tmp_path) == ["x" * 255]


@pytest.mark.parametrize("target", ["rows", "gone", "link"])
def test_replaced_atomically_link_is_refused(target, tmp_path):
    (tmp_path / "rows").write_bytes(b"old")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(ParameterError, match="link' is a link: expected the name of a file"):
        replaced_atomically(tmp_path / "link").__enter__()
    assert sorted(os.listdir(tmp_path)) == ["link", "rows"]
    assert os.readlink(tmp_path / "link") == target


def test_unseal_any_flipped_bit_is_found():
    sealed = seal(b"payload")
    for bit in range(8 * len(sealed)):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert unseal(bytes(damaged)) is None


def test_unseal_any_truncation_is_found():
    sealed = seal(b"payload")
    for length in range(len(sealed)):
        assert unseal(sealed[:length]) is None
    assert unseal(sealed) == b"payload"


@pytest.mark.skipif(os.name == "nt", reason="needs folders with permissions")
def test_write_atomically_into_unreadable_folder():
    with tempfile.TemporaryDirectory() as place:  # pytest's is root's alone
        folder = Path(place) / "dropbox"
        folder.mkdir()
        os.chmod(place, 0o711)
        folder.chmod(0o333)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read all
        try:
            write_atomically(folder / "rows", b"new")
            write_atomically(folder / "below" / "rows", b"new")
        finally:
            os.seteuid(user)
            folder.chmod(0o700)
        assert (folder / "rows").read_bytes() == (folder / "below" / "rows").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_write_atomically_below_pipe_raises(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotADirectoryError):
        write_atomically(tmp_path / "pipe" / "below" / "rows", b"new")
