"""``read_rows``: rows of a matrix in a file, read into an array and compared with their checksums.

Files are read, not memory-mapped: if a disk or a mount is gone, a read raises an error, but access
to a mapped page kills the process. Rows are read in windows that stay in the processor's cache
until they are checked and copied. Reading and checking release the GIL.

Scattered rows are checked one by one. Where a complete block of neighbors was read, the checksum
of the block proves the same at half the cost; if it disagrees, each of its rows is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from featx._files import open_regular
from featx.digests.hashing import checksum_of, checksums_of_rows

_BLOCK_BYTES = 4 * 2**20
# Reading over a gap of 128 KiB takes as long as another round of the loop (2026-11, Linux).
_WINDOW_BYTES = 4 * 2**20
_GAP_BYTES = 128 * 2**10
# Checking a row in its block costs about half of checking it alone.
_MAX_ROWS_PER_WANTED = 2


@dataclass(frozen=True, eq=False)
class Checksums:
    """The xxh3 checksums of a matrix: one for each row, and one for each block of rows.

    `rows` and `blocks` are uint64; `blocks` is empty if those checksums are not known. Each block
    has `rows_of_a_block` rows, the last possibly fewer.
    """

    rows: np.ndarray
    blocks: np.ndarray
    rows_of_a_block: int

    @classmethod
    def of(cls, matrix: np.ndarray) -> Self:
        """Compute the checksums of a C-contiguous matrix (n, d)."""
        step = max(1, _BLOCK_BYTES // max(1, matrix[:1].nbytes))
        starts = range(0, len(matrix), step)
        blocks = [checksum_of(matrix[start : start + step]) for start in starts]
        return cls(checksums_of_rows(matrix), np.array(blocks, np.uint64), step)

    @classmethod
    def of_rows_alone(cls, rows: np.ndarray) -> Self:
        """Return the checksums of rows, shape (n,), without those of blocks."""
        return cls(rows, np.empty(0, np.uint64), 1)

    def widened(self, first: int, stop: int, *, max_more: int) -> tuple[int, int]:
        """Widen a range of rows to complete blocks, by at most `max_more` rows at each end."""
        step = self.rows_of_a_block
        start, end = first // step * step, min(-(-stop // step) * step, len(self.rows))
        return (
            start if first - start <= max_more else first,
            end if end - stop <= max_more else stop,
        )

    def agree(self, found: np.ndarray, *, first: int) -> np.ndarray:
        """Return a mask of the sound rows among neighbors, shape (m, d), C-contiguous.

        The first of them is expected to be the row `first` of the matrix.
        """
        step, stop = self.rows_of_a_block, first + len(found)
        n_complete = -(-stop // step) if stop == len(self.rows) else stop // step
        sound = np.zeros(len(found), bool)
        for block in range(-(-first // step), min(n_complete, len(self.blocks))):
            span = slice(block * step - first, (block + 1) * step - first)
            sound[span] = checksum_of(found[span]) == int(self.blocks[block])
        if not sound.any():
            return checksums_of_rows(found) == self.rows[first:stop]
        others = np.flatnonzero(~sound)
        sound[others] = checksums_of_rows(found[others]) == self.rows[first + others]
        return sound


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
    """Copy rows of a matrix in a file to the rows `targets` of an array, checking each.

    `rows` (m,) may be in any order and repeat. The matrix has `dtype` and starts `offset` bytes
    into the file; `checksums` are those of all its rows. Return a mask, (m,) bool, of the rows that
    agree with them. The others may have been written to `out` as well, and must not be used.
    OSError is raised if the file is gone, or cannot be read.
    """
    out = np.asarray(out)  # each row of a memmap is a memmap, which takes time to make
    order = np.argsort(rows, kind="stable")
    rows, targets = rows[order], targets[order]
    row_bytes = out.shape[1] * dtype.itemsize
    steps = np.diff(rows)
    is_increasing = bool((steps > 0).all())
    is_direct = is_increasing and out.dtype == dtype and out.flags.c_contiguous
    is_direct = is_direct and bool((np.diff(targets) > 0).all())
    n_at_once = max(1, _WINDOW_BYTES // row_bytes)
    max_gap = max(1, _GAP_BYTES // row_bytes)
    buffer, picked = np.empty((2, n_at_once + 2 * max_gap, out.shape[1]), dtype)
    sound = np.zeros(len(rows), bool)
    with open_regular(path) as file:
        for window in _row_windows(rows, steps, n_at_once, max_gap, checksums.rows_of_a_block):
            wanted, places = rows[window], targets[window]
            first, stop = int(wanted[0]), int(wanted[-1]) + 1
            fits = is_direct and places[-1] - places[0] + 1 == stop - first == len(wanted)
            if not fits:
                first, stop = checksums.widened(first, stop, max_more=max_gap)
            block = out[places[0] : places[-1] + 1] if fits else buffer[: stop - first]
            n_read = _fill_row_block(block, file, offset + first * row_bytes) // row_bytes
            if is_increasing and len(block) <= _MAX_ROWS_PER_WANTED * len(wanted):
                if not fits:
                    # A row that is not wanted is overwritten by the next wanted one.
                    n_rows = int(wanted[-1]) + 1 - first
                    out[np.repeat(places, np.diff(wanted, prepend=first - 1))] = block[:n_rows]
                good = checksums.agree(block, first=first)[wanted - first]
            else:
                found = block.take(wanted - first, axis=0, mode="clip", out=picked[: len(wanted)])
                out[places] = found
                good = checksums_of_rows(found) == checksums.rows[wanted]
            sound[order[window]] = good & (wanted - first < n_read)
    return sound


def _row_windows(
    rows: np.ndarray, steps: np.ndarray, max_rows: int, max_gap: int, rows_of_a_block: int
) -> Iterator[slice]:
    """Split increasing row numbers into windows read at once, at block boundaries if possible."""
    breaks = np.flatnonzero(steps > max_gap) + 1
    for start, end in pairwise([0, *breaks.tolist(), len(rows)]):
        while start < end:
            full = int(rows[start]) + max_rows
            boundary = full // rows_of_a_block * rows_of_a_block
            last = boundary if boundary > rows[start] else full
            stop = start + int(np.searchsorted(rows[start:end], last))
            stop = min(stop, start + max_rows)  # rows may repeat
            yield slice(start, stop)
            start = stop


def _fill_row_block(block: np.ndarray, file: FileIO, offset: int) -> int:
    """Read bytes from an offset into a block, and return their number."""
    target = block.data.cast("B")
    file.seek(offset)
    n_read = 0
    while n_read < len(target):
        n_more = file.readinto(target[n_read:])
        if not n_more:
            break
        n_read += n_more
    return n_read
