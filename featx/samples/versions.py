"""Versions of images: changed in ways that follow from image and number, each a sample of its own.

A version is identified by image, augmentation and number, so that it goes through the network once.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from featx.exceptions import SampleFault
from featx.identity.key_table import keys_from, matrix_from_keys
from featx.samples.base import Samples
from featx.samples.file_index import FileIndex


class Augmentation(Protocol):
    """What changes single images: see ``featx/networks/augmentation.py``."""

    def key(self, key: bytes, version: int) -> bytes:
        """Return the key of a version of the image with a key."""

    def __call__(self, image: np.ndarray, version: int) -> np.ndarray:
        """Return a version of an image, float32."""


class AugmentedSamples(Samples):
    """A version of each of some images.

    Parameters
    ----------
    samples : Samples
    rows : ndarray of shape (n,), int64
        Of the images.
    keys : ndarray of shape (n,), dtype S16
        Of the images.
    augmentation : Augmentation
    version : int
    """

    array_shape = None

    def __init__(
        self,
        samples: Samples,
        rows: np.ndarray,
        keys: np.ndarray,
        augmentation: Augmentation,
        version: int,
    ) -> None:
        self._samples, self._rows = samples, rows
        self._augmentation, self._version = augmentation, version
        versions = (augmentation.key(key.tobytes(), version) for key in matrix_from_keys(keys))
        self._keys = keys_from(versions, count=len(keys))

    def __len__(self) -> int:
        return len(self._rows)

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself."""
        return self

    def name(self, row: int) -> str:
        """Say which image it is a version of."""
        return f"a version of {self._samples.name(int(self._rows[row]))}"

    def take(self, rows: np.ndarray) -> Any:
        """Return the images themselves."""
        return self._samples.take(self._rows[rows])

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all versions."""
        return self._keys, []

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load images and change them."""
        good, images, found = self._samples.batch(self._rows[rows], shape)
        read = rows[np.isin(self._rows[rows], good)]
        places = dict(zip(self._rows[rows].tolist(), rows.tolist(), strict=True))
        faults = [self.fault(places[fault.position], fault.reason) for fault in found]
        changed = np.empty(images.shape, np.float32)
        for place, image in enumerate(images):
            changed[place] = self._augmentation(image.astype(np.float32), self._version)
        return read, changed, faults
