"""TrainingPlan, made before anything is computed: trained layers, frontier, starting point.

The activations at the frontier come from the same pass as the embeddings and are kept in the cache.
Each tensor at the frontier has its own space, so that different depths, and models with the same
lower blocks, share rows. Batches are read from disk when they are needed, so that the activations
need not fit into memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featx._text import one_line
from featx.backbones.augment import Augmentation, check_takes_channels_first
from featx.backbones.backbone import Backbone
from featx.backbones.blocks import GraphCut
from featx.backbones.copy import FlatCopy, flat_copy
from featx.backbones.registry import PRETRAINED
from featx.backbones.resolve import EmbeddingSource
from featx.cache.cache import EmbeddingCache
from featx.digests.keras_graph import Digester
from featx.digests.tensor_history import calls_of
from featx.exceptions import ParameterError
from featx.extraction.frontier import StoredFrontier
from featx.extractor import FeatureExtractor
from featx.finetune.params import FineTune
from featx.finetune.readers import ActivationReader
from featx.finetune.unfreeze import Unfrozen, choose_unfrozen

_MAX_DISK_FRACTION = 0.9


class TrainingPlan:
    """The layers that are trained, and whether epochs start from the frontier or from pixels.

    `copy` is a copy of the backbone's truncated model. `frontier_skipped_because` is the reason why
    each epoch starts from pixels, None if it starts from the frontier.
    """

    def __init__(self, params: FineTune, extractor: FeatureExtractor) -> None:
        source = extractor.current_source()
        self.params, self.extractor = params, extractor
        self.backbone: Backbone = source.load_backbone()
        label = self.backbone.spec.label
        name = "".join(c if c.isalnum() or c in "_-." else "_" for c in f"{label}_tuned")
        with self.backbone.settings.applied():
            self.copy: FlatCopy = flat_copy(
                self.backbone.truncated_model,
                input_shape=self.backbone.input_shape,
                original=self.backbone.original_model,
                name=name,
                label=label,
            )
        self.unfrozen: Unfrozen = choose_unfrozen(
            self.copy.model,
            params.unfreeze,
            batch_norm=params.batch_norm,
            label=label,
            starts=_starts_of_names(self.copy, self.backbone),
        )
        self.frontier = find_frontier(self.unfrozen.frontier, self.backbone, self.copy, source)
        self.frontier_skipped_because: str | None = None
        if params.augment is not None and not params.views:
            self.frontier_skipped_because = "pixels are augmented in each epoch"
        elif not self.unfrozen.frontier.position:
            self.frontier_skipped_because = "nothing is frozen"
        self._check_augment()

    def _check_augment(self) -> None:
        augment, backbone = self.params.augment, self.backbone
        if augment is None:
            return
        if not backbone.kind.is_augmentable:
            raise ParameterError(
                f"augment changes images, but {backbone.spec.label} takes inputs of shape "
                f"{backbone.input_shape}: leave it out"
            )
        if backbone.takes_channels_first:
            check_takes_channels_first(augment)
        if self.params.views:
            Augmentation(augment, backbone.input_shape).check()

    @property
    def n_stored(self) -> int:
        """Number of rows that a sample has at the frontier: its own and its augmented views'."""
        return 0 if self.frontier_skipped_because else 1 + (self.params.views or 0)

    @property
    def frontier_layers(self) -> list[str]:
        """Names of the layers whose outputs are the frontier, as `also_cache` takes them."""
        tensors = self.unfrozen.frontier.tensors
        return [tensor._keras_history.operation.name for tensor in tensors]

    def n_bytes(self, n_samples: int) -> int:
        """Return the size on disk of the activations of samples."""
        return n_samples * self.n_stored * self.frontier.row_bytes

    def choose_start(self, cache: EmbeddingCache, n_samples: int) -> None:
        """Start from pixels if the activations of so many samples cannot be stored."""
        if self.frontier_skipped_because is None:
            n_rows, limit = n_samples * self.n_stored, self.params.max_cache_bytes
            self.frontier_skipped_because = self.frontier.why_not_stored(cache, n_rows, limit)

    def describe(self, n_samples: int) -> str:
        """Return a sentence on the trained layers, the starting point and the size on disk."""
        layers = list(self.unfrozen.layers)
        where = (
            f"from pixels in each epoch, since {self.frontier_skipped_because}"
            if self.frontier_skipped_because
            else f"from the frontier ({self.n_bytes(n_samples) / 1e6:.1f} MB stored)"
        )
        first, last = one_line(layers[0]), one_line(layers[-1])
        return f"training {len(layers)} layers, {first} to {last}, {where}"

    def stored_frontier(self) -> StoredFrontier | None:
        """Return the point where stored activations can enter the tuned backbone, or None."""
        if self.frontier_skipped_because or self.extractor.precision != "float32":
            return None  # its space promises float32, and stored activations are less precise
        spaces = tuple(source.space for source in self.frontier.activations)
        return StoredFrontier(spaces, self.unfrozen.frontier.position)

    def tuned_extractor(self) -> FeatureExtractor:
        """Make the extractor of the tuned backbone, whose embeddings have a space of their own."""
        params = self.extractor.get_params(deep=False) | {
            "backbone": self.copy.model,
            "preprocessing": self.backbone.preprocessing,
            "weights": PRETRAINED,
            "backbone_params": None,
            "in_channels": None,
            "layer": None,
            "pooling": self.backbone.pooling,
            "n_prefix_tokens": self.backbone.n_prefix_tokens,
            "also_cache": (),
        }
        return FeatureExtractor(**params)


def _starts_of_names(copy: FlatCopy, backbone: Backbone) -> dict[str, Any]:
    """Return the first outputs, in a copy, of all that ``layer=`` can name in a backbone."""
    copied = {id(copy.originals.get(id(each))): each for each in _tensors_of(copy.model)}
    named = backbone.hub.starts if backbone.hub else {}
    starts = {name: copied[id(tensor)] for name, tensor in named.items() if id(tensor) in copied}
    return copy.starts | starts


def _tensors_of(model: Any) -> Iterator[Any]:
    for call in calls_of(model):
        yield from call.outputs


@dataclass(frozen=True, eq=False)
class Frontier:
    """The spaces of the inputs of the first unfrozen layers."""

    embedding: EmbeddingSource  # computed in the same pass
    activations: tuple[EmbeddingSource, ...]  # one for each tensor

    @property
    def row_bytes(self) -> int:
        """Size of one sample's activations on disk."""
        spaces = [source.space for source in self.activations]
        return sum(space.n_features * space.dtype.itemsize for space in spaces)

    def why_not_stored(self, cache: EmbeddingCache, n_rows: int, max_bytes: int) -> str | None:
        """Return the reason why so many rows cannot be stored; None if they can."""
        if not all(source.is_cacheable for source in (self.embedding, *self.activations)):
            return "the backbone cannot be identified, so nothing of it is cached"
        size_bytes = n_rows * self.row_bytes
        size = f"{size_bytes / 1e9:.2f} GB of activations"
        if size_bytes > max_bytes:
            return f"{size} are more than max_cache_bytes={max_bytes}"
        free_bytes = shutil.disk_usage(_nearest_existing_folder(cache.path)).free
        if size_bytes > _MAX_DISK_FRACTION * free_bytes:
            n_stored = min(len(cache.store(source.space).keys()) for source in self.activations)
            if (n_rows - n_stored) * self.row_bytes > _MAX_DISK_FRACTION * free_bytes:
                return f"{size} do not fit on the disk, where {free_bytes / 1e9:.2f} GB are free"
        return None

    def are_stored(self, cache: EmbeddingCache, keys: np.ndarray) -> bool:
        """Return whether the activations of all samples, keys of shape (n,), are in the cache."""
        return all(cache.store(source.space).holds(keys).all() for source in self.activations)

    def reader(self, cache: EmbeddingCache, keys: np.ndarray) -> ActivationReader:
        """Make a reader of the stored activations of samples."""
        spaces = [source.space for source in self.activations]
        shapes = [space.feature_shape for space in spaces]
        return ActivationReader([cache.store(space) for space in spaces], shapes, keys)


def find_frontier(
    cut: GraphCut, backbone: Backbone, copy: FlatCopy, embedding: EmbeddingSource
) -> Frontier:
    """Return the spaces of a cut in `copy`, the copy of a backbone's truncated model."""
    originals = [copy.originals.get(id(tensor)) for tensor in cut.tensors]
    if all(original is not None for original in originals):
        tensors: list[Any] = originals
    else:
        # The cut is inside a nested model, where only the flat copy can be cut.
        tensors = list(cut.tensors)
        spec = replace(backbone.spec, layer=copy.model.outputs[0])
        backbone = replace(backbone, model=copy.model, spec=spec, agreed=set())
        entire = backbone
        embedding = replace(embedding, load_backbone=lambda: entire)
    digester = Digester()
    sources = []
    for tensor in tensors:
        spec = replace(backbone.spec, layer=tensor, pooling=None)
        truncated = replace(backbone, spec=spec, agreed=set())
        sources.append(_source_of_backbone(truncated, embedding, digester))
    return Frontier(embedding, tuple(sources))


def _source_of_backbone(
    backbone: Backbone, embedding: EmbeddingSource, digester: Digester
) -> EmbeddingSource:
    if not embedding.is_cacheable:
        return embedding
    return EmbeddingSource(backbone.space(digester), lambda: backbone)


def _nearest_existing_folder(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.is_dir())
