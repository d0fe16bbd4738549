"""Batches: samples for Keras in an order that seed and epoch determine; ``mixup``.

Threads prefetch batches while a step runs. Keras runs only one thread of its own, since several of
them may return the second batch first (3.15 on JAX). The content of a batch depends only on its
number and epoch, so that a resumed run sees the same batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import keras
import numpy as np

from featx.extraction.batched import as_keras_inputs
from featx.finetune.readers import Reader

_N_PREFETCHED = 4


class Batches(keras.utils.PyDataset):
    """Batches of some samples, `rows`: inputs, targets and weights.

    Targets (n_samples, n_scores) and weights (n_samples,) are those of all samples. `seed`
    determines order and mixing. `mixing` gets (rng, inputs, targets, weights) and returns the mixed
    ones. Of `n_augmented` augmented views, each epoch takes the next.
    """

    def __init__(
        self,
        read: Reader,
        rows: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        mixing: Callable[..., Any] | None = None,
        n_augmented: int = 0,
    ) -> None:
        super().__init__()
        self._read, self._rows, self._targets, self._weights = read, rows, targets, weights
        self._batch_size, self._seed, self._mixing = batch_size, seed, mixing
        self._n_augmented = n_augmented
        self._threads = ThreadPoolExecutor(read.n_threads, thread_name_prefix="featx-batches")
        self._pending: dict[int, Future[tuple[Any, ...]]] = {}
        self._lock = threading.Lock()  # Keras reads in a thread of its own, even after the end
        self._is_closed = False
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Put the samples in the order of an epoch.

        The caller counts epochs: Keras calls ``on_epoch_end`` before the first epoch too.
        """
        with self._lock:
            self._drop_pending()
            self._epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._rows)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        with self._lock:
            if self._is_closed:
                return self._read_batch(number)
            for each in range(number, min(number + 1 + _N_PREFETCHED, len(self))):
                if each not in self._pending:
                    self._pending[each] = self._threads.submit(self._read_batch, each)
            batch = self._pending.pop(number)
        return batch.result()

    def close(self) -> None:
        """Stop prefetching."""
        with self._lock:
            self._is_closed = True
            self._drop_pending()
            self._threads.shutdown()

    def _drop_pending(self) -> None:
        for batch in self._pending.values():
            batch.cancel()
        wait(self._pending.values())
        self._pending.clear()

    def _read_batch(self, number: int) -> tuple[Any, ...]:
        start = number * self._batch_size
        rows = self._order[start : start + self._batch_size]
        view = 1 + self._epoch % self._n_augmented if self._n_augmented else 0
        inputs = self._read(rows, view)
        targets, weights = self._targets[rows], self._weights[rows]
        if self._mixing:
            rng = np.random.default_rng((self._seed, self._epoch, number))
            inputs, targets, weights = self._mixing(rng, inputs, targets, weights)
        return as_keras_inputs(inputs), targets, weights


def mixup(alpha: float) -> Callable[..., Any]:
    """Make a function that mixes each sample of a batch with another one.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018 (arXiv 1710.09412).
    """

    def mix(
        rng: np.random.Generator, inputs: list[np.ndarray], targets: np.ndarray, weights: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        fraction = np.float32(rng.beta(alpha, alpha))
        order = rng.permutation(len(weights))
        mixed = [fraction * x + (1 - fraction) * x[order] for x in inputs]
        # Targets are mixed by fractions and weights, so that a sample of weight 0 has no effect.
        own, other = fraction * weights, (1 - fraction) * weights[order]
        total = own + other
        part = np.divide(own, total, out=np.ones_like(total), where=total > 0)[:, np.newaxis]
        return mixed, part * targets + (1 - part) * targets[order], total

    return mix
