"""Loading: distinct rows, groups in threads, and batches of any size without faulty samples."""

import time

import numpy as np
import pytest

from featx.digests.key_table import keys_from
from featx.exceptions import SampleFault
from featx.extraction.prefetch import DistinctRows, KnownRows, LoadedFeed, load
from featx.inputs.kinds import InputForm
from featx.inputs.recognize import as_samples
from featx.inputs.samples import IdentifiedBlock


def groups(*sizes, faulty=()):
    start = 0
    for size in sizes:
        rows = np.arange(start, start + size)
        good = rows[~np.isin(rows, faulty)]
        faults = [SampleFault(int(row), "x", "bad") for row in rows if row in faulty]
        yield good, good[:, np.newaxis].astype(np.uint8), faults
        start += size


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_take_gives_every_sample_once(size):
    feed = LoadedFeed(groups(3, 1, 5, 2, faulty=(2, 3)), n_expected=lambda: 11)
    taken = []
    while len((batch := feed.take(size))[0]):
        rows, inputs = batch
        assert len(rows) <= size
        np.testing.assert_array_equal(inputs[:, 0], rows)
        taken += rows.tolist()
    assert taken == [0, 1, 4, 5, 6, 7, 8, 9, 10]
    assert [fault.position for fault in feed.faults] == [2, 3]
    assert feed.n_left == 0


def test_take_only_the_last_batch_is_short():
    feed = LoadedFeed(groups(3, 1, 5, 2), n_expected=lambda: 11)
    sizes = [len(feed.take(4)[0]) for _ in range(4)]
    assert sizes == [4, 4, 3, 0]


def test_take_whole_groups_are_not_copied():
    group = np.arange(4), np.zeros((4, 2), np.uint8), []
    _, inputs = LoadedFeed(iter([group]), n_expected=lambda: 4).take(4)
    assert np.shares_memory(inputs, group[1])


def test_load_keeps_the_order_whatever_the_threads():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    loaded = load(
        as_samples(images),
        KnownRows(np.arange(50)),
        InputForm((6, 6, 3)),
        batch_size=lambda: 3,
        n_jobs=4,
    )
    rows, inputs, faults = zip(*loaded, strict=True)
    assert np.concatenate(rows).tolist() == list(range(50))
    np.testing.assert_array_equal(np.concatenate(inputs), images)
    assert not any(faults)


def test_load_ready_images_are_not_copied():
    images = np.zeros((300, 6, 6, 3), np.uint8)
    sizes = iter([100, 200])
    loaded = load(
        as_samples(images),
        KnownRows(np.arange(300)),
        InputForm((6, 6, 3)),
        batch_size=lambda: next(sizes),
        n_jobs=1,
    )
    inputs = [inputs for _, inputs, _ in loaded]
    assert [len(part) for part in inputs] == [100, 200]
    assert all(np.shares_memory(part, images) for part in inputs)


def test_load_images_to_resize_in_small_groups():
    images = np.zeros((150, 6, 6, 3), np.uint8)
    loaded = load(
        as_samples(images),
        KnownRows(np.arange(150)),
        InputForm((4, 4, 3)),
        batch_size=lambda: 150,
        n_jobs=1,
    )
    assert [len(inputs) for _, inputs, _ in loaded] == [64, 64, 22]


def test_load_does_not_run_out_of_sight():
    """Threads wait for whoever takes what they loaded, which would fill memory otherwise."""
    loaded = []

    class Counted(type(as_samples(np.zeros((1, 4, 4, 3), np.uint8)))):
        def batch(self, rows, form):
            loaded.append(len(rows))
            return super().batch(rows, form)

    samples = Counted(np.zeros((200, 4, 4, 3), np.uint8))
    groups = load(
        samples, KnownRows(np.arange(200)), InputForm((4, 4, 3)), batch_size=lambda: 2, n_jobs=2
    )
    next(groups)
    time.sleep(0.2)
    assert len(loaded) <= 5
    groups.close()
    assert len(loaded) <= 5


def test_load_error_of_a_thread_is_raised():
    class Failing(type(as_samples(np.zeros((1, 4, 4, 3), np.uint8)))):
        def batch(self, rows, form):
            raise OSError("the drive is gone")

    samples = Failing(np.zeros((9, 4, 4, 3), np.uint8))
    with pytest.raises(OSError, match="drive"):
        list(
            load(
                samples,
                KnownRows(np.arange(9)),
                InputForm((4, 4, 3)),
                batch_size=lambda: 2,
                n_jobs=2,
            )
        )


def blocks_of(contents, size, faulty=()):
    """Identify samples, one content for each letter, in blocks of a size."""
    for start in range(0, len(contents), size):
        part = contents[start : start + size]
        faults = [
            SampleFault(row, "x", "bad") for row in range(start, start + len(part)) if row in faulty
        ]
        keys = keys_from([letter.encode() * 16 for letter in part], count=len(part))
        yield IdentifiedBlock(slice(start, start + len(part)), keys, faults)


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
def test_distinct_rows_take_each_content_once(size, n_rows):
    rows = distinct_rows("abacabadabe", size)
    assert all_of(rows, n_rows) == [0, 1, 3, 7, 10]
    assert rows.n_expected == 5
    assert rows.are_known


def test_distinct_rows_identify_no_more_than_needed():
    rows = distinct_rows("abcdefgh", 2)
    rows.take(3)
    assert rows.identities.n_known == 4
    assert not rows.are_known
    rows.identify_all()
    assert rows.are_known
    assert rows.n_untaken == 5


def test_distinct_rows_extrapolate_n_expected():
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


def test_distinct_rows_can_end_at_fault():
    rows = distinct_rows("abcdef", 2, faulty=(3,), ends_at_fault=True)
    assert rows.take(2).tolist() == [0, 1]
    assert rows.take(1).tolist() == []
    assert (rows.n_untaken, rows.n_expected) == (0, 2)


@pytest.mark.parametrize(
    ("rows", "are_consecutive"), [([4, 5, 6], True), ([4, 6], False), ([3], True), ([], False)]
)
def test_known_rows_are_consecutive_without_gaps(rows, are_consecutive):
    known = KnownRows(np.array(rows, np.int64))
    assert known.are_consecutive == are_consecutive
    assert all_of(known, 2) == rows
    assert known.n_expected == len(rows)
