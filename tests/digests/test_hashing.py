"""Digests depend on content and on nothing else."""

import numpy as np
import pytest

from featx.digests.hashing import (
    checksums_of_rows,
    digest_of,
    digest_of_array,
    digest_of_json,
    digests_of_rows,
)


def test_digest_of_known_value_is_stable():
    # XXH3 of 128 bits over "featx", as the xxhsum program gives it: caches depend on it.
    assert digest_of(b"featx").hex() == "554deb91049f55caad4a09657c2d5752"
    assert len(digest_of()) == 16


def test_digest_of_parts_are_concatenated():
    assert digest_of(b"ab", np.frombuffer(b"cd", np.uint8)) == digest_of(b"abcd")


@pytest.mark.parametrize(
    "other",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3),
        np.arange(6, dtype=np.int64).reshape(3, 2),
        np.arange(6, dtype=np.int64).reshape(2, 3) + 1,
        np.arange(6, dtype=">i8").reshape(2, 3),
    ],
    ids=["dtype", "shape", "values", "byte order"],
)
def test_digest_of_array_tells_apart(other):
    assert digest_of_array(np.arange(6).reshape(2, 3)) != digest_of_array(other)


def test_digest_of_array_ignores_memory_layout():
    array = np.arange(24.0).reshape(4, 6)
    strided = np.repeat(array, 2, axis=1)[:, ::2]
    assert digest_of_array(strided) == digest_of_array(array)
    assert digest_of_array(np.float32(3)) == digest_of_array(np.array(3, np.float32))


def test_digest_of_json_ignores_order_of_keys():
    assert digest_of_json({"a": [1, 2], "b": None}) == digest_of_json({"b": None, "a": [1, 2]})
    assert digest_of_json([1, 2]) != digest_of_json([2, 1])
    assert digest_of_json(float("nan")) == digest_of_json(float("nan"))


def test_checksums_of_rows_change_with_any_bit():
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    before = checksums_of_rows(rows)
    for bit in range(32):
        damaged = rows.copy()
        damaged.view(np.uint32)[2, 1] ^= np.uint32(1 << bit)
        np.testing.assert_array_equal(
            checksums_of_rows(damaged) == before, [True, True, False, True]
        )


def test_checksums_of_rows_of_nothing_is_empty():
    assert checksums_of_rows(np.empty((0, 3), np.float32)).shape == (0,)


@pytest.mark.parametrize(
    "rows",
    [
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.arange(24, dtype=">f4").reshape(4, 6),
        np.arange(48, dtype=np.int64).reshape(4, 12)[::2, ::3],
        np.asfortranarray(np.arange(24.0).reshape(4, 6)),
        np.zeros((3, 0), np.float32),
        np.zeros((0, 5), np.uint8),
        np.arange(3.0),
    ],
    ids=["uint8", "big-endian", "strided", "Fortran", "no features", "no rows", "numbers"],
)
def test_digests_of_rows_are_those_of_each(rows):
    assert digests_of_rows(rows) == [digest_of_array(np.asarray(row)) for row in rows]
