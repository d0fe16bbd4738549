"""Batches to train on: what one holds follows from epoch and number, however it is asked for."""

import threading
from contextlib import closing

import numpy as np
import pytest

from featx.finetune.batches import Batches

N_SAMPLES, SIZE = 23, 4


class Reader:
    n_threads = 2

    def __init__(self):
        self.threads = set()

    def __call__(self, rows, version=0):
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


def test_epochs_hold_each_sample_once_in_orders_of_their_own():
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


def test_what_was_read_ahead_for_another_epoch_is_dropped():
    with closing(batches_of(Reader())) as batches, closing(batches_of(Reader())) as others:
        assert rows_of(batches[0]) == rows_of(others[0])  # the next are read ahead
        others.start_epoch(1)
        expected = epoch_of(others)
        batches.start_epoch(1)
        assert epoch_of(batches) == expected


@pytest.mark.parametrize("number", [0, 3])
def test_batches_are_the_same_after_the_end(number):
    batches = batches_of(Reader())
    before = rows_of(batches[number])
    batches.close()
    assert rows_of(batches[number]) == before


def test_threads_read_and_end():
    reader = Reader()
    with closing(batches_of(reader)) as batches:
        epoch_of(batches)
    assert threading.current_thread() not in reader.threads
    assert not any(thread.is_alive() for thread in reader.threads)
