"""OpenedFiles: files that a reader opens itself, which must not change after they are hashed."""

from __future__ import annotations

import os
from typing import NamedTuple

from featx.exceptions import UnreadableImageError
from featx.inputs.file_index import file_key, is_settled
from featx.inputs.items import digest_of_file, file_status

CHANGED = "changed after it was hashed: repeat the call when nothing writes to the file"


class _HashedFile(NamedTuple):
    """The state in which a file was hashed; `is_settled` if no later change can look the same."""

    state: bytes
    digest: bytes
    is_settled: bool


class OpenedFiles:
    """The states and digests of files by path; several threads may use them.

    featx hashes again what it decodes. A reader that opens a file by its path may read a part of it
    only, so the state of the file is compared after that: its size, times and inode. Two changes
    within the resolution of a clock look the same, so a file that was young when it was hashed is
    hashed again, until it is old.
    """

    def __init__(self) -> None:
        self._hashed: dict[str, _HashedFile] = {}

    def digest(self, path: str, state: bytes) -> bytes | None:
        """Return the digest of a file if it was hashed in this state."""
        known = self._hashed.get(path)
        return known.digest if known and known.state == state else None

    def add(self, path: str, state: bytes, digest: bytes, *, changed_s: float) -> None:
        """Add a file that is hashed, and was last changed at this time."""
        self._hashed[path] = _HashedFile(state, digest, is_settled(changed_s))

    def check_unchanged(self, path: str) -> None:
        """Raise :class:`UnreadableImageError` if a file was changed since it was hashed."""
        known = self._hashed.get(path)
        if known is None:
            return
        status = file_status(path)
        if file_key(path, status) != known.state:
            raise UnreadableImageError(CHANGED)
        if known.is_settled:
            return
        settles = is_settled(max(status.st_mtime, status.st_ctime))
        if digest_of_file(path) != known.digest or file_key(path, os.stat(path)) != known.state:
            raise UnreadableImageError(CHANGED)
        self._hashed[path] = known._replace(is_settled=settles)
