"""How many threads linear algebra gets.

On small matrices the threads of a BLAS spend their time waiting for one another: a logistic
regression on 400 rows of 1,280 features took 7 ms with one thread and 48 ms with two (2 cores,
2026-11, quiet machine), and twenty times as long with two on a busy machine. Large factorisations
gain from them. So the size decides, and what the user set is back afterwards.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache

from threadpoolctl import ThreadpoolController

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
