"""How often and when the rows of a space were used: a line for each look-up.

Lines are appended in one write, which needs no lock. The file only says what is worth keeping: a
line that is lost or garbled, on a file system where appending is not atomic, costs a count.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

from featx._files import write_atomically

USAGE_FILE = "usage.log"
_MAX_BYTES = 256 * 2**10


class Usage(NamedTuple):
    """What a space was used for.

    Attributes
    ----------
    n_hits : int
        Rows that were found instead of being computed.
    last_used_s : float
        Seconds since 1970; 0 if never.
    """

    n_hits: int
    last_used_s: float


def note_use(folder: Path, *, n_hits: int) -> None:
    """Note that the rows in a folder were looked up; nothing is noted where nothing is stored."""
    path = folder / USAGE_FILE
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, _line(time.time(), n_hits))
            is_long = os.fstat(descriptor).st_size > _MAX_BYTES
        finally:
            os.close(descriptor)
        if is_long:
            usage = read_usage(folder)
            write_atomically(path, _line(usage.last_used_s, usage.n_hits))


def read_usage(folder: Path) -> Usage:
    """Sum up what was noted for a folder."""
    n_hits, last_used_s = 0, 0.0
    with contextlib.suppress(OSError):
        for line in (folder / USAGE_FILE).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                when, count = line.split()
                n_hits += int(count)
                last_used_s = max(last_used_s, float(when))
    return Usage(n_hits, last_used_s)


def _line(when_s: float, n_hits: int) -> bytes:
    return f"{when_s:.0f} {n_hits}\n".encode()
