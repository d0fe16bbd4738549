"""What is going to be trained, from where, and what that takes; before anything is computed.

The activations at the frontier: computed in the same pass as the embeddings, kept in the cache.

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

from featx._text import one_line
from featx.backbones.augment import Augmentation, check_takes_channels_first
from featx.backbones.backbone import Backbone
from featx.backbones.blocks import Cut
from featx.backbones.copy import FlatCopy, flat_copy
from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.digests.keras_graph import Digester
from featx.exceptions import ParameterError
from featx.extraction.frontier import StoredFrontier
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.finetune.readers import ActivationReader
from featx.finetune.unfreeze import Unfrozen, choose_unfrozen

_SHARE_OF_DISK = 0.9


@dataclass(frozen=True, eq=False)
class Frontier:
    """The spaces of what goes into the first unfrozen layers.

    Attributes
    ----------
    embedding : EmbeddingSource
        The embeddings themselves, computed in the same pass.
    activations : tuple of EmbeddingSource
        One for each tensor.
    """

    embedding: EmbeddingSource
    activations: tuple[EmbeddingSource, ...]

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
    cut: Cut, backbone: Backbone, copy: FlatCopy, embedding: EmbeddingSource, *, dtype: str
) -> Frontier:
    """Name the spaces of a cut.

    Parameters
    ----------
    cut : Cut
        Of the copy.
    backbone : Backbone
    copy : FlatCopy
        Of its tap.
    embedding : EmbeddingSource
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
        embedding = replace(embedding, load_backbone=lambda: whole)
    taps = [
        replace(backbone, spec=replace(backbone.spec, layer=tensor, pooling=None), agreed=set())
        for tensor in tensors
    ]
    digester = Digester()
    resolved = (_resolved(tap, embedding, dtype, digester) for tap in taps)
    return Frontier(embedding, tuple(resolved))


def _resolved(
    tap: Backbone, embedding: EmbeddingSource, dtype: str, digester: Digester
) -> EmbeddingSource:
    if not embedding.is_cacheable:
        return embedding
    return EmbeddingSource(tap.space(digester).stored_as(dtype), lambda: tap)


def _nearest_folder(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.is_dir())


class Plan:
    """What is going to be trained, found out before anything is computed.

    Parameters
    ----------
    params : FineTune
    extractor : FeatureExtractor
        Fitted.

    Attributes
    ----------
    backbone : Backbone
    copy : FlatCopy
        Of its tap.
    unfrozen : Unfrozen
    frontier : Frontier
    frontier_skipped_because : str or None
        Why each epoch starts from pixels; None if it starts from the frontier.

    Raises
    ------
    ParameterError, BackboneError
        The backbone has no such part, or cannot be copied.
    """

    def __init__(self, params: FineTune, extractor: FeatureExtractor) -> None:
        resolved = extractor.current_source()
        self.params, self.extractor = params, extractor
        self.backbone: Backbone = resolved.load_backbone()
        label = self.backbone.spec.label
        name = "".join(c if c.isalnum() or c in "_-." else "_" for c in f"{label}_tuned")
        with self.backbone.settings.applied():
            self.copy: FlatCopy = flat_copy(
                self.backbone.truncated_model,
                input_shape=self.backbone.input_shape,
                name=name,
                label=label,
            )
        self.unfrozen: Unfrozen = choose_unfrozen(
            self.copy.model, params.unfreeze, batch_norm=params.batch_norm, label=label
        )
        self.frontier: Frontier = find_frontier(
            self.unfrozen.frontier, self.backbone, self.copy, resolved, dtype=params.frontier_dtype
        )
        self.frontier_skipped_because = self._why_pixels()
        changes_images = params.augment is not None or params.cutmix
        if changes_images and not self.backbone.kind.is_augmentable:
            raise ParameterError(
                f"augment and cutmix change images, but {label} takes inputs of shape "
                f"{self.backbone.input_shape}: leave them out"
            )
        if self.backbone.takes_channels_first and params.augment is not None:
            check_takes_channels_first(params.augment)
        if self.backbone.takes_channels_first and params.cutmix:
            raise ParameterError(
                f"cutmix exchanges rectangles of images whose channels come last, but those of "
                f"{label} come first: put keras.layers.Permute((3, 1, 2)) before the model"
            )
        if params.views:
            Augmentation(params.augment, self.backbone.input_shape).check()

    def describe(self, n_samples: int) -> str:
        """Say in a sentence what is trained, from where, and what that takes on disk."""
        layers = list(self.unfrozen.layers)
        where = (
            f"from pixels in each epoch, since {self.frontier_skipped_because}"
            if self.frontier_skipped_because
            else f"from the frontier ({self.n_bytes(n_samples) / 1e6:.1f} MB stored)"
        )
        first, last = one_line(layers[0]), one_line(layers[-1])
        return f"training {len(layers)} layers, {first} to {last}, {where}"

    def n_bytes(self, n_samples: int) -> int:
        """Return what the activations of samples take on disk."""
        return n_samples * self.n_kept * self.frontier.row_bytes

    @property
    def frontier_layers(self) -> list[str]:
        """Names of the layers whose outputs are the frontier, as `also_cache` takes them."""
        tensors = self.unfrozen.frontier.tensors
        return [tensor._keras_history.operation.name for tensor in tensors]

    def stored_frontier(self) -> StoredFrontier | None:
        """Say where the tuned backbone can be entered, for samples whose activations are stored."""
        spaces = tuple(tap.space for tap in self.frontier.activations)
        precisions = {self.extractor.precision, *(space.dtype.name for space in spaces)}
        if self.frontier_skipped_because or precisions != {"float32"}:
            return None  # rows would be rougher than their space says
        return StoredFrontier(spaces, self.unfrozen.frontier.position)

    def tuned_extractor(self) -> FeatureExtractor:
        """Make the extractor of the tuned backbone, whose embeddings have a space of their own."""
        params = self.extractor.get_params(deep=False) | {
            "backbone": self.copy.model,
            "preprocessing": self.backbone.preprocessing,
            "weights": "imagenet",
            "backbone_params": None,
            "layer": None,
            "also_cache": (),
        }
        return FeatureExtractor(**params)

    def _why_pixels(self) -> str | None:
        if self.params.augment is not None and not self.params.views:
            return "pixels are augmented anew in each epoch"
        if self.params.cutmix:
            return "cutmix mixes pixels"
        if not self.unfrozen.frontier.position:
            return "nothing is frozen"
        return None

    def look_at(self, cache: EmbeddingCache, n_samples: int) -> None:
        """Start from pixels if the activations of so many samples cannot be stored."""
        if self.frontier_skipped_because is None:
            n_rows, limit = n_samples * self.n_kept, self.params.max_cache_bytes
            self.frontier_skipped_because = self.frontier.why_not_stored(cache, n_rows, limit)

    @property
    def n_kept(self) -> int:
        """How many rows a sample has at the frontier: itself, and its augmented versions."""
        return 0 if self.frontier_skipped_because else 1 + (self.params.views or 0)
