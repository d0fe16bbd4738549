"""ActivationReader, PixelReader: inputs of the trained model, from the cache or from samples.

A reader returns the inputs for one view of samples: 0 is the sample itself, 1 and above are
augmented views.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import joblib
import numpy as np

from featx.cache.store import SpaceStore
from featx.exceptions import BadSampleError, MissingRowsError
from featx.inputs.kinds import InputForm
from featx.inputs.samples import Samples


class Reader(Protocol):
    """Function that returns the inputs of samples, (len(rows), ...), tensor by tensor."""

    n_threads: int  # number in which reading is worthwhile

    def __call__(self, rows: np.ndarray, view: int = 0) -> list[np.ndarray]:
        """Return the inputs of samples."""


class ActivationReader:
    """Reads activations of samples from the cache, which checks each row.

    There is a store and a shape for each tensor; keys have the shape (1 + n_augmented, n_samples).
    """

    n_threads = 1

    def __init__(
        self, stores: Sequence[SpaceStore], shapes: Sequence[tuple[int, ...]], keys: np.ndarray
    ) -> None:
        self._stores, self._shapes, self._keys = stores, shapes, keys

    def __call__(self, rows: np.ndarray, view: int = 0) -> list[np.ndarray]:
        """Return the activations of samples, (len(rows), *shape) float32, tensor by tensor.

        Raises
        ------
        MissingRowsError
            Activations were removed or damaged after they had been stored.
        """
        keys = self._keys[view, rows]
        activations = []
        for store, shape in zip(self._stores, self._shapes, strict=True):
            flat, found = store.find(keys)
            if not found.all():
                raise MissingRowsError(
                    f"{int((~found).sum())} of {len(keys)} activations of {store.space.label} are "
                    "no longer stored: fit again"
                )
            activations.append(flat.reshape(len(rows), *shape))
        return activations


class PixelReader:
    """Reads samples, at `rows` of `samples`, as the backbone takes them; `view` is ignored."""

    n_threads = joblib.cpu_count()

    def __init__(self, samples: Samples, rows: np.ndarray, form: InputForm) -> None:
        self._samples, self._rows, self._form = samples, rows, form

    def __call__(self, rows: np.ndarray, view: int = 0) -> list[np.ndarray]:
        """Return the inputs of samples, (len(rows), *form.shape) float32, in a list of one.

        Raises
        ------
        BadSampleError
            Some samples can no longer be read, or have changed.
        """
        wanted = self._rows[rows]
        order = np.argsort(wanted, kind="stable")
        _, ordered, faults = self._samples.batch(wanted[order], self._form)
        if faults:
            raise BadSampleError(faults, len(self._samples))
        inputs = np.empty((len(rows), *self._form.shape), np.float32)
        inputs[order] = ordered
        return [inputs]
