"""What the rows of a shard are checked against: a checksum of each row, and one of each block.

Rows that were asked for one by one are checked one by one. Where a whole block of neighbours was
read, one checksum of all its bytes says the same at half the cost, and lets other threads run; if
it disagrees, its rows are checked each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from featx.identity._hashing import checksum_of, checksums_of_rows

_BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class Checksums:
    """The checksums of a matrix.

    Attributes
    ----------
    rows : ndarray of shape (n,), uint64
    blocks : ndarray of shape (ceil(n / rows_of_a_block),), uint64
        In order; or none, where they are not known.
    rows_of_a_block : int
        The last may have fewer.
    """

    rows: np.ndarray
    blocks: np.ndarray
    rows_of_a_block: int

    @classmethod
    def of(cls, matrix: np.ndarray) -> Self:
        """Compute those of a C-contiguous matrix (n, d).

        Examples
        --------
        >>> matrix = np.eye(4)
        >>> Checksums.of(matrix).agree(matrix[1:3], first=1)
        array([ True,  True])
        >>> Checksums.of(matrix).agree(matrix[2:], first=1)
        array([False, False])
        """
        step = max(1, _BLOCK_BYTES // max(1, matrix[:1].nbytes))
        starts = range(0, len(matrix), step)
        blocks = [checksum_of(matrix[start : start + step]) for start in starts]
        return cls(checksums_of_rows(matrix), np.array(blocks, np.uint64), step)

    @classmethod
    def of_rows_alone(cls, rows: np.ndarray) -> Self:
        """Make do with the checksums of rows, shape (n,), where those of blocks are not known."""
        return cls(rows, np.empty(0, np.uint64), 1)

    def widened(self, first: int, stop: int, *, max_more: int) -> tuple[int, int]:
        """Widen a range of rows to whole blocks, if these are so few rows more at each end."""
        step = self.rows_of_a_block
        start, end = first // step * step, min(-(-stop // step) * step, len(self.rows))
        return (
            start if first - start <= max_more else first,
            end if end - stop <= max_more else stop,
        )

    def agree(self, found: np.ndarray, *, first: int) -> np.ndarray:
        """Check neighbouring rows.

        Parameters
        ----------
        found : ndarray of shape (m, d), C-contiguous
        first : int
            Which row of the matrix the first of them is to be.

        Returns
        -------
        ndarray of shape (m,), bool
        """
        step, stop = self.rows_of_a_block, first + len(found)
        n_whole = -(-stop // step) if stop == len(self.rows) else stop // step
        sound = np.zeros(len(found), bool)
        for block in range(-(-first // step), min(n_whole, len(self.blocks))):
            span = slice(block * step - first, (block + 1) * step - first)
            sound[span] = checksum_of(found[span]) == int(self.blocks[block])
        if not sound.any():
            return checksums_of_rows(found) == self.rows[first:stop]
        others = np.flatnonzero(~sound)
        sound[others] = checksums_of_rows(found[others]) == self.rows[first + others]
        return sound
