"""Files written atomically (``write_atomically``) and opened with care (``open_regular``).

featx writes its own files with :func:`write_atomically`, and files that the user named with
:func:`replaced_atomically`: the file is written beside its place under a unique name, flushed to
the disk, and moved into place with one rename. Readers never see a part of a file, writers need no
lock, and a full disk is a plain ``OSError`` that leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from featx.digests.hashing import DIGEST_BYTES, digest_of
from featx.exceptions import ParameterError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # of the standard library from Python 3.12 on

PART_SUFFIX = ".part"
PART_NAME = r"\..+\.[0-9a-f]{32}\.part"  # pattern
_FILE_TYPES = (
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)
# A pipe may have replaced the file after the check: opening it must not wait for a writer.
_UNFOLLOWED = sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC")
)
_PATIENCE_S = 10.0  # with processes that clear the folder repeatedly
_PAUSE_S = 0.01
_ABANDONED_S = 24 * 3600.0  # a writer needs seconds; clocks of two machines may differ by hours

_Bytes = TypeVar("_Bytes", bytes, memoryview)


def write_atomically(path: Path, data: Buffer) -> None:
    """Write a file so that readers see all of it or none, even after a power cut.

    Its folder is made if it is missing. If the disk is full, or the folder is read-only, for
    example, OSError is raised, and nothing is left behind.
    """
    write_in_order({path: [data]})


def check_replaceable(path: Path) -> None:
    """Check, before any work, that a path is free or that of a regular file.

    A rename would replace a link, a device or a named pipe by a file; as root, even ``/dev/null``.

    Raises
    ------
    ParameterError
        The path exists and is not a regular file.
    OSError
        No file can have this path; its name is too long or its folder read-only, for example.
    """
    folder = path.absolute().parent
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no permission to write to the folder", str(folder))
    shown = repr(os.fspath(path))
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except ValueError as exc:  # such as a null character
        raise ParameterError(f"{shown} cannot be the path of a file: {exc}") from exc
    if stat.S_ISLNK(found.st_mode):
        target = repr(os.path.realpath(path))
        raise ParameterError(
            f"{shown} is a link: expected the name of a file; name its target, {target}, or remove "
            "the link"
        )
    if not stat.S_ISREG(found.st_mode):
        file_type = describe_file_type(found.st_mode)
        raise ParameterError(f"{shown} is a {file_type}: expected the name of a file")


def describe_file_type(mode: int) -> str:
    """Return the type of an irregular file, such as "named pipe", from its mode."""
    return next((name for is_type, name in _FILE_TYPES if is_type(mode)), "special file")


@contextlib.contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Yield a path to write a file to, and move it to its place when it is complete.

    The yielded path has the same name, in a folder that no other user can read. An existing regular
    file is replaced by one with the same permissions. If writing fails or is interrupted, the
    existing file is unharmed, and nothing is left beside it.

    Raises
    ------
    ParameterError
        The path exists and is not a regular file.
    """
    check_replaceable(path)
    folder = path.absolute().parent
    # The folder has a short name, since the name of the file may have the maximum length.
    with tempfile.TemporaryDirectory(PART_SUFFIX, ".featx-", folder) as private:
        beside = Path(private) / path.name
        yield beside
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        _copy_permissions(path, beside)
        os.replace(beside, path)
    _sync_folder(folder)


def _copy_permissions(path: Path, beside: Path) -> None:
    """Give a file the mode and, where allowed, the owner of the file that it will replace."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError, AttributeError):  # not allowed; or Windows, without owners
        os.chown(beside, found.st_uid, found.st_gid)
    os.chmod(beside, stat.S_IMODE(found.st_mode) & 0o777)


def check_can_write(path: Path) -> None:
    """Check, before any work, that a file can be written, by writing to its folder.

    It raises what :func:`check_replaceable` raises, and OSError if the folder is not writable.
    """
    check_replaceable(path)
    folder = path.absolute().parent
    with (
        _failing_if_unwritable(folder),
        tempfile.TemporaryDirectory(PART_SUFFIX, ".featx-", folder),
    ):
        pass


def write_in_order(contents: Mapping[Path, Sequence[Buffer]]) -> None:
    """Write files of one folder, each as :func:`write_atomically` does; the last is the commit.

    `contents` has the parts of each file; the files are moved into place in its order. All are on
    the disk before the first is moved, so that readers see some without the others only for a
    moment. If it raises OSError, the last file is not written, and no unfinished file is left.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        # Repeated, since another process may clear the folder that was just made.
        with contextlib.suppress(FileNotFoundError):
            return _write_in_order(contents)
        time.sleep(_PAUSE_S)
    return _write_in_order(contents)


def _write_in_order(contents: Mapping[Path, Sequence[Buffer]]) -> None:
    folder = next(iter(contents)).parent
    beside = {path: folder / f".{path.name}.{uuid.uuid4().hex}{PART_SUFFIX}" for path in contents}
    try:
        for path, parts in contents.items():
            _write_and_sync(beside[path], parts)
        for path, part in beside.items():
            os.replace(part, path)
    except BaseException:
        for part in beside.values():
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _write_and_sync(path: Path, parts: Sequence[Buffer]) -> None:
    _make_folder(path.parent)
    with _failing_if_unwritable(path.parent), open(path, "xb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def remove_abandoned_parts(folder: Path) -> None:
    """Remove unfinished files that killed writers left a day ago or longer."""
    for part in folder.glob(f".*{PART_SUFFIX}"):
        if re.fullmatch(PART_NAME, part.name):
            remove_if_abandoned(part)


def remove_if_abandoned(path: Path) -> None:
    """Remove a file that was written a day ago or longer."""
    with contextlib.suppress(OSError):
        if time.time() - path.stat().st_mtime > _ABANDONED_S:
            path.unlink()


def remove_written(folder: Path, starts: Mapping[str, bytes]) -> int:
    """Remove the files that featx wrote to a folder, and the folder if it is empty then.

    `starts` has the first bytes of such files by a pattern of their names. All other files, and
    folders, links, pipes and devices stay. Others may write to the folder, or remove it as well.

    Returns
    -------
    int
        Size of the removed files in bytes.
    """
    freed_bytes = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        check_folder(folder)
        for name in sorted(os.listdir(folder)):  # the data of a shard before its index
            matching = (start for pattern, start in starts.items() if re.fullmatch(pattern, name))
            start = next(matching, None)
            if start is not None:
                freed_bytes += _remove_if_starting(folder / name, start)
    with contextlib.suppress(OSError):  # not empty, missing, or a link
        folder.rmdir()
    return freed_bytes


def _remove_if_starting(path: Path, start: bytes) -> int:
    """Remove a regular file that is empty or has these first bytes; return its size."""
    with contextlib.suppress(FileNotFoundError, IrregularFileError):
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if file.read(len(start)) not in (b"", start):
                return 0
        path.unlink()
        return size
    return 0


def _make_folder(folder: Path) -> None:
    """Make a folder that survives a power cut."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        try:
            with _failing_if_unwritable(place.parent):
                place.mkdir()
        except FileExistsError:  # another process made it, and may clear it
            if place.is_symlink() and not place.exists():  # waiting would not help
                raise NotADirectoryError(
                    errno.ENOTDIR, "a link to a missing folder", str(place)
                ) from None
        _sync_folder(place.parent)


@contextlib.contextmanager
def _failing_if_unwritable(folder: Path) -> Iterator[None]:
    """Raise PermissionError in a folder where nothing can be made, such as /proc.

    Making a file raises ``FileNotFoundError`` there, as in a folder that was just cleared, where
    waiting helps.
    """
    descriptor = _open_folder(folder)
    if descriptor is None:
        yield
        return
    try:
        opened = os.fstat(descriptor)
        yield
    except FileNotFoundError as exc:
        # The open descriptor keeps the inode from being reused, so the folder has existed.
        if os.path.samestat(opened, os.stat(folder)):
            raise PermissionError(
                errno.EPERM, "a folder in which no files can be created", str(folder)
            ) from exc
        raise
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> int | None:
    """Open a folder; return None on Windows, and for a folder that is writable but unreadable."""
    try:
        return os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except PermissionError:
        return None


def _sync_folder(folder: Path) -> None:
    descriptor = _open_folder(folder)  # a rename is stored in the folder
    if descriptor is None:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class IrregularFileError(OSError):
    """A link, pipe, device or folder has the path of a file."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> FileIO:
    """Open a file that featx wrote, unbuffered; follow no link, open no pipe or device.

    Raises
    ------
    IrregularFileError
        The file is not a regular file.
    OSError
        The file is missing or cannot be opened.
    """
    path = os.fspath(path)
    try:
        _check_regular_file(os.lstat(path).st_mode, path)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    descriptor = os.open(path, flags | _UNFOLLOWED, 0o666)
    try:
        _check_regular_file(os.fstat(descriptor).st_mode, path)
        return FileIO(descriptor, "ab" if flags & os.O_WRONLY else "rb")
    except BaseException:
        os.close(descriptor)
        raise


def open_given(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file that the user named; follow links, open no pipe or device.

    Opening a named pipe would wait for a writer, and reading a device may never end. The errors are
    those of :func:`open_regular`.
    """
    return BufferedReader(open_regular(os.path.realpath(path)))


def read_regular(
    path: str | os.PathLike[str], *, start: bytes = b"", max_bytes: int | None = None
) -> bytes:
    """Read a file that featx wrote; follow no link, open no pipe or device.

    A file whose first bytes are not `start` reads as empty. OSError is raised for a file that is
    larger than `max_bytes` (None: any size), besides what :func:`open_regular` raises.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if max_bytes is not None and size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", os.fspath(path))
        if start and file.read(len(start)) != start:
            return b""
        file.seek(0)
        return file.readall()


def _check_regular_file(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        raise IrregularFileError(errno.EINVAL, "not a regular file", os.fspath(path))


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Raise NotADirectoryError unless a path is free, or a folder and not a link to one."""
    try:
        mode = os.lstat(folder).st_mode
    except (FileNotFoundError, NotADirectoryError):  # the latter: a parent is a file
        return
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder, or a link", os.fspath(folder))


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder; none if it is missing, unreadable or a link."""
    with contextlib.suppress(OSError):
        check_folder(folder)
        return os.listdir(folder)
    return []


def is_regular(path: str | os.PathLike[str]) -> bool:
    """Return True for a regular file, False for a link, pipe, device, folder or nothing."""
    with contextlib.suppress(OSError):
        return stat.S_ISREG(os.lstat(path).st_mode)
    return False


def seal(payload: bytes) -> bytes:
    """Append the digest of a payload, so that damage is found when it is read.

    Examples
    --------
    >>> unseal(seal(b"rows"))
    b'rows'
    >>> unseal(b"rowz" + seal(b"rows")[4:]) is None
    True
    """
    return payload + digest_of(payload)


def unseal(data: _Bytes) -> _Bytes | None:
    """Return the payload of sealed data, or None if it is damaged."""
    payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    return payload if len(data) >= DIGEST_BYTES and digest_of(payload) == digest else None
