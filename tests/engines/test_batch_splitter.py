"""Batches run whole or in parts, whichever trials show to be faster."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from featx.engines.keras_engine import BatchSplitter

IN_TRIAL = 2
# Eight images of 224 pixels are split into 3 + 3 + 2.
SLOW_PARTS, SLOW_WHOLE = {3: 1.0}, {8: 9.0}


class Clock:
    """A clock that tests advance, so that none depends on how busy a machine is."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


class Network:
    """A network that advances the clock by the seconds of a batch size."""

    def __init__(self, clock, seconds_by_size):
        self.sizes = []
        self._clock = clock
        self._seconds_by_size = seconds_by_size

    def __call__(self, inputs):
        self.sizes.append(len(inputs))
        self._clock.now_s += self._seconds_by_size.get(len(inputs), 0.0)
        return inputs[:, 0, 0, 0]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def images(n_images):
    """Return images of which each has a value of its own in all its pixels."""
    values = np.arange(n_images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(values, (n_images, 224, 224, 3))


def stream(splitter, network, thread, *, n_batches, n_images=8, n_in_flight=IN_TRIAL):
    """Send batches through as a runner does; return the rows of each."""
    pending, done = [], []
    for _ in range(n_batches):
        pending.append(splitter.start(images(n_images), partial(thread.submit, network)))
        if len(pending) == n_in_flight:
            done.append(splitter.finish(pending.pop(0)))
    return done + [splitter.finish(rows) for rows in pending]


@pytest.mark.parametrize(
    ("slow", "sizes"), [(SLOW_PARTS, [8]), (SLOW_WHOLE, [3, 3, 2])], ids=["parts", "whole"]
)
def test_start_after_trials_keeps_the_faster_way(clock, thread, slow, sizes):
    splitter = BatchSplitter(n_in_trial=IN_TRIAL, clock=clock)
    stream(splitter, Network(clock, slow), thread, n_batches=6 * IN_TRIAL)
    network = Network(clock, {})
    stream(splitter, network, thread, n_batches=3)
    assert network.sizes == sizes * 3


def test_start_in_trials_alternates_the_ways(clock, thread):
    network = Network(clock, {})
    stream(BatchSplitter(n_in_trial=IN_TRIAL, clock=clock), network, thread, n_batches=4 * IN_TRIAL)
    assert network.sizes == [3, 3, 2, 3, 3, 2, 8, 8] * 2


def test_start_last_batch_waits_for_its_trial(clock, thread):
    splitter = BatchSplitter(n_in_trial=IN_TRIAL, clock=clock)
    may_run = threading.Event()
    first = splitter.start(images(8), lambda part: thread.submit(may_run.wait))
    assert not any(part.done() for part in first)
    may_run.set()
    second = splitter.start(images(8), lambda part: thread.submit(may_run.wait))
    assert all(part.done() for part in (*first, *second))


def test_start_small_batches_stay_whole_without_waiting(clock, thread):
    splitter = BatchSplitter(n_in_trial=IN_TRIAL, clock=clock)
    may_run = threading.Event()
    batches = [
        splitter.start(images(2), lambda part: thread.submit(may_run.wait)) for _ in range(IN_TRIAL)
    ]
    assert [[part.done() for part in parts] for parts in batches] == [[False]] * IN_TRIAL
    may_run.set()


def test_finish_rows_are_all_and_in_order(clock, thread):
    network = Network(clock, {})
    for rows in stream(
        BatchSplitter(n_in_trial=IN_TRIAL, clock=clock), network, thread, n_batches=6 * IN_TRIAL
    ):
        assert rows.tolist() == list(range(8))


def test_start_single_batches_decide_nothing(clock, thread):
    network = Network(clock, SLOW_PARTS)
    stream(
        BatchSplitter(n_in_trial=IN_TRIAL, clock=clock),
        network,
        thread,
        n_batches=6 * IN_TRIAL,
        n_in_flight=1,
    )
    assert network.sizes == [3, 3, 2] * 6 * IN_TRIAL


def test_start_trials_of_two_sizes_stay_separate(clock, thread):
    splitter = BatchSplitter(n_in_trial=IN_TRIAL, clock=clock)
    network = Network(clock, SLOW_PARTS)
    for n_images in (8, 16) * 4:
        stream(splitter, network, thread, n_batches=IN_TRIAL, n_images=n_images)
    assert network.sizes[-4 * IN_TRIAL :] == [3, 3, 2] * IN_TRIAL + [16] * IN_TRIAL


def test_start_failed_trials_do_not_count(clock, thread):
    splitter = BatchSplitter(n_in_trial=IN_TRIAL, clock=clock)

    def fail(inputs):
        clock.now_s += SLOW_PARTS.get(len(inputs), 0.0)
        raise MemoryError

    for _ in range(6):
        batches = [splitter.start(images(8), partial(thread.submit, fail)) for _ in range(IN_TRIAL)]
        for parts in batches:
            with pytest.raises(MemoryError):
                splitter.finish(parts)
    network = Network(clock, {})
    stream(splitter, network, thread, n_batches=1)
    assert network.sizes == [3, 3, 2]
