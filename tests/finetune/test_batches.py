"""Batches: their content follows from epoch and number, in whatever order they are read."""

import threading
from contextlib import closing

import numpy as np
import pytest

from featx.finetune.batches import Batches, mixup

N_SAMPLES, SIZE = 23, 4


class Reader:
    n_threads = 2

    def __init__(self):
        self.threads = set()

    def __call__(self, rows, view=0):
        self.threads.add(threading.current_thread())
        return [rows[:, np.newaxis] * np.float32(1)]


def batches_of(reader):
    targets = np.arange(N_SAMPLES, dtype=np.float32)[:, np.newaxis]
    weights = np.ones(N_SAMPLES, np.float32)
    return Batches(reader, np.arange(N_SAMPLES), targets, weights, batch_size=SIZE, seed=3)


def rows_of(batch):
    inputs, targets, _ = batch
    np.testing.assert_array_equal(inputs, targets)
    return inputs[:, 0].astype(int).tolist()


def epoch_of(batches):
    return [rows_of(batches[number]) for number in range(len(batches))]


def test_batches_epochs_hold_each_sample_once():
    with closing(batches_of(Reader())) as batches:
        first = epoch_of(batches)
        batches.start_epoch(1)
        second = epoch_of(batches)
        batches.start_epoch(0)
        assert epoch_of(batches) == first
    assert first != second
    for epoch in (first, second):
        assert sorted(row for rows in epoch for row in rows) == list(range(N_SAMPLES))
        assert [len(rows) for rows in epoch] == [4, 4, 4, 4, 4, 3]


def test_start_epoch_drops_prefetched_batches():
    with closing(batches_of(Reader())) as batches, closing(batches_of(Reader())) as others:
        assert rows_of(batches[0]) == rows_of(others[0])  # the next are read ahead
        others.start_epoch(1)
        expected = epoch_of(others)
        batches.start_epoch(1)
        assert epoch_of(batches) == expected


@pytest.mark.parametrize("number", [0, 3])
def test_batches_after_close_are_the_same(number):
    batches = batches_of(Reader())
    before = rows_of(batches[number])
    batches.close()
    assert rows_of(batches[number]) == before


def test_close_ends_the_reading_threads():
    reader = Reader()
    with closing(batches_of(reader)) as batches:
        epoch_of(batches)
    assert threading.current_thread() not in reader.threads
    assert not any(thread.is_alive() for thread in reader.threads)


def test_mixup_sample_without_weight_has_no_effect():
    rng = np.random.default_rng(0)
    inputs, targets = [np.eye(6, dtype=np.float32)], np.eye(6, dtype=np.float32)
    weights = np.array([1, 1, 1, 0, 1, 1], np.float32)
    (mixed,), mixed_targets, mixed_weights = mixup(0.5)(rng, inputs, targets, weights)
    np.testing.assert_allclose(mixed.sum(axis=1), 1)
    assert (mixed_targets[mixed_weights > 0, 3] == 0).all()
    whole = mixup(0.5)(np.random.default_rng(0), inputs, targets, np.ones(6, np.float32))
    np.testing.assert_array_equal(whole[0][0], mixed)
    np.testing.assert_allclose(whole[1], mixed, rtol=1e-6)
