"""Checksums of rows and of blocks of rows: what differs is found, wherever it lies."""

import numpy as np
import pytest

from featx.cache import read_rows
from featx.cache.read_rows import Checksums
from featx.digests.hashing import checksums_of_rows


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(23, 6)).astype(np.float32)


@pytest.fixture(params=[1, 24, 120, 10**6], ids="block {}".format, autouse=True)
def block(request, monkeypatch):
    monkeypatch.setattr(read_rows, "_BLOCK_BYTES", request.param)


@pytest.mark.parametrize("changed", [None, 0, 7, 22])
def test_agree_any_neighbors(changed, matrix):
    expected = Checksums.of(matrix)
    found = matrix.copy()
    if changed is not None:
        found[changed, 3] += 1
    right = np.arange(23) != changed
    for first in range(23):
        for stop in range(first, 24):
            result = expected.agree(found[first:stop], first=first)
            np.testing.assert_array_equal(result, right[first:stop])


def test_agree_reordered_rows_differ(matrix):
    result = Checksums.of(matrix).agree(matrix[::-1].copy(), first=0)
    assert np.flatnonzero(result).tolist() == [11]


def test_agree_without_checksums_of_blocks(matrix):
    expected = Checksums.of_rows_alone(checksums_of_rows(matrix))
    found = matrix.copy()
    found[4] = 0
    assert np.flatnonzero(~expected.agree(found, first=0)).tolist() == [4]


def test_of_holds_a_checksum_of_each_block(matrix):
    made = Checksums.of(matrix)
    assert len(made.rows) == 23
    assert len(made.blocks) == -(-23 // made.rows_of_a_block)


@pytest.mark.parametrize("max_more", [0, 1, 30])
def test_widened_ends_at_blocks_inside_matrix(max_more, matrix):
    made = Checksums.of(matrix)
    for first in range(23):
        for stop in range(first + 1, 24):
            start, end = made.widened(first, stop, max_more=max_more)
            assert first - max_more <= start <= first < stop <= end <= min(stop + max_more, 23)
            if max_more == 30:
                assert start % made.rows_of_a_block == 0
                assert end == 23 or end % made.rows_of_a_block == 0


def test_of_empty_matrix():
    made = Checksums.of(np.empty((0, 6), np.float32))
    assert len(made.rows) == len(made.blocks) == 0
    assert made.agree(np.empty((0, 6), np.float32), first=0).shape == (0,)
