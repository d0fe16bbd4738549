"""Versions of images: changed in ways that follow from image and number, each a sample of its own.

A version is identified by image, augmentation and number, so that it goes through the network once.
All versions of an image follow one another, so that it is read once for those in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from featx.digests.key_table import keys_from, matrix_from_keys
from featx.exceptions import SampleFault
from featx.inputs.file_index import FileIndex
from featx.inputs.samples import Samples

_VERSIONS_AT_ONCE = 32_768  # in one pass, whose embeddings are in memory


class Augmenter(Protocol):
    """What changes single images: see ``featx/backbones/augment.py``."""

    def key(self, key: bytes, version: int) -> bytes:
        """Return the key of a version of the image with a key."""

    def __call__(self, image: np.ndarray, version: int) -> np.ndarray:
        """Return a version of an image, float32."""


class AugmentedSamples(Samples):
    """Versions 1 to n of some images, image by image.

    Parameters
    ----------
    samples : Samples
    rows : ndarray of shape (n_images,), int64, increasing
        Of the images.
    keys : ndarray of shape (n_images,), dtype S16
        Of the images.
    augmentation : Augmenter
    n_versions : int
    """

    array_shape = None

    def __init__(
        self,
        samples: Samples,
        rows: np.ndarray,
        keys: np.ndarray,
        augmentation: Augmenter,
        n_versions: int,
    ) -> None:
        self._samples, self._rows = samples, rows
        self._augmentation, self._n_versions = augmentation, n_versions
        versions = (
            augmentation.key(key.tobytes(), number)
            for key in matrix_from_keys(keys)
            for number in range(1, n_versions + 1)
        )
        self._keys = keys_from(versions, count=len(self))

    def __len__(self) -> int:
        return len(self._rows) * self._n_versions

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself."""
        return self

    def name(self, row: int) -> str:
        """Say which image it is a version of."""
        return f"a version of {self._samples.name(int(self._rows[row // self._n_versions]))}"

    def take(self, rows: np.ndarray) -> Any:
        """Return the images themselves."""
        return self._samples.take(self._rows[rows // self._n_versions])

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Identify all versions."""
        return self._keys, []

    def batch(
        self, rows: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load images, each once, and change them."""
        of_images, numbers = np.divmod(rows, self._n_versions)
        wanted, places = np.unique(self._rows[of_images], return_inverse=True)
        good, images, found = self._samples.batch(wanted, shape)
        reasons = {fault.position: fault.reason for fault in found}
        faults = [
            self.fault(row, reasons[wanted[place]])
            for row, place in zip(rows, places, strict=True)
            if wanted[place] in reasons
        ]
        is_read = np.isin(wanted[places], good)
        changed = np.empty((is_read.sum(), *images.shape[1:]), np.float32)
        origins = np.searchsorted(good, wanted[places[is_read]])
        images = images.astype(np.float32)
        for place, (origin, number) in enumerate(zip(origins, numbers[is_read], strict=True)):
            changed[place] = self._augmentation(images[origin], int(number) + 1)
        return rows[is_read], changed, faults


def versions_of(
    samples: Samples,
    rows: np.ndarray,
    keys: np.ndarray,
    augmentation: Augmenter,
    n_versions: int,
) -> Iterator[tuple[np.ndarray, AugmentedSamples]]:
    """Yield some of the rows at a time, and the versions 1 to `n_versions` of their images.

    Parameters
    ----------
    samples, rows, keys, augmentation, n_versions
        As for :class:`AugmentedSamples`.

    Yields
    ------
    rows : ndarray of shape (m,), int64
    versions : AugmentedSamples
        The m * n_versions versions of those.
    """
    n_rows = max(1, _VERSIONS_AT_ONCE // n_versions)
    for start in range(0, len(rows), n_rows):
        some = slice(start, start + n_rows)
        yield (
            rows[some],
            AugmentedSamples(samples, rows[some], keys[some], augmentation, n_versions),
        )
