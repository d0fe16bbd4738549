"""OpenArchive: the files in a ``.zip`` or ``.tar`` file, by their paths in it."""

from __future__ import annotations

import tarfile
import threading
import weakref
import zipfile
from collections.abc import Callable
from typing import IO, Any, BinaryIO, Protocol

from featx.exceptions import UnreadableImageError

NOT_IN_ARCHIVE = "no such file in the archive"
_MAX_FILE_BYTES = 2**30


class _Packed(Protocol):
    """An archive whose list of files is read; `members` has the entry of each by its path."""

    members: dict[str, Any]

    def open(self, member: Any) -> IO[bytes] | None: ...


class OpenArchive:
    """An archive whose list of files is read. Several threads may use it.

    `protocol` is "zip" or "tar", which may be compressed. The file is closed with the archive.
    """

    def __init__(
        self, file: BinaryIO, protocol: str, *, max_file_bytes: int = _MAX_FILE_BYTES
    ) -> None:
        weakref.finalize(self, file.close)
        self._packed: _Packed = _PROTOCOLS[protocol](file)
        self._max_file_bytes = max_file_bytes  # of a file, which may be compressed to little
        self._reading = threading.Lock()  # threads share one open file

    def paths(self) -> list[str]:
        """Return the paths of all files, without ``./`` and ``/`` at their starts."""
        return list(self._packed.members)

    def holds(self, path: str) -> bool:
        """Return True if the archive has a file."""
        return plain_path(path) in self._packed.members

    def content(self, path: str) -> bytes:
        """Return the content of a file."""
        member = self._packed.members.get(plain_path(path))
        with self._reading:
            file = None if member is None else self._packed.open(member)
            if file is None:
                raise UnreadableImageError(NOT_IN_ARCHIVE)
            with file:
                content = file.read(self._max_file_bytes + 1)
        if len(content) > self._max_file_bytes:
            raise UnreadableImageError(f"unpacks to more than {self._max_file_bytes:,} bytes")
        return content


class _Zip:
    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file)
        files = (info for info in self._zip.infolist() if not info.is_dir())
        self.members = {plain_path(info.filename): info for info in files}

    def open(self, member: zipfile.ZipInfo) -> IO[bytes]:
        return self._zip.open(member)


class _Tar:
    def __init__(self, file: BinaryIO) -> None:
        try:
            self._tar = tarfile.open(fileobj=file)  # noqa: SIM115
        except tarfile.ReadError as exc:  # whose text has a line for each kind of compression
            raise UnreadableImageError("not a tar file, or damaged at its start") from exc
        self.members = {plain_path(info.name): info for info in self._tar if is_file(info)}

    def open(self, member: tarfile.TarInfo) -> IO[bytes] | None:
        try:
            return self._tar.extractfile(member)  # by name, it would search the whole list
        except KeyError as exc:  # a link that leads nowhere
            raise UnreadableImageError(NOT_IN_ARCHIVE) from exc


_PROTOCOLS: dict[str, Callable[[BinaryIO], _Packed]] = {"zip": _Zip, "tar": _Tar}


def is_file(info: tarfile.TarInfo) -> bool:
    """Return True for a file in a tar file, and a link to one."""
    return info.isreg() or info.islnk() or info.issym()


def plain_path(path: str) -> str:
    """Return a path in an archive without empty parts and dots.

    Examples
    --------
    >>> plain_path("./cat//1.png"), plain_path("/cat/1.png")
    ('cat/1.png', 'cat/1.png')
    """
    return "/".join(part for part in path.split("/") if part not in ("", "."))
