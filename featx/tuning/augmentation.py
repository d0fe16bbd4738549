"""Images changed at random while they are trained on: anew in each epoch, or k versions for good.

With kept versions augmentation and the frontier go together: each version of an image is a sample
of its own, identified by image, augmentation and number, so that its activations are computed once.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from featx.exceptions import SampleFault
from featx.identity._hashing import digest_of
from featx.identity.digests import graph_digest
from featx.identity.key_table import keys_from, matrix_from_keys
from featx.samples.base import Samples
from featx.samples.file_index import FileIndex
from featx.tuning.checkpoints import generators
from featx.tuning.modes import InMode

_SHIFT, _ZOOM, _TURN, _CONTRAST = 0.1, 0.1, 0.03, 0.2  # shares of size, size, turn, contrast


def augmentation_layers(augment: Any) -> Sequence[keras.Layer]:
    """Return the layers that change pixels at random while training.

    Parameters
    ----------
    augment : None, "standard", keras.Layer or sequence of them
    """
    if augment is None:
        return ()
    if augment == "standard":
        return (
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(_SHIFT, _SHIFT),
            layers.RandomZoom(_ZOOM),
            layers.RandomRotation(_TURN),
            layers.RandomContrast(_CONTRAST),
        )
    given = augment if isinstance(augment, Sequence) else [augment]
    # Copies, since their generators change while they are used.
    return tuple(type(layer).from_config(layer.get_config()) for layer in given)


class Augmentation:
    """Changes single images, each in a way that follows from its key.

    Parameters
    ----------
    augment : "standard", keras.Layer or sequence of them
    input_shape : tuple of int
        Of one image.

    Attributes
    ----------
    digest : bytes
        Of all that decides what becomes of an image with a key. The generators of Keras' backends
        differ, so the backend is part of it.
    """

    def __init__(self, augment: Any, input_shape: tuple[int, ...]) -> None:
        inputs = keras.Input(input_shape, dtype="float32")
        changed = inputs
        for layer in augmentation_layers(augment):
            changed = layer(changed)
        model = keras.Model(inputs, changed)
        self._model = keras.Model(inputs, InMode(model, training=True)(inputs))
        self._lock = threading.Lock()
        backend = keras.backend.backend().encode()
        self.digest = digest_of(graph_digest(model).encode(), backend)

    def key(self, key: bytes, version: int) -> bytes:
        """Return the key of a version of the image with a key."""
        return digest_of(key, self.digest, str(version).encode())

    def __call__(self, image: np.ndarray, key: bytes) -> np.ndarray:
        """Change an image, float32, in the way of a version's key."""
        seed = int.from_bytes(key[:4], "little") % 2**31
        with self._lock:
            for number, state in enumerate(generators(self._model)):
                state.assign(np.array([seed, number], state.dtype))
            return self._model.predict_on_batch(image[np.newaxis])[0]


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
        self._samples, self._rows, self._augmentation = samples, rows, augmentation
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
        good, images, faults = self._samples.batch(self._rows[rows], shape)
        read = rows[np.isin(self._rows[rows], good)]
        changed = np.empty(images.shape, np.float32)
        keys = matrix_from_keys(self._keys[read])
        for place, (image, key) in enumerate(zip(images, keys, strict=True)):
            changed[place] = self._augmentation(image.astype(np.float32), key.tobytes())
        return read, changed, faults
