"""Embeddings of a fine-tuned backbone, from the activations that fine-tuning left in the cache.

What lies below the frontier is that of the backbone before it was tuned, so that a sample whose
activations are stored needs to go through the layers above only.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from featx.backbones.backbone import Backbone
from featx.cache.cache import EmbeddingCache
from featx.digests.space import Space
from featx.extraction.batched import as_keras_inputs, predict_in_batches

_ROWS_AT_ONCE = 256
_BATCH_SIZE = 32


class StoredFrontier(NamedTuple):
    """Where a backbone can be entered.

    Attributes
    ----------
    spaces : tuple of Space
        Of the activations, tensor by tensor, float32.
    position : int
        Of the cut in the backbone's graph.
    """

    spaces: tuple[Space, ...]
    position: int

    def holds(self, cache: EmbeddingCache, keys: np.ndarray) -> np.ndarray:
        """Tell of which samples all activations are stored, (n_samples,) bool."""
        return np.all([cache.store(space).holds(keys) for space in self.spaces], axis=0)

    def embed(
        self, backbone: Backbone, cache: EmbeddingCache, keys: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Run what lies above the frontier for samples whose activations are stored.

        Yields
        ------
        places : ndarray of int64
            In `keys`; those of rows that turn out to be damaged are left out.
        embeddings : ndarray of shape (len(places), n_features), float32
        """
        import keras

        from featx.backbones.blocks import cuts_of

        tensors = list(cuts_of(backbone.model)[self.position].tensors)
        with backbone.settings.applied():
            outputs = backbone.pooled(backbone.model.outputs[0])
            above = keras.Model(as_keras_inputs(tensors), outputs)
        for start in range(0, len(keys), _ROWS_AT_ONCE):
            some = keys[start : start + _ROWS_AT_ONCE]
            answers = [cache.store(space).find(some) for space in self.spaces]
            found = np.flatnonzero(np.all([found for _, found in answers], axis=0))
            if not len(found):
                continue
            inputs = [
                rows[found].reshape(len(found), *space.feature_shape)
                for (rows, _), space in zip(answers, self.spaces, strict=True)
            ]
            read, places = partial(_rows_of, inputs), np.arange(len(found))
            with backbone.settings.applied():
                embeddings = predict_in_batches(above, read, places, batch_size=_BATCH_SIZE)
            yield start + found, embeddings.reshape(len(found), -1)


def _rows_of(tensors: list[np.ndarray], rows: np.ndarray) -> list[np.ndarray]:
    return [tensor[rows] for tensor in tensors]
