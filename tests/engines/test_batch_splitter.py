"""Whether batches are cut into parts is found out by doing both."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from featx.engines.keras_engine import BatchSplitter

IN_ROUND = 2
# Eight images of 224 pixels are cut into 3 + 3 + 2.
SLOW_PARTS, SLOW_WHOLE = {3: 1.0}, {8: 9.0}


class Clock:
    """Goes on only when it is told to, so that no test depends on how busy a machine is."""

    def __init__(self):
        self.now_s = 0.0

    def perf_counter(self):
        return self.now_s


class Network:
    """Stands for a network that takes as long as it is told to for so many images."""

    def __init__(self, clock, seconds_by_size):
        self.sizes = []
        self._clock = clock
        self._seconds_by_size = seconds_by_size

    def __call__(self, inputs):
        self.sizes.append(len(inputs))
        self._clock.now_s += self._seconds_by_size.get(len(inputs), 0.0)
        return inputs[:, 0, 0, 0]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(
        "featx.engines.keras_engine.time", SimpleNamespace(perf_counter=clock.perf_counter)
    )
    return clock


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def images(n_images):
    """Return images of which each has a value of its own in all its pixels."""
    values = np.arange(n_images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(values, (n_images, 224, 224, 3))


def stream(cutting, network, thread, *, n_batches, n_images=8, n_in_flight=IN_ROUND):
    """Send batches through as a runner does; return the rows of each."""
    pending, done = [], []
    for _ in range(n_batches):
        pending.append(cutting.start(images(n_images), partial(thread.submit, network)))
        if len(pending) == n_in_flight:
            done.append(cutting.finish(pending.pop(0)))
    return done + [cutting.finish(rows) for rows in pending]


@pytest.mark.parametrize(
    ("slow", "sizes"), [(SLOW_PARTS, [8]), (SLOW_WHOLE, [3, 3, 2])], ids=["parts", "whole"]
)
def test_start_after_the_trial_keeps_to_the_faster_way(clock, thread, slow, sizes):
    cutting = BatchSplitter(n_in_round=IN_ROUND)
    stream(cutting, Network(clock, slow), thread, n_batches=6 * IN_ROUND)
    network = Network(clock, {})
    stream(cutting, network, thread, n_batches=3)
    assert network.sizes == sizes * 3


def test_start_on_trial_gives_each_way_a_round_in_turn(clock, thread):
    network = Network(clock, {})
    stream(BatchSplitter(n_in_round=IN_ROUND), network, thread, n_batches=4 * IN_ROUND)
    assert network.sizes == [3, 3, 2, 3, 3, 2, 8, 8] * 2


def test_start_last_batch_of_a_round_waits_for_all_of_it(thread):
    cutting = BatchSplitter(n_in_round=IN_ROUND)
    may_run = threading.Event()
    first = cutting.start(images(8), lambda part: thread.submit(may_run.wait))
    assert not any(part.done() for part in first)
    may_run.set()
    second = cutting.start(images(8), lambda part: thread.submit(may_run.wait))
    assert all(part.done() for part in (*first, *second))


def test_start_small_batches_stay_whole_and_are_not_waited_for(thread):
    cutting = BatchSplitter(n_in_round=IN_ROUND)
    may_run = threading.Event()
    batches = [
        cutting.start(images(2), lambda part: thread.submit(may_run.wait)) for _ in range(IN_ROUND)
    ]
    assert [[part.done() for part in parts] for parts in batches] == [[False]] * IN_ROUND
    may_run.set()


def test_finish_rows_are_all_and_in_order(thread):
    network = Network(Clock(), {})
    for rows in stream(BatchSplitter(n_in_round=IN_ROUND), network, thread, n_batches=6 * IN_ROUND):
        assert rows.tolist() == list(range(8))


def test_start_batches_one_at_a_time_tell_nothing(clock, thread):
    network = Network(clock, SLOW_PARTS)
    stream(
        BatchSplitter(n_in_round=IN_ROUND), network, thread, n_batches=6 * IN_ROUND, n_in_flight=1
    )
    assert network.sizes == [3, 3, 2] * 6 * IN_ROUND


def test_start_rounds_of_two_sizes_are_not_compared(clock, thread):
    cutting = BatchSplitter(n_in_round=IN_ROUND)
    network = Network(clock, SLOW_PARTS)
    for n_images in (8, 16) * 4:
        stream(cutting, network, thread, n_batches=IN_ROUND, n_images=n_images)
    assert network.sizes[-4 * IN_ROUND :] == [3, 3, 2] * IN_ROUND + [16] * IN_ROUND


def test_start_rounds_that_failed_do_not_count(clock, thread):
    cutting = BatchSplitter(n_in_round=IN_ROUND)

    def fail(inputs):
        clock.now_s += SLOW_PARTS.get(len(inputs), 0.0)
        raise MemoryError

    for _ in range(6):
        batches = [cutting.start(images(8), partial(thread.submit, fail)) for _ in range(IN_ROUND)]
        for parts in batches:
            with pytest.raises(MemoryError):
                cutting.finish(parts)
    network = Network(clock, {})
    stream(cutting, network, thread, n_batches=1)
    assert network.sizes == [3, 3, 2]
