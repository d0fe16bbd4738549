"""How many samples go through the network at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_NUMBERS_PER_BATCH = 5_000_000
_TIMES_ON_ACCELERATORS = 8
LARGEST_BATCH = 4096
_GAIN = 1.03


def batch_size_for(shape: tuple[int, ...], *, on_accelerator: bool = False) -> int:
    """Choose a batch size from the shape of one input.

    About five million numbers to a batch, which is 32 images of 224x224: on 2 CPU cores
    MobileNetV2 ran there a quarter faster than with 8, and no slower than with 64 (2026-11). A GPU
    gets up to eight times as many, but no more than 256 samples: ResNet50 ran on an H200 at 9,500
    images/s in batches of 32, 15,000 of 128, 18,600 of 256.

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
    """Finds a good batch size by trying: doubled while that pays, else halved.

    Parameters
    ----------
    start : int
        The first size that is tried.

    Attributes
    ----------
    best : int
        The best size so far.

    Examples
    --------
    >>> search = BatchSizeSearch(32)
    >>> for size in search:
    ...     search.note(size, rate={16: 90, 32: 100, 64: 120, 128: 121}[size])
    >>> search.best
    64
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
        """Note how many samples a second went through; larger batches have to earn their memory."""
        best_rate = self._rates.get(self.best, 0.0)
        self._rates[size] = rate
        if rate > best_rate * (_GAIN if size > self.best else 1 / _GAIN if size < self.best else 1):
            self.best = size


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says, in the words of any backend, that memory ran out."""
    words = ("resource_exhausted", "resource exhausted", "out of memory", "oom when", "bad_alloc")
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(word in text for word in words)
