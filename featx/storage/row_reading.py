"""Rows of a matrix in a file, read into an array and checked on the way.

They are read, not mapped: where a disk or a mount is gone, a read is an error, and a touched page
is the end of the process. What is read at once stays in the processor's cache until it was checked
and has found its place. Reading and checking let other threads run.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import FileIO
from itertools import pairwise
from pathlib import Path

import numpy as np

from featx._files import open_regular
from featx.identity._hashing import checksums_of_rows
from featx.storage.checksums import Checksums

# Reading over a gap of 128 KiB takes as long as another round of the loop (2026-11, Linux).
_WINDOW_BYTES = 4 * 2**20
_GAP_BYTES = 128 * 2**10
# Checking a row in its block costs about half of checking it alone.
_DENSE = 2


def read_rows(
    path: Path,
    rows: np.ndarray,
    *,
    offset: int,
    dtype: np.dtype,
    checksums: Checksums,
    out: np.ndarray,
    targets: np.ndarray,
) -> np.ndarray:
    """Copy rows of a matrix in a file to rows of an array, checking each.

    Parameters
    ----------
    path : Path
    rows : ndarray of shape (m,), int64
        Which rows of the file, in any order, repeated or not.
    offset : int
        Of the matrix in the file, in bytes.
    dtype : dtype
        Of the matrix in the file.
    checksums : Checksums
        Of all rows of the file.
    out : ndarray of shape (n, n_features)
    targets : ndarray of shape (m,), int64
        Which rows of `out` they become.

    Returns
    -------
    ndarray of shape (m,), bool
        Which rows agree with their checksums. The others may have been written to `out` as well,
        and must not be used.

    Raises
    ------
    OSError
        The file is gone, or cannot be read.
    """
    out = np.asarray(out)  # each row of a memmap would be a memmap, which costs
    order = np.argsort(rows, kind="stable")
    rows, targets = rows[order], targets[order]
    row_bytes = out.shape[1] * dtype.itemsize
    steps = np.diff(rows)
    no_doubles = bool((steps > 0).all())
    is_direct = (
        no_doubles
        and out.dtype == dtype
        and out.flags.c_contiguous
        and bool((np.diff(targets) > 0).all())
    )
    n_at_once = max(1, _WINDOW_BYTES // row_bytes)
    max_gap = max(1, _GAP_BYTES // row_bytes)
    buffer, picked = np.empty((2, n_at_once + 2 * max_gap, out.shape[1]), dtype)
    sound = np.zeros(len(rows), bool)
    with open_regular(path) as file:
        for window in _windows(rows, steps, n_at_once, max_gap, checksums.rows_of_a_block):
            wanted, places = rows[window], targets[window]
            first, stop = int(wanted[0]), int(wanted[-1]) + 1
            fits = is_direct and places[-1] - places[0] + 1 == stop - first == len(wanted)
            if not fits:
                first, stop = checksums.widened(first, stop, max_more=max_gap)
            block = out[places[0] : places[-1] + 1] if fits else buffer[: stop - first]
            n_read = _fill(block, file, offset + first * row_bytes) // row_bytes
            if no_doubles and len(block) <= _DENSE * len(wanted):
                if not fits:
                    # A row that nobody wants is overwritten by the next that somebody does.
                    n_rows = int(wanted[-1]) + 1 - first
                    out[np.repeat(places, np.diff(wanted, prepend=first - 1))] = block[:n_rows]
                good = checksums.agree(block, first=first)[wanted - first]
            else:
                found = block.take(wanted - first, axis=0, mode="clip", out=picked[: len(wanted)])
                out[places] = found
                good = checksums_of_rows(found) == checksums.rows[wanted]
            sound[order[window]] = good & (wanted - first < n_read)
    return sound


def _windows(
    rows: np.ndarray, steps: np.ndarray, max_rows: int, max_gap: int, rows_of_a_block: int
) -> Iterator[slice]:
    """Split increasing row numbers into those that are read at once, between blocks if possible."""
    breaks = np.flatnonzero(steps > max_gap) + 1
    for start, end in pairwise([0, *breaks.tolist(), len(rows)]):
        while start < end:
            full = int(rows[start]) + max_rows
            whole = full // rows_of_a_block * rows_of_a_block
            last = whole if whole > rows[start] else full
            stop = start + int(np.searchsorted(rows[start:end], last))
            stop = min(stop, start + max_rows)  # rows may be asked for more than once
            yield slice(start, stop)
            start = stop


def _fill(block: np.ndarray, file: FileIO, offset: int) -> int:
    """Read bytes into a block from an offset on; return how many there were."""
    target = block.data.cast("B")
    file.seek(offset)
    n_read = 0
    while n_read < len(target):
        n_more = file.readinto(target[n_read:])
        if not n_more:
            break
        n_read += n_more
    return n_read
