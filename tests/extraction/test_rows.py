"""Rows to be loaded: each content once, and how many are expected while that is being found out."""

import numpy as np
import pytest

from featx.digests.key_table import keys_from
from featx.exceptions import SampleFault
from featx.extraction.load import DistinctRows, KnownRows
from featx.inputs.samples import Identified


def blocks_of(contents, size, faulty=()):
    """Identify samples, one content for each letter, in blocks of a size."""
    for start in range(0, len(contents), size):
        part = contents[start : start + size]
        faults = [
            SampleFault(row, "x", "bad") for row in range(start, start + len(part)) if row in faulty
        ]
        keys = keys_from([letter.encode() * 16 for letter in part], count=len(part))
        yield Identified(slice(start, start + len(part)), keys, faults)


def distinct_rows(contents, size=3, *, faulty=(), ends_at_fault=False):
    blocks = blocks_of(contents, size, faulty)
    return DistinctRows(blocks, n_samples=len(contents), ends_at_fault=ends_at_fault)


def all_of(rows, n_rows):
    taken = []
    while rows.n_untaken:
        taken += rows.take(n_rows).tolist()
    return taken


@pytest.mark.parametrize("n_rows", [1, 2, 5, 100])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_take_gives_each_content_once_however_samples_are_cut(size, n_rows):
    rows = distinct_rows("abacabadabe", size)
    assert all_of(rows, n_rows) == [0, 1, 3, 7, 10]
    assert rows.n_expected == 5
    assert rows.are_known


def test_take_identifies_no_more_than_it_has_to():
    rows = distinct_rows("abcdefgh", 2)
    rows.take(3)
    assert rows.identities.n_known == 4
    assert not rows.are_known
    rows.identify_all()
    assert rows.are_known
    assert rows.n_untaken == 5


def test_n_expected_follows_the_share_that_was_distinct():
    rows = distinct_rows("ab" + "aaab" * 10 + "cdefgh")
    assert rows.n_expected == 48
    rows.take(2)
    assert rows.n_expected == 48
    rows.take(2)
    assert rows.n_expected == 2 + 44 * 2 // 4
    rows.take(36)
    assert rows.n_expected == 2
    rows.take(100)
    assert rows.n_expected == 8


def test_take_leaves_faults_out():
    rows = distinct_rows("abcab", 2, faulty=(0, 2))
    assert all_of(rows, 2) == [1, 3]
    assert [fault.position for fault in rows.identities.faults] == [0, 2]


def test_take_ends_at_a_fault_if_told_so():
    rows = distinct_rows("abcdef", 2, faulty=(3,), ends_at_fault=True)
    assert rows.take(2).tolist() == [0, 1]
    assert rows.take(1).tolist() == []
    assert (rows.n_untaken, rows.n_expected) == (0, 2)


@pytest.mark.parametrize(
    ("rows", "are_consecutive"), [([4, 5, 6], True), ([4, 6], False), ([3], True), ([], False)]
)
def test_known_rows_tell_whether_they_are_consecutive(rows, are_consecutive):
    known = KnownRows(np.array(rows, np.int64))
    assert known.are_consecutive == are_consecutive
    assert all_of(known, 2) == rows
    assert known.n_expected == len(rows)
