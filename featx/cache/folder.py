"""The folder of a cache: its path, its parts, and removing what featx wrote to them."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import platformdirs

from featx._files import PART_NAME, names_in, remove_written
from featx.cache.graph_store import GRAPH_NAME, GRAPH_START
from featx.cache.usage import USAGE_FILE
from featx.exceptions import ParameterError

_DIGEST = "[0-9a-f]{32}"
_SHARD = "shard-[0-9a-f-]+"
# The first bytes of the files that featx writes to each part, by a pattern of their names. Those
# of quarantined files may be damaged.
_WRITTEN = {
    "spaces": {
        rf"{_SHARD}\.h5": b"\x89HDF",
        rf"{_SHARD}\.index": b"featx-shard-index-",
        re.escape(USAGE_FILE): b"",
        PART_NAME: b"",
    },
    "notes": {rf"{_DIGEST}\.json": b"{", PART_NAME: b""},
    "files": {rf"files-{_DIGEST}\.index": b"featx-file-index-", PART_NAME: b""},
    "graphs": {GRAPH_NAME: GRAPH_START, PART_NAME: b""},
    "damaged": {
        rf"{_DIGEST}-{_SHARD}\.(h5|index)(\.{_DIGEST})?": b"",
        rf"graphs-{GRAPH_NAME}(\.{_DIGEST})?": b"",
        PART_NAME: b"",
    },
    "tuning": {rf"{_DIGEST}\.tuning": b"PK", PART_NAME: b""},
}
CACHE_PARTS = tuple(_WRITTEN)
_EXPECTED = "expected a folder, or the default cache by leaving it out"


def absolute_cache_path(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a cache; an empty string is not the current folder."""
    if not os.fspath(path):
        raise ParameterError.of("cache", path, _EXPECTED)
    try:
        return Path(path).expanduser().absolute()
    except (RuntimeError, TypeError) as exc:  # a user without a home, or bytes
        raise ParameterError.of("cache", os.fspath(path), f"{exc}: {_EXPECTED}") from exc


def check_cache_path(folder: Path) -> None:
    """Raise ParameterError if no folder can have this path."""
    try:
        os.lstat(folder / CACHE_PARTS[0])
    except (ValueError, OSError) as exc:  # a null character, or too long a name
        reason = exc.strerror if isinstance(exc, OSError) else exc
        if isinstance(exc, ValueError) or exc.errno == errno.ENAMETOOLONG:
            raise ParameterError.of("cache", str(folder), f"{reason}: {_EXPECTED}") from exc


def default_cache_path() -> Path:
    """Return ``$FEATX_CACHE`` if it is set, else ``featx`` in the user's cache folder."""
    path = os.environ.get("FEATX_CACHE") or platformdirs.user_cache_path("featx")
    return Path(path).expanduser().absolute()


def clear_parts(path: Path) -> int:
    """Remove what featx wrote to the parts of a cache; return the freed bytes."""
    freed_bytes = 0
    for name, starts in _WRITTEN.items():
        # Earlier releases renamed a folder before they removed it, and may have been killed.
        renamed = re.compile(rf"\.{name}\.{_DIGEST}\.cleared")
        for folder in (name, *filter(renamed.fullmatch, names_in(path))):
            freed_bytes += _clear_part(path / folder, starts)
    return freed_bytes


def _clear_part(folder: Path, starts: dict[str, bytes]) -> int:
    """Remove what featx wrote to a folder and to those of spaces in it; return the freed bytes."""
    spaces = filter(re.compile(_DIGEST).fullmatch, names_in(folder))
    freed_bytes = sum(remove_written(folder / space, starts) for space in spaces)
    return freed_bytes + remove_written(folder, starts)
