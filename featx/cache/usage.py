"""``note_use``, ``read_usage``: the log of a space, a line per look-up with its time and hits.

Each line is appended by a single write, without a lock. Only descriptions and evictions use the
log, so a line that is lost or garbled, on a file system where appending is not atomic, costs just a
count. Impossible lines, such as one with a time in the future, are ignored. Only the end of a huge
file is read.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from featx._files import open_regular, write_atomically

USAGE_FILE = "usage.log"
_MAX_BYTES = 256 * 2**10
_MAX_READ_BYTES = 4 * _MAX_BYTES
_MAX_HITS = 2**53  # in all lines together: JSON readers keep integers up to here exact
_CLOCKS_APART_S = 24 * 3600.0


class _Usage(NamedTuple):
    """The number of rows that were found, and the last use (s since 1970; 0 if there is none)."""

    n_hits: int
    last_used_s: float


def note_use(folder: Path, *, n_hits: int) -> None:
    """Record a look-up of the rows in a folder, unless the folder is missing."""
    path = folder / USAGE_FILE
    with contextlib.suppress(OSError):
        with open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) as file:
            found = os.fstat(file.fileno())
            has_other_names = found.st_nlink > 1  # such as a backup by hard links
            if not has_other_names:
                file.write(_usage_line(time.time(), n_hits))
        if has_other_names or found.st_size > _MAX_BYTES:
            usage = read_usage(folder)
            write_atomically(path, _usage_line(usage.last_used_s, usage.n_hits))
        if has_other_names:
            note_use(folder, n_hits=n_hits)


def read_usage(folder: Path) -> _Usage:
    """Sum up the records of a folder."""
    n_hits, last_used_s = 0, 0.0
    with contextlib.suppress(OSError):
        with open_regular(folder / USAGE_FILE) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _MAX_READ_BYTES))
            lines = file.readall().splitlines()
        for line in lines:
            with contextlib.suppress(ValueError):
                when_s, count = map(int, line.split())
                if 0 <= count <= _MAX_HITS and is_past(when_s):
                    n_hits = min(n_hits + count, _MAX_HITS)
                    last_used_s = max(last_used_s, float(when_s))
    return _Usage(n_hits, last_used_s)


def is_past(time_s: float) -> bool:
    """Return True for a past time in seconds since 1970, allowing for clocks that differ.

    Examples
    --------
    >>> is_past(0.0), is_past(-1), is_past(1e18), is_past(float("nan"))
    (True, False, False, False)
    """
    return 0 <= time_s <= time.time() + _CLOCKS_APART_S


def _usage_line(when_s: float, n_hits: int) -> bytes:
    return f"{when_s:.0f} {n_hits}\n".encode()
