"""Work in threads that run ahead of whoever takes the results.

How many threads linear algebra gets.

On small matrices the threads of a BLAS spend their time waiting for one another: a logistic
regression on 400 rows of 1,280 features took 7 ms with one thread and 48 ms with two (2 cores,
2026-11, quiet machine), and twenty times as long with two on a busy machine. Large factorisations
gain from them. So the size decides, and what the user set is back afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Generic, TypeVar

from threadpoolctl import ThreadpoolController

_AHEAD = 2  # items, for each thread

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_ahead(
    function: Callable[[_Item], _Result], items: Iterable[_Item], *, n_threads: int
) -> Iterator[_Result]:
    """Call a function with one item after another, in threads that run ahead, but not far.

    joblib has threads too, but none that wait for whoever takes the results. For a single item
    none is started.

    Parameters
    ----------
    function : callable
    items : iterable
    n_threads : int

    Yields
    ------
    object
        What the function returned, in the order of the items.

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
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="featx-ahead")

    def start(item: _Item) -> Future[_Result]:
        return threads.submit(function, item)

    try:
        # Not far ahead of whoever takes the results: these take memory.
        left = itertools.chain(first, left)
        under_way = deque(map(start, itertools.islice(left, _AHEAD * n_threads)))
        while under_way:
            result = under_way.popleft().result()
            under_way.extend(map(start, itertools.islice(left, 1)))
            yield result
    finally:
        threads.shutdown(cancel_futures=True)


class Prefetcher(Generic[_Result]):
    """What a function returns for one item after another, in threads that start at once.

    They run as far ahead of whoever takes the results as they can.

    Parameters
    ----------
    function : callable
    items : iterable
    n_threads : int

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
        self._under_way = deque(self._threads.submit(function, item) for item in items)

    def __iter__(self) -> Iterator[_Result]:
        return self

    def __next__(self) -> _Result:
        if not self._under_way:
            raise StopIteration
        return self._under_way.popleft().result()

    def wait(self, seconds: float) -> bool:
        """Wait until all is done, but not longer; tell whether it is."""
        return not wait(self._under_way, timeout=seconds).not_done

    def close(self) -> None:
        """Leave what is not begun."""
        self._threads.shutdown(cancel_futures=True)


_SMALL_BYTES = 32 * 2**20

_lock = threading.Lock()
_limited = contextlib.ExitStack()
_n_inside = 0


@contextlib.contextmanager
def blas_threads_for(size_bytes: int) -> Iterator[None]:
    """Give BLAS one thread while a small matrix is worked on.

    The limit is one of the whole process, so it is set when the first thread enters and taken
    back when the last one leaves: were each to restore what it found, the limit could stay.

    Parameters
    ----------
    size_bytes : int
        Size of the matrix; from 32 MiB on nothing is limited.

    Examples
    --------
    >>> with blas_threads_for(4 * 400 * 1280):
    ...     pass
    """
    if size_bytes >= _SMALL_BYTES:
        yield
        return
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _n_inside
    with _lock:
        if not _n_inside:
            _limited.enter_context(_controller().limit(limits=1, user_api="blas"))
        _n_inside += 1


def _leave() -> None:
    global _n_inside
    with _lock:
        _n_inside -= 1
        if not _n_inside:
            _limited.close()


@cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes milliseconds, as long as a small fit.
    return ThreadpoolController()
