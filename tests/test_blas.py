"""One BLAS thread for small matrices, and the user's number back afterwards."""

import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from featx._threads import blas_threads_for

SMALL, LARGE = 1000, 10**9


def n_threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


@pytest.fixture(autouse=True)
def two_threads():
    with threadpool_limits(2, user_api="blas"):
        yield


def test_blas_threads_small_matrix_gets_one():
    with blas_threads_for(SMALL):
        assert n_threads() == {1}
    assert n_threads() == {2}


def test_blas_threads_large_matrix_keeps_the_setting():
    with blas_threads_for(LARGE):
        assert n_threads() == {2}


def test_blas_threads_nested_error_restores_setting():
    def fail():
        with blas_threads_for(SMALL):
            with blas_threads_for(SMALL):
                pass
            assert n_threads() == {1}
            raise RuntimeError("head")

    with pytest.raises(RuntimeError, match="head"):
        fail()
    assert n_threads() == {2}


def test_blas_threads_overlapping_leave_no_limit():
    """The first to enter leaves before the second does."""
    first_in, second_in, first_out = (threading.Event() for _ in range(3))

    def first():
        with blas_threads_for(SMALL):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second():
        first_in.wait(10)
        with blas_threads_for(SMALL):
            second_in.set()
            first_out.wait(10)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert n_threads() == {2}
