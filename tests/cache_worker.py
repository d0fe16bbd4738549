"""A process that works on a store for tests: write, fill, read, compact.

The row of a key follows from a number, so that every process knows what is right. The process
reports on standard output which rows are stored.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

from featx import EmbeddingCache
from featx.cache import read_rows as read_module
from featx.cache.maintenance import compact
from featx.digests.hashing import digest_of
from featx.digests.key_table import keys_from
from featx.digests.space import Space

N_FEATURES = 64
SPACE = Space(
    {"graph": "ab12", "feature_shape": [N_FEATURES], "input_shape": [4], "dtype": "float32"},
    label="worker",
)
ROWS_AT_ONCE = 50
N_SHARED = 1000


def small_blocks():
    """Let shards of a few rows hold whole blocks of rows, of four each, in a ``with`` block."""
    return mock.patch.object(read_module, "_BLOCK_BYTES", 4 * N_FEATURES * 4)


def keys_of(numbers):
    """Return the keys of numbered rows."""
    digests = (digest_of(f"row {number}".encode()) for number in numbers)
    return keys_from(digests, count=len(numbers))


def rows_of(numbers):
    """Return numbered rows, of which no two are alike."""
    steps = np.arange(N_FEATURES, dtype=np.float32)
    return (np.asarray(numbers, np.float64)[:, np.newaxis] * 3 + steps).astype(np.float32)


def rows_folder(folder):
    """Return the folder of the rows of a cache."""
    return folder / "spaces" / SPACE.digest


def open_store(folder):
    """Open the rows of a cache folder, with nothing known of them."""
    return EmbeddingCache(folder).store(SPACE)


def start_worker(*arguments, **options):
    """Start this file as a process."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def reported(lines):
    """Return the rows that a worker reported as stored; the last line may be cut off."""
    spans = [line.split() for line in lines if line.endswith("\n") and len(line.split()) == 2]
    return [number for start, stop in spans for number in range(int(start), int(stop))]


def write(store, *, first, until_s):
    """Store rows, in an order of its own, until the time is over; report which are stored."""
    rng = np.random.default_rng()
    start = first
    while time.monotonic() < until_s:
        if not first:  # rows that others store too
            start = int(rng.integers(0, N_SHARED // ROWS_AT_ONCE)) * ROWS_AT_ONCE
        numbers = np.arange(start, start + ROWS_AT_ONCE)
        store.append(keys_of(numbers), rows_of(numbers))
        print(start, start + ROWS_AT_ONCE, flush=True)
        start += ROWS_AT_ONCE


def fill(store):
    """Store more and more at once until that fails; then see that small things still work."""
    start, n_rows = 0, ROWS_AT_ONCE
    while True:
        numbers = np.arange(start, start + n_rows)
        try:
            store.append(keys_of(numbers), rows_of(numbers))
        except OSError as exc:
            print(exc, flush=True)
            return
        print(start, start + n_rows, flush=True)
        start, n_rows = start + n_rows, n_rows + ROWS_AT_ONCE


def read(store, *, until_s):
    """Look all shared rows up, again and again; fail at a wrong one; report how many were there."""
    numbers, n_found = np.arange(N_SHARED), 0
    while time.monotonic() < until_s:
        rows, found = store.find(keys_of(numbers))
        np.testing.assert_array_equal(rows[found], rows_of(numbers[found]))
        n_found += int(found.sum())
    print(n_found)


def compact_again_and_again(store, *, until_s):
    """Compact, again and again."""
    while time.monotonic() < until_s:
        compact(store)
        time.sleep(0.05)


def store_ten(folder, first):
    """Store ten rows."""
    numbers = np.arange(first, first + 10)
    open_store(folder).append(keys_of(numbers), rows_of(numbers))


def find_ten(folder, first, answers):
    """Look ten rows up, and put into a queue whether they are there and right."""
    numbers = np.arange(first, first + 10)
    rows, found = open_store(folder).find(keys_of(numbers))
    answers.put(bool(found.all() and (rows == rows_of(numbers)).all()))


def main():
    """Do one job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", choices=["write", "fill", "read", "compact"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0)
    arguments = parser.parse_args()
    folder, until_s = arguments.folder, time.monotonic() + arguments.seconds
    store = open_store(folder)
    if arguments.job == "write":
        write(store, first=arguments.first, until_s=until_s)
    elif arguments.job == "fill":
        fill(store)
    elif arguments.job == "read":
        read(store, until_s=until_s)
    else:
        compact_again_and_again(store, until_s=until_s)


if __name__ == "__main__":
    main()
