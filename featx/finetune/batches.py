"""Batches for Keras: rows in an order that follows from seed and epoch, targets, weights, mixing.

Threads read batches ahead of the step that is under way; Keras' own, where there are several, may
hand out the second batch first (3.15 on JAX). What a batch holds depends on its number and epoch
only, so a run that is resumed sees what it would have seen.
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

_AHEAD = 4  # batches that are read while one is trained on


class Batches(keras.utils.PyDataset):
    """Batches of some samples.

    Parameters
    ----------
    read : Reader
    rows : ndarray of shape (m,), int64
    targets : ndarray of shape (n_samples, n_scores), float32
    weights : ndarray of shape (n_samples,), float32
    batch_size : int
    seed : int
        Of order and mixing.
    mixing : callable, default=None
        From (rng, inputs, targets, weights) to the last three, mixed.
    n_versions : int, default=0
        Of each sample that are kept, of which epochs take one after the other.
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
        n_versions: int = 0,
    ) -> None:
        super().__init__()
        self._read, self._rows, self._targets, self._weights = read, rows, targets, weights
        self._batch_size, self._seed, self._mixing = batch_size, seed, mixing
        self._n_versions = n_versions
        self._threads = ThreadPoolExecutor(read.n_threads, thread_name_prefix="featx-batches")
        self._under_way: dict[int, Future[tuple[Any, ...]]] = {}
        self._lock = threading.Lock()  # Keras reads in a thread of its own, also when all is over
        self._is_closed = False
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        """Put the samples in the order of an epoch.

        Whoever counts the epochs calls it: what Keras calls between them, ``on_epoch_end``, it also
        calls before the first.
        """
        with self._lock:
            self._drop_what_is_under_way()
            self.epoch = epoch
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._rows)

    def _version(self) -> int:
        return 1 + self.epoch % self._n_versions if self._n_versions else 0

    def __len__(self) -> int:
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        with self._lock:
            if self._is_closed:
                return self._read_batch(number)
            for each in range(number, min(number + 1 + _AHEAD, len(self))):
                if each not in self._under_way:
                    self._under_way[each] = self._threads.submit(self._read_batch, each)
            batch = self._under_way.pop(number)
        return batch.result()

    def close(self) -> None:
        """Stop reading ahead."""
        with self._lock:
            self._is_closed = True
            self._drop_what_is_under_way()
            self._threads.shutdown()

    def _drop_what_is_under_way(self) -> None:
        for batch in self._under_way.values():
            batch.cancel()
        wait(self._under_way.values())  # which is of the order that was
        self._under_way.clear()

    def _read_batch(self, number: int) -> tuple[Any, ...]:
        start = number * self._batch_size
        rows = self._order[start : start + self._batch_size]
        inputs = self._read(rows, self._version())
        targets, weights = self._targets[rows], self._weights[rows]
        if self._mixing:
            rng = np.random.default_rng((self._seed, self.epoch, number))
            inputs, targets, weights = self._mixing(rng, inputs, targets, weights)
        return as_keras_inputs(inputs), targets, weights


def mixup(alpha: float) -> Callable[..., Any]:
    """Mix each sample with another one of its batch (Zhang et al. 2018, arXiv 1710.09412)."""

    def mix(
        rng: np.random.Generator, inputs: list[np.ndarray], *labels: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        share = np.float32(rng.beta(alpha, alpha))
        order = rng.permutation(len(inputs[0]))
        mixed = [share * x + (1 - share) * x[order] for x in inputs]
        return mixed, *_mixed_labels(*labels, order=order, share=share)

    return mix


def cutmix(alpha: float) -> Callable[..., Any]:
    """Paste a rectangle of another image of the batch (Yun et al. 2019, arXiv 1905.04899)."""

    def mix(
        rng: np.random.Generator, inputs: list[np.ndarray], *labels: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        (images,) = inputs
        height, width = images.shape[1:3]
        side = np.sqrt(1 - rng.beta(alpha, alpha))
        top, left = rng.integers(height), rng.integers(width)
        half_height, half_width = round(height * side / 2), round(width * side / 2)
        rows = slice(max(0, top - half_height), top + half_height)
        columns = slice(max(0, left - half_width), left + half_width)
        order = rng.permutation(len(images))
        mixed = images.copy()
        mixed[:, rows, columns] = images[order][:, rows, columns]
        n_pasted = mixed[0, rows, columns, 0].size
        share = np.float32(1 - n_pasted / (height * width))
        return [mixed], *_mixed_labels(*labels, order=order, share=share)

    return mix


def _mixed_labels(
    targets: np.ndarray, weights: np.ndarray, *, order: np.ndarray, share: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Mix targets by shares and weights of both samples, so that one of weight 0 teaches none."""
    own, other = share * weights, (1 - share) * weights[order]
    total = own + other
    part = np.divide(own, total, out=np.ones_like(total), where=total > 0)[:, np.newaxis]
    return part * targets + (1 - part) * targets[order], total
