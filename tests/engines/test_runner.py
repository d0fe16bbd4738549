"""Runners: every sample once, in its order, whatever the batches and whatever memory there is."""

import time

import numpy as np
import pytest

from featx.engines import runner
from featx.engines.base import Engine
from featx.engines.runner import (
    BatchSizeSearch,
    Runner,
    RunnerOptions,
    batch_size_for,
    is_out_of_memory,
)
from featx.exceptions import EngineError, EngineWarning
from featx.extraction.prefetch import LoadedFeed


class Doubling(Engine):
    """Doubles what it is given; memory holds so many samples."""

    name, precisions = "keras", ("float32",)
    capacity = 10**9
    sizes: list

    def _load(self, model):
        self.sizes = []

    def start(self, inputs):
        assert len(inputs) == self.batch_size
        self.sizes.append(len(inputs))
        if len(inputs) > self.capacity:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return inputs

    def finish(self, pending):
        return 2 * pending.astype(np.float32)


class Faster(Doubling):
    """The engine that a runner changes to."""

    name = "openvino"


def feed_of(n_samples, group_size=7, dtypes=(np.uint8,)):
    starts = range(0, n_samples, group_size)

    def groups():
        for number, start in enumerate(starts):
            rows = np.arange(start, min(start + group_size, n_samples))
            yield rows, rows[:, np.newaxis].astype(dtypes[number % len(dtypes)]), []

    return LoadedFeed(groups(), n_expected=lambda: n_samples)


def run(engine, feed, batch_size=4, *, is_fixed=True, faster=None, **kwargs):
    """Run a feed; `faster` is the second engine, or why it cannot be had."""
    options = RunnerOptions("keras", "openvino" if faster else None, batch_size, is_fixed)

    def make(name, probe, batch_size):
        if name == "keras":
            return engine
        if isinstance(faster, Exception):
            raise faster
        return faster

    runs = Runner(make, options, **kwargs)
    done = list(runs.run(feed))
    rows = np.concatenate([rows for rows, _ in done])
    outputs = np.concatenate([outputs for _, outputs in done])
    return runs, rows, outputs


@pytest.mark.parametrize("n_samples", [1, 4, 5, 30, 63])
@pytest.mark.parametrize("dtypes", [(np.uint8,), (np.uint8, np.float32)])
def test_run_every_sample_once_in_its_order(n_samples, dtypes):
    _, rows, outputs = run(Doubling(None, 4), feed_of(n_samples, dtypes=dtypes))
    assert rows.tolist() == list(range(n_samples))
    np.testing.assert_array_equal(outputs[:, 0], 2 * rows)


@pytest.mark.parametrize("capacity", [1, 3, 5])
def test_run_out_of_memory_halves_the_batch(capacity):
    engine = Doubling(None, 16)
    engine.capacity = capacity
    runs, rows, outputs = run(engine, feed_of(50), 16)
    assert rows.tolist() == list(range(50))
    np.testing.assert_array_equal(outputs[:, 0], 2 * rows)
    assert runs.batch_size <= capacity
    assert engine.sizes.count(16) <= 2  # those that were pending


def test_run_single_sample_beyond_memory_raises():
    engine = Doubling(None, 4)
    engine.capacity = 0
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        run(engine, feed_of(8))


def test_run_other_errors_come_at_once():
    class Failing(Doubling):
        def finish(self, pending):
            raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        run(Failing(None, 4), feed_of(8))


class BestAtEight(Doubling):
    """Takes as long for eight samples as for one, and four times as long for more."""

    def resized(self, batch_size):
        engine = BestAtEight(None, batch_size)
        engine.sizes, engine.capacity = self.sizes, self.capacity
        return engine

    def start(self, inputs):
        time.sleep(0.002 if len(inputs) <= 8 else 0.008)
        return super().start(inputs)


def test_run_many_samples_find_a_batch_size():
    found = []
    kwargs = {"is_fixed": False, "on_batch_size": found.append}
    run(BestAtEight(None, 4), feed_of(20), 4, **kwargs)
    assert not found
    runs, rows, _ = run(BestAtEight(None, 4), feed_of(700), 4, **kwargs)
    assert rows.tolist() == list(range(700))
    assert found == [runs.batch_size] == [8]


def test_run_batch_size_stays_within_memory():
    engine, found = BestAtEight(None, 4), []
    engine.capacity = 4
    runs, rows, _ = run(engine, feed_of(700), 4, is_fixed=False, on_batch_size=found.append)
    assert rows.tolist() == list(range(700))
    assert found == [runs.batch_size] == [4]


def test_run_best_first_batch_size_stays():
    found = []
    runs, _, _ = run(
        BestAtEight(None, 8), feed_of(700), 8, is_fixed=False, on_batch_size=found.append
    )
    assert found == [runs.batch_size] == [8]


def test_run_missing_samples_find_no_batch_size():
    n_expected, found = [2000], []

    def groups():
        yield from [(np.arange(start, start + 4), np.zeros((4, 1)), []) for start in (0, 4, 8)]
        n_expected[0] = 12  # the others had the content of these

    feed = LoadedFeed(groups(), n_expected=lambda: n_expected[0])
    runs, rows, _ = run(BestAtEight(None, 4), feed, 4, is_fixed=False, on_batch_size=found.append)
    assert rows.tolist() == list(range(12))
    assert (runs.batch_size, found) == (4, [])


class SlowToSetUp(BestAtEight):
    """Compiles once for each size, as JAX does."""

    def start(self, inputs):
        if len(inputs) not in self.sizes:
            time.sleep(0.2)
        return super().start(inputs)

    def resized(self, batch_size):
        engine = SlowToSetUp(None, batch_size)
        engine.sizes = self.sizes
        return engine


def test_run_few_batches_skip_slow_sizes():
    engine, found = SlowToSetUp(None, 4), []
    runs, rows, _ = run(engine, feed_of(700), 4, is_fixed=False, on_batch_size=found.append)
    assert rows.tolist() == list(range(700))
    assert set(engine.sizes) == {4}
    assert (runs.batch_size, found) == (4, [])  # with more to do it would pay


@pytest.fixture
def worth_it(monkeypatch):
    monkeypatch.setattr(runner, "_WORTH_CONVERTING_S", 1e-9)


@pytest.mark.usefixtures("worth_it")
def test_run_long_pass_changes_to_faster_engine():
    first, second = Doubling(None, 4), Faster(None, 4)
    runs, rows, outputs = run(first, feed_of(60), faster=second)
    assert runs.engines == ["keras", "openvino"]
    assert (len(first.sizes), len(second.sizes)) == (3, 12)
    assert rows.tolist() == list(range(60))
    np.testing.assert_array_equal(outputs[:, 0], 2 * rows)


def test_run_stays_where_it_does_not_pay():
    first, second = Doubling(None, 4), Doubling(None, 4)
    runs, _, _ = run(first, feed_of(60), faster=second)
    assert (runs.engines, second.sizes) == (["keras"], [])


@pytest.mark.usefixtures("worth_it")
@pytest.mark.parametrize("dtypes", [(np.uint8,), (np.uint8, np.float32)])
def test_run_without_faster_engine_goes_on(dtypes):
    first = Doubling(None, 4)
    with pytest.warns(EngineWarning, match="no such operation; Keras runs it") as caught:
        runs, rows, _ = run(
            first, feed_of(60, dtypes=dtypes), faster=EngineError("no such operation")
        )
    assert len(caught) == 1
    assert runs.engines == ["keras"]
    assert rows.tolist() == list(range(60))


RATES = {
    "grows": ({8: 1, 16: 2, 32: 4, 64: 8, 128: 8.1}, 64),
    "falls": ({8: 1, 16: 2, 32: 1.5, 4: 0.5}, 16),
    "small is best": ({8: 4, 16: 3, 4: 5, 2: 6, 1: 1}, 2),
    "flat takes the least": ({8: 1, 16: 1, 4: 1, 2: 0.5}, 4),
}


@pytest.mark.parametrize("name", RATES)
def test_search_finds_the_best_size(name):
    rates, best = RATES[name]
    search = BatchSizeSearch(8)
    for size in search:
        search.note(size, rate=rates[size])
    assert search.best == best


@pytest.mark.parametrize("shape", [(1,), (10**9,), (), (224, 224, 3), (1, 1, 1)])
def test_batch_size_for_is_bounded(shape):
    assert 8 <= batch_size_for(shape) <= 256


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("OOM when allocating tensor with shape[32,224]"), True),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), True),
        (ValueError("shapes do not match"), False),
    ],
)
def test_is_out_of_memory_knows_every_backend(error, expected):
    assert is_out_of_memory(error) is expected
