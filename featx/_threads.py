"""Threads: Prefetcher and ``run_ahead`` prefetch results; ``blas_threads_for`` limits BLAS.

On small matrices the threads of a BLAS spend their time waiting for one another: a logistic
regression on 400 rows of 1,280 features took 7 ms with one thread and 48 ms with two (2 cores,
2026-11, idle machine), and twenty times as long with two on a busy machine. Large factorizations
gain from threads. So the size decides, and the setting of the user is restored afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Generic, TypeVar

import joblib
from threadpoolctl import ThreadpoolController

_PREFETCHED_PER_THREAD = 2
_SMALL_BYTES = 32 * 2**20

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_threads: int
) -> Generator[_Result]:
    """Yield the results of a function of items, in their order, from threads that prefetch a few.

    joblib's threads do not wait for the consumer of the results. A single item needs no thread.

    Examples
    --------
    >>> list(run_ahead(abs, [-3, 1, -2], n_threads=2))
    [3, 1, 2]
    """
    left = iter(items)
    first = list(itertools.islice(left, 2))
    if len(first) < 2:
        yield from map(function, first)
        return
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="featx-prefetch")

    def start(item: _Item) -> Future[_Result]:
        return threads.submit(function, item)

    try:
        # Only a few items, since results take memory.
        left = itertools.chain(first, left)
        pending = deque(map(start, itertools.islice(left, _PREFETCHED_PER_THREAD * n_threads)))
        while pending:
            result = pending.popleft().result()
            pending.extend(map(start, itertools.islice(left, 1)))
            yield result
    finally:
        threads.shutdown(cancel_futures=True)


def n_threads_for(n_jobs: int | None) -> int:
    """Return the number of threads that `n_jobs` stands for; None is one per core."""
    n_threads: int = joblib.cpu_count() if n_jobs is None else joblib.effective_n_jobs(n_jobs)
    return n_threads


class Prefetcher(Generic[_Result]):
    """Iterator over the results of a function, computed in threads that start immediately.

    The threads do not wait for the consumer of the results.

    Examples
    --------
    >>> started = Prefetcher(abs, [-3, 1, -2], n_threads=1)
    >>> started.wait(seconds=60)
    True
    >>> list(started)
    [3, 1, 2]
    """

    def __init__(
        self, function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_threads: int
    ) -> None:
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="featx-started")
        self._pending = deque(self._threads.submit(function, item) for item in items)

    def __iter__(self) -> Iterator[_Result]:
        return self

    def __next__(self) -> _Result:
        if not self._pending:
            raise StopIteration
        return self._pending.popleft().result()

    def wait(self, seconds: float) -> bool:
        """Wait until all items are done, for `seconds` at most; return True if they are."""
        return not wait(self._pending, timeout=seconds).not_done

    def close(self) -> None:
        """Cancel the items that are not started."""
        self._threads.shutdown(cancel_futures=True)


_lock = threading.Lock()
_limited = contextlib.ExitStack()
_n_inside = 0


@contextlib.contextmanager
def blas_threads_for(size_bytes: int) -> Iterator[None]:
    """Limit BLAS to one thread inside the context, if the matrix is smaller than 32 MiB.

    The limit applies to the process, so the first thread that enters sets it and the last one that
    leaves lifts it: if each restored the setting that it found, the limit could stay.
    """
    global _n_inside
    if size_bytes >= _SMALL_BYTES:
        yield
        return
    with _lock:
        if not _n_inside:
            _limited.enter_context(_threadpool_controller().limit(limits=1, user_api="blas"))
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if not _n_inside:
                _limited.close()


@cache
def _threadpool_controller() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, as long as a small fit.
    return ThreadpoolController()
