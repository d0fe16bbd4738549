"""FrontierEntry: a fine-tuned backbone starts from the activations that fine-tuning stored.

Fine-tuning does not change the layers below the frontier, so a sample whose activations are stored
goes through the layers above it only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.digests.space import Space
from featx.extraction.batched import as_keras_inputs, predict_in_batches

_ROWS_AT_ONCE = 256
_BATCH_SIZE = 32


class StoredFrontier(NamedTuple):
    """A point in a backbone where stored activations can enter it."""

    spaces: tuple[Space, ...]  # of the activations, tensor by tensor, float32
    position: int  # of the cut in the backbone's graph


class FrontierEntry:
    """Embeddings of one source, computed from the activations that a cache holds."""

    def __init__(
        self, frontier: StoredFrontier, source: EmbeddingSource, cache: EmbeddingCache
    ) -> None:
        self._position, self._source = frontier.position, source
        self._stores = [cache.store(space) for space in frontier.spaces]

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """Return True for each sample whose activations are all stored, (n_samples,) bool."""
        return np.all([store.holds(keys) for store in self._stores], axis=0)

    def embed(self, keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Run the layers above the frontier for samples whose activations are stored.

        Yield positions in `keys`, without those of rows that turn out to be damaged, and their
        embeddings (n, n_features), float32.
        """
        import keras

        from featx.backbones.blocks import cuts_of

        backbone = self._source.load_backbone()
        tensors = list(cuts_of(backbone.model)[self._position].tensors)
        with backbone.settings.applied():
            outputs = backbone.pooled(backbone.model.outputs[0])
            above = keras.Model(as_keras_inputs(tensors), outputs)
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            some = keys[start : start + _ROWS_AT_ONCE]
            stored = [store.find(some) for store in self._stores]
            found = np.flatnonzero(np.all([found for _, found in stored], axis=0))
            if not len(found):
                continue
            inputs = [
                rows[found].reshape(len(found), *store.space.feature_shape)
                for (rows, _), store in zip(stored, self._stores, strict=True)
            ]
            read, places = partial(_activation_rows, inputs), np.arange(len(found))
            with backbone.settings.applied():
                embeddings = predict_in_batches(above, read, places, batch_size=_BATCH_SIZE)
            yield start + found, embeddings.reshape(len(found), -1)


def _activation_rows(tensors: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    return [tensor[rows] for tensor in tensors]
