"""The activations at the frontier: computed in the same pass as the embeddings, kept in the cache.

Each tensor that is live at the frontier is a space of its own, so that several depths, and models
that share their lower blocks, share rows. Batches are read from disk when they are needed; all of
them are never in memory.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx.identity.digests import Digester
from featx.networks.backbones import Backbone
from featx.networks.blocks import Cut
from featx.networks.copying import FlatCopy
from featx.networks.resolution import Resolved
from featx.storage.cache import EmbeddingCache
from featx.tuning.readers import ActivationReader

_SHARE_OF_DISK = 0.9


@dataclass(frozen=True, eq=False)
class Frontier:
    """The spaces of what goes into the first unfrozen layers.

    Attributes
    ----------
    embedding : Resolved
        The embeddings themselves, computed in the same pass.
    activations : tuple of Resolved
        One for each tensor.
    """

    embedding: Resolved
    activations: tuple[Resolved, ...]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of one sample's activations, tensor by tensor."""
        return [tap.space.feature_shape for tap in self.activations]

    @property
    def row_bytes(self) -> int:
        """Bytes that one sample takes on disk."""
        spaces = [tap.space for tap in self.activations]
        return sum(space.n_features * space.dtype.itemsize for space in spaces)

    def why_not_stored(self, cache: EmbeddingCache, n_rows: int, max_bytes: int) -> str | None:
        """Say why the activations of so many samples cannot be kept; None if they can."""
        if not all(tap.is_cacheable for tap in (self.embedding, *self.activations)):
            return "the backbone cannot be identified, so nothing of it is cached"
        size_bytes = n_rows * self.row_bytes
        size = f"{size_bytes / 1e9:.2f} GB of activations"
        if size_bytes > max_bytes:
            return f"{size} are more than max_cache_bytes={max_bytes}"
        free_bytes = shutil.disk_usage(_nearest_folder(cache.path)).free
        if size_bytes > _SHARE_OF_DISK * free_bytes:
            n_stored = min(len(cache.store(tap.space).keys()) for tap in self.activations)
            if (n_rows - n_stored) * self.row_bytes > _SHARE_OF_DISK * free_bytes:
                return f"{size} do not fit on the disk, where {free_bytes / 1e9:.2f} GB are free"
        return None

    def are_stored(self, cache: EmbeddingCache, keys: np.ndarray) -> bool:
        """Tell whether the activations of samples, keys of shape (n,), are all in the cache."""
        return all(cache.store(tap.space).holds(keys).all() for tap in self.activations)

    def reader(self, cache: EmbeddingCache, keys: np.ndarray) -> ActivationReader:
        """Make a reader of the stored activations of samples."""
        stores = [cache.store(tap.space) for tap in self.activations]
        return ActivationReader(stores, self.shapes, keys)


def find_frontier(
    cut: Cut, backbone: Backbone, copy: FlatCopy, embedding: Resolved, *, dtype: str
) -> Frontier:
    """Name the spaces of a cut.

    Parameters
    ----------
    cut : Cut
        Of the copy.
    backbone : Backbone
    copy : FlatCopy
        Of its tap.
    embedding : Resolved
        The space of its embeddings.
    dtype : {"float32", "float16"}
        In which activations are stored.
    """
    originals = [copy.originals.get(id(tensor)) for tensor in cut.tensors]
    if all(original is not None for original in originals):
        tensors: list[Any] = originals
    else:
        # The cut is inside a nested model, where only the copy, being flat, can be cut.
        tensors = list(cut.tensors)
        spec = replace(backbone.spec, layer=copy.model.outputs[0])
        backbone = replace(backbone, model=copy.model, spec=spec, agreed=set())
        whole = backbone
        embedding = replace(embedding, build=lambda: whole)
    taps = [
        replace(backbone, spec=replace(backbone.spec, layer=tensor, pooling=None), agreed=set())
        for tensor in tensors
    ]
    digester = Digester()
    resolved = (_resolved(tap, embedding, dtype, digester) for tap in taps)
    return Frontier(embedding, tuple(resolved))


def _resolved(tap: Backbone, embedding: Resolved, dtype: str, digester: Digester) -> Resolved:
    if not embedding.is_cacheable:
        return embedding
    return Resolved(tap.space(digester).stored_as(dtype), lambda: tap)


def _nearest_folder(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.is_dir())
