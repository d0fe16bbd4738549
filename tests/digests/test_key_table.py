"""Digests looked up many at a time, those with zero bytes at either end included."""

import numpy as np
import pytest

from featx.digests.key_table import (
    KEY_DTYPE,
    KeyTable,
    keys_from,
    keys_from_matrix,
    matrix_from_keys,
)

TRICKY = [bytes(16), b"\0" * 15 + b"\1", b"\1" + bytes(15), b"a" * 8 + bytes(8), b"\xff" * 16]


def random_digests(n, seed=0):
    matrix = np.random.default_rng(seed).integers(0, 256, (n, 16), dtype=np.uint8)
    return [row.tobytes() for row in matrix]


def test_keys_and_matrix_are_each_others_inverse():
    digests = TRICKY + random_digests(5)
    matrix = matrix_from_keys(keys_from(digests, count=len(digests)))
    assert [row.tobytes() for row in matrix] == digests
    np.testing.assert_array_equal(matrix_from_keys(keys_from_matrix(matrix)), matrix)


def test_find_gives_the_position_of_each_key():
    digests = TRICKY + random_digests(1000)
    keys = keys_from(digests, count=len(digests))
    order = np.random.default_rng(1).permutation(len(keys))
    np.testing.assert_array_equal(KeyTable(keys).find(keys[order]), order)


@pytest.mark.parametrize("span", [slice(0, 1005), slice(0, 900), slice(105, 1005), slice(3, 400)])
def test_find_keys_in_given_order(span):
    digests = TRICKY + random_digests(1000)
    keys = keys_from(digests, count=len(digests))
    places = np.arange(len(keys))[span]
    np.testing.assert_array_equal(KeyTable(keys).find(keys[span]), places)
    broken = keys[span].copy()
    broken[-1] = b"elsewhere" * 2
    np.testing.assert_array_equal(KeyTable(keys).find(broken), [*places[:-1], -1])


def test_find_runs_past_end_or_repeats():
    digests = random_digests(50)
    keys = keys_from([digests[0], *digests], count=51)
    table = KeyTable(keys)
    assert table.find(keys[1:]).tolist() in ([0, *range(2, 51)], [*range(1, 51)])
    beyond = keys_from([*digests, *random_digests(5, seed=9)], count=55)
    assert (table.find(beyond)[-5:] == -1).all()
    assert (table.find(beyond)[1:50] == np.arange(2, 51)).all()


def test_find_missing_keys_gives_minus_one():
    table = KeyTable(keys_from(random_digests(100), count=100))
    missing = keys_from(TRICKY + random_digests(100, seed=1), count=105)
    assert (table.find(missing) == -1).all()


@pytest.mark.parametrize("n", [0, 1])
def test_find_small_tables(n):
    table = KeyTable(keys_from(TRICKY[4:5] * n, count=n))
    assert len(table) == n
    assert table.find(keys_from(TRICKY, count=5)).tolist() == [-1, -1, -1, -1, n - 1]


def test_find_no_keys_gives_none():
    assert KeyTable(keys_from(TRICKY, count=5)).find(np.empty(0, KEY_DTYPE)).shape == (0,)


def test_find_repeated_key_gives_any_position():
    table = KeyTable(keys_from([b"a" * 16, b"b" * 16, b"a" * 16], count=3))
    assert table.find(keys_from([b"a" * 16], count=1))[0] in (0, 2)
