"""Batches whole or in parts: whichever a machine computes faster, found out by doing both.

TensorFlow leaves cores of a CPU idle between two layers, and what one layer hands to the next may
be larger than their caches. There parts that run side by side are up to twice as fast. On CPUs
with AMX, which want large matrices, they are a tenth slower (benchmarks/NOTES.md).
"""

from __future__ import annotations

import threading
from collections import defaultdict

import numpy as np

# Of the inputs of a part: 4 images of 224x224 pixels, 21 of 96x96.
_NUMBERS_PER_PART = 600_000
_TRIALS = 3  # of each way; the first also sets things up


class Cutting:
    """Cuts batches into parts, or leaves them whole.

    Examples
    --------
    >>> batch = np.zeros((8, 224, 224, 3), np.uint8)
    >>> cutting = Cutting()
    >>> while cutting.is_on_trial(batch):
    ...     parts = cutting.parts_of(batch)
    ...     cutting.note(parts, seconds=3.0 if len(parts) > 1 else 2.0)
    >>> len(cutting.parts_of(batch))
    1
    """

    def __init__(self) -> None:
        self._is_decided = False
        self._in_parts = True
        self._seconds: defaultdict[tuple[bool, int], list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def is_on_trial(self, inputs: np.ndarray) -> bool:
        """Tell whether it is to be timed how long this batch takes alone."""
        return not self._is_decided and _n_parts(inputs) > 1

    def parts_of(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Return a batch of shape (n, ...) in parts, or as the only one."""
        return np.array_split(inputs, _n_parts(inputs)) if self._in_parts else [inputs]

    def note(self, parts: list[np.ndarray], *, seconds: float) -> None:
        """Note how long a batch took; the two ways take turns until enough is known of one size."""
        size = sum(map(len, parts))
        with self._lock:
            if self._is_decided:
                return
            self._seconds[len(parts) > 1, size].append(seconds)
            whole, cut = self._seconds[False, size], self._seconds[True, size]
            self._is_decided = min(len(whole), len(cut)) >= _TRIALS
            if self._is_decided:
                self._in_parts = min(cut) < min(whole)
            else:
                self._in_parts = len(cut) <= len(whole)


def _n_parts(inputs: np.ndarray) -> int:
    return max(1, min(len(inputs), -(-inputs.size // _NUMBERS_PER_PART)))
