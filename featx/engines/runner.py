"""Runner, which embeds batches: batch size, change of engine, and running out of memory.

A runner starts with the engine that is ready first. It measures the first batches to find a batch
size; if many samples are left, it then changes to a faster engine, which takes seconds to convert
the network. The embeddings of the measured batches are kept.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from featx._warning import warn_caller
from featx.engines.base import Engine
from featx.exceptions import EngineError, EngineWarning

_NUMBERS_PER_BATCH = 5_000_000
_TIMES_ON_ACCELERATORS = 8
LARGEST_BATCH = 4096
_GAIN = 1.03  # least gain in samples per second for which a batch size may double
# Converting a network takes 3 to 6 seconds, and saves a tenth to a half of the time.
_WORTH_CONVERTING_S = 30.0
_WORTH_SEARCHING_BATCHES = 40
_SETUP_FRACTION = 0.1  # largest fraction of the time left for setting up another batch size
_TRIALS = 3  # the first with each batch size includes the set-up


def batch_size_for(shape: tuple[int, ...], *, on_accelerator: bool = False) -> int:
    """Choose a batch size from the shape of one input.

    A batch has about five million numbers, 32 images of 224x224: MobileNetV2 then runs a quarter
    faster on 2 CPU cores than with 8 images, and as fast as with 64 (2026-11). A GPU gets up to
    eight times as many, but at most 256 samples: ResNet50 ran on an H200 at 9,500 images/s in
    batches of 32, at 15,000 in batches of 128, at 18,600 in batches of 256.

    Examples
    --------
    >>> batch_size_for((224, 224, 3)), batch_size_for((64, 64, 3)), batch_size_for((20,))
    (32, 256, 256)
    >>> batch_size_for((224, 224, 3), on_accelerator=True)
    256
    """
    n_times = _TIMES_ON_ACCELERATORS if on_accelerator else 1
    fitting = n_times * _NUMBERS_PER_BATCH // max(1, int(np.prod(shape)))
    return int(min(256, max(8, 2 ** (fitting.bit_length() - 1) if fitting else 8)))


class BatchSizeSearch:
    """Finds a good batch size: it is doubled while that is faster, else halved.

    `best` is the best size so far, at first the size to start from.
    """

    def __init__(self, start: int) -> None:
        self.best = start
        self._rates: dict[int, float] = {}

    def __iter__(self) -> Iterator[int]:
        start = self.best
        yield start
        while self.best * 2 <= LARGEST_BATCH and self.best == max(self._rates):
            yield self.best * 2
        while self.best <= start and self.best > 1 and self.best == min(self._rates):
            yield self.best // 2

    def note(self, size: int, *, rate: float) -> None:
        """Record the samples per second at a size; larger batches need a clear gain."""
        best_rate = self._rates.get(self.best, 0.0)
        self._rates[size] = rate
        if rate > best_rate * (_GAIN if size > self.best else 1 / _GAIN if size < self.best else 1):
            self.best = size


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error of any backend means that memory ran out."""
    words = ("resource_exhausted", "resource exhausted", "out of memory", "oom when", "bad_alloc")
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(word in text for word in words)


_Done = tuple[np.ndarray, np.ndarray]  # rows and their embeddings


class SampleFeed(Protocol):
    """A source of samples, in batches."""

    @property
    def n_left(self) -> int:
        """Number of samples that are expected to come."""

    def take(self, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and inputs, of one dtype, of up to `n_samples` samples; none at the end."""


class RunnerOptions(NamedTuple):
    """Options of a runner: engine of the first batches, and one to change to."""

    engine: str
    faster: str | None
    batch_size: int
    is_fixed: bool  # whether the batch size stays as it is


class _BatchSpeed(NamedTuple):
    """The speed of batches of one size: samples per second at best, and the set-up of the first."""

    rate: float
    setup_s: float  # JAX compiles a network for each size


class _PendingBatch(NamedTuple):
    """A batch that was started, or the error that kept it from starting."""

    inputs: np.ndarray
    engine: Engine
    pending: Any
    error: Exception | None = None

    def result(self) -> np.ndarray:
        """Wait for its embeddings."""
        if self.error:
            raise self.error
        return self.engine.finish(self.pending)[: len(self.inputs)]


class Runner:
    """Runs samples through engines.

    `make_engine` takes the name of an engine, a probe of the inputs and a batch size.
    `on_batch_size` is called with the batch size that the search found. `batch_size` is the one in
    use, `engines` are the names of the engines that were used, in order.
    """

    def __init__(
        self,
        make_engine: Callable[[str, np.ndarray, int], Engine],
        options: RunnerOptions,
        *,
        on_batch_size: Callable[[int], object] | None = None,
    ) -> None:
        self._make_engine = make_engine
        self._options = options
        self._made: dict[tuple[str, str], Engine] = {}
        self._name = options.engine
        self.batch_size = options.batch_size
        self._on_batch_size = on_batch_size
        self.engines: list[str] = []

    def run(self, feed: SampleFeed) -> Iterator[_Done]:
        """Yield the rows and float32 embeddings, (m, ...), of all samples of a feed, in batches."""
        yield from self._search_batch_size(feed)
        yield from self._change_if_faster(feed)
        yield from self._stream(feed)

    def _search_batch_size(self, feed: SampleFeed) -> Iterator[_Done]:
        worth_it = feed.n_left >= _WORTH_SEARCHING_BATCHES * self.batch_size
        if self._options.is_fixed or not worth_it:
            return
        search = BatchSizeSearch(self.batch_size)
        setup_s = 0.0
        for size in search:
            self.batch_size = size
            speed = yield from self._measure(feed)
            if self.batch_size < size:  # memory ran out
                search.note(size, rate=0.0)
                search.best = min(search.best, self.batch_size)
                break
            search.note(size, rate=speed.rate)
            setup_s = max(setup_s, speed.setup_s)
            if speed.rate * setup_s >= _SETUP_FRACTION * feed.n_left:
                self.batch_size = search.best
                return  # a longer pass would search further, so this size is not remembered
        self.batch_size = search.best
        if self._on_batch_size:
            self._on_batch_size(self.batch_size)

    def _change_if_faster(self, feed: SampleFeed) -> Iterator[_Done]:
        """Change to the faster engine if the remaining samples are worth the conversion."""
        if self._options.faster is None or feed.n_left < _TRIALS * self.batch_size:
            return
        speed = yield from self._measure(feed)
        if feed.n_left > speed.rate * _WORTH_CONVERTING_S:
            self._name = self._options.faster

    def _measure(self, feed: SampleFeed) -> Generator[_Done, None, _BatchSpeed]:
        """Embed some batches, and return their speed."""
        seconds = []
        best = 0.0
        for _ in range(_TRIALS):
            rows, inputs = feed.take(self.batch_size)
            if not len(rows):
                break
            self._engine(inputs)  # made before the clock starts
            start_s = time.perf_counter()
            outputs = self._run(inputs)
            seconds.append(time.perf_counter() - start_s)
            best = max(best, len(rows) / seconds[-1])
            yield rows, outputs
        return _BatchSpeed(best, seconds[0] - min(seconds) if seconds else 0.0)

    def _stream(self, feed: SampleFeed) -> Iterator[_Done]:
        """Embed the rest; the next batches are started before the result of a batch is awaited."""
        pending: deque[tuple[np.ndarray, _PendingBatch]] = deque()
        while True:
            rows, inputs = feed.take(self.batch_size)
            if len(rows):
                pending.append((rows, self._start(inputs)))
            elif not pending:
                return
            if not len(rows) or len(pending) >= pending[-1][1].engine.n_in_flight:
                first, started = pending.popleft()
                yield first, self._finish(started)

    def _start(self, inputs: np.ndarray) -> _PendingBatch:
        """Start work on a batch; an error is raised by :meth:`_finish`."""
        engine = self._engine(inputs)
        try:
            return _PendingBatch(inputs, engine, engine.start(engine.padded(inputs)))
        except Exception as exc:
            return _PendingBatch(inputs, engine, None, exc)

    def _finish(self, started: _PendingBatch) -> np.ndarray:
        """Wait for a batch; repeat it in smaller ones if memory ran out."""
        try:
            return started.result()
        except Exception as exc:
            size = started.engine.batch_size
            if size == 1 or not is_out_of_memory(exc):
                raise
        self.batch_size = min(self.batch_size, size // 2)
        return self._run(started.inputs)

    def _run(self, inputs: np.ndarray) -> np.ndarray:
        """Embed samples in batches of the size in use."""
        outputs: list[np.ndarray] = []
        n_done = 0
        while n_done < len(inputs):
            part = inputs[n_done : n_done + self.batch_size]
            outputs.append(self._finish(self._start(part)))
            n_done += len(part)
        return np.concatenate(outputs)

    def _engine(self, inputs: np.ndarray) -> Engine:
        key = (self._name, inputs.dtype.name)
        try:
            engine = self._made.get(key) or self._make_engine(self._name, inputs, self.batch_size)
        except EngineError as exc:
            if self._name != self._options.faster:
                raise
            self._name, self._options = self._options.engine, self._options._replace(faster=None)
            warn_caller(EngineWarning(f"{exc}; Keras runs it instead"))
            return self._engine(inputs)
        if engine.batch_size != self.batch_size:
            engine = engine.resized(self.batch_size)
        self._made[key] = engine
        if engine.name not in self.engines:
            self.engines.append(engine.name)
        return engine
