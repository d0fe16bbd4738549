"""Work in threads that run ahead of whoever takes the results, but not far."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

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
