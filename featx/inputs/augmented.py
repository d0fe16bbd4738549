"""AugmentedSamples: augmented views of images, each of which is a sample.

Image, augmentation and number determine an augmented view, and its key is a digest of the three, so
that each view goes through the network once. The views of an image are neighbors, so that a batch
reads the image once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from featx.digests.key_table import keys_from, matrix_from_keys
from featx.exceptions import SampleFault
from featx.inputs.file_index import FileIndex
from featx.inputs.kinds import InputForm
from featx.inputs.samples import Samples

_VIEWS_AT_ONCE = 32_768  # in one pass, since their embeddings stay in memory


class Augmenter(Protocol):
    """A function that augments single images: see ``featx/backbones/augment.py``."""

    def key(self, key: bytes, number: int) -> bytes:
        """Return the key of an augmented view of the image with this key."""

    def __call__(self, image: np.ndarray, number: int) -> np.ndarray:
        """Return an augmented view of an image, float32."""


class AugmentedSamples(Samples):
    """Augmented views 1 to n of some images, image by image.

    `rows`, increasing, are those of the images in `samples`, and `keys` are their keys.
    """

    array_shape = None

    def __init__(
        self,
        samples: Samples,
        rows: np.ndarray,
        keys: np.ndarray,
        augmentation: Augmenter,
        n_augmented: int,
    ) -> None:
        self._samples, self._rows = samples, rows
        self._augmentation, self._n_augmented = augmentation, n_augmented
        view_keys = (
            augmentation.key(key.tobytes(), number)
            for key in matrix_from_keys(keys)
            for number in range(1, n_augmented + 1)
        )
        self._keys = keys_from(view_keys, count=len(self))

    def __len__(self) -> int:
        return len(self._rows) * self._n_augmented

    def for_inputs(self, shape: tuple[int, ...]) -> Samples:
        """Return itself."""
        return self

    def name(self, row: int) -> str:
        """Return the name of the image that was augmented."""
        image = int(self._rows[row // self._n_augmented])
        return f"an augmented view of {self._samples.name(image)}"

    def take(self, rows: np.ndarray) -> Any:
        """Return the images themselves."""
        return self._samples.take(self._rows[rows // self._n_augmented])

    def content(self, row: int) -> np.ndarray | bytes:
        """Return the content of the image that is augmented."""
        return self._samples.content(int(self._rows[row // self._n_augmented]))

    def keys(self, files: FileIndex) -> tuple[np.ndarray, list[SampleFault]]:
        """Return the keys of all augmented views."""
        return self._keys, []

    def batch(
        self, rows: np.ndarray, form: InputForm
    ) -> tuple[np.ndarray, np.ndarray, list[SampleFault]]:
        """Load each image once, and augment it."""
        of_images, numbers = np.divmod(rows, self._n_augmented)
        wanted, places = np.unique(self._rows[of_images], return_inverse=True)
        good, images, found = self._samples.batch(wanted, form)
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


def augmented_views(
    samples: Samples,
    rows: np.ndarray,
    keys: np.ndarray,
    augmentation: Augmenter,
    n_augmented: int,
) -> Iterator[tuple[np.ndarray, AugmentedSamples]]:
    """Yield some of the rows at a time, and the :class:`AugmentedSamples` of their images."""
    n_rows = max(1, _VIEWS_AT_ONCE // n_augmented)
    for start in range(0, len(rows), n_rows):
        some, its_keys = rows[start : start + n_rows], keys[start : start + n_rows]
        yield some, AugmentedSamples(samples, some, its_keys, augmentation, n_augmented)
