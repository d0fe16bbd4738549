"""What the model that is trained is given, in whatever order: activations in the cache, or pixels.

A reader is asked for samples and a version: 0 is the samples themselves, the others are augmented.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import joblib
import numpy as np

from featx.cache.store import SpaceStore
from featx.exceptions import BadSampleError, MissingRowsError
from featx.inputs.samples import Samples


class Reader(Protocol):
    """Reads the inputs of samples.

    Attributes
    ----------
    n_threads : int
        In which it is worth reading.
    """

    n_threads: int

    def __call__(self, rows: np.ndarray, version: int = 0) -> list[np.ndarray]:
        """Return the inputs of samples, (len(rows), ...), tensor by tensor."""


class ActivationReader:
    """Reads activations of some samples; each row was checked.

    Parameters
    ----------
    stores : sequence of SpaceStore
        One for each tensor.
    shapes : sequence of tuple of int
    keys : ndarray of shape (1 + n_versions, n_samples), dtype S16
    """

    n_threads = 1

    def __init__(
        self, stores: Sequence[SpaceStore], shapes: Sequence[tuple[int, ...]], keys: np.ndarray
    ) -> None:
        self._stores = stores
        self._shapes = shapes
        self._keys = keys

    def __call__(self, rows: np.ndarray, version: int = 0) -> list[np.ndarray]:
        """Return the activations of samples, (len(rows), *shape) float32, tensor by tensor.

        Raises
        ------
        MissingRowsError
            Some were removed, or damaged, since they were stored.
        """
        keys = self._keys[version, rows]
        read = []
        for store, shape in zip(self._stores, self._shapes, strict=True):
            flat, found = store.find(keys)
            if not found.all():
                raise MissingRowsError(
                    f"{int((~found).sum())} of {len(keys)} activations of {store.space.label} are "
                    "no longer stored: fit again"
                )
            read.append(flat.reshape(len(rows), *shape))
        return read


class PixelReader:
    """Reads samples as the backbone takes them, which have no kept versions.

    Parameters
    ----------
    samples : Samples
    rows : ndarray of int64
        Of the samples that may be asked for.
    shape : tuple of int
        Of one input.
    """

    n_threads = joblib.cpu_count()

    def __init__(self, samples: Samples, rows: np.ndarray, shape: tuple[int, ...]) -> None:
        self._samples, self._rows, self._shape = samples, rows, shape

    def __call__(self, rows: np.ndarray, version: int = 0) -> list[np.ndarray]:
        """Return inputs of samples, (len(rows), *shape) float32, alone in a list.

        Raises
        ------
        BadSampleError
            Some can no longer be read, or have changed.
        """
        wanted = self._rows[rows]
        order = np.argsort(wanted, kind="stable")
        _, inputs, faults = self._samples.batch(wanted[order], self._shape)
        if faults:
            raise BadSampleError(faults, len(self._samples))
        read = np.empty((len(rows), *self._shape), np.float32)
        read[order] = inputs
        return [read]
