"""What is going to be trained, from where, and what that takes; before anything is computed."""

from __future__ import annotations

from featx._text import one_line
from featx.exceptions import ParameterError
from featx.extractor import FeatureExtractor
from featx.forward.stored_frontier import StoredFrontier
from featx.networks.augmentation import Augmentation, check_takes_channels_first
from featx.networks.backbones import Backbone
from featx.networks.copying import FlatCopy, flat_copy
from featx.storage.cache import EmbeddingCache
from featx.tuning.frontier import Frontier, find_frontier
from featx.tuning.params import FineTune
from featx.tuning.unfreezing import Unfrozen, choose_unfrozen


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
    why_pixels : str or None
        Why each epoch starts from pixels; None if it starts from the frontier.

    Raises
    ------
    ParameterError, BackboneError
        The backbone has no such part, or cannot be copied.
    """

    def __init__(self, params: FineTune, extractor: FeatureExtractor) -> None:
        resolved = extractor.current_resolution()
        self.params, self.extractor = params, extractor
        self.backbone: Backbone = resolved.build()
        label = self.backbone.spec.label
        name = "".join(c if c.isalnum() or c in "_-." else "_" for c in f"{label}_tuned")
        with self.backbone.settings.applied():
            self.copy: FlatCopy = flat_copy(
                self.backbone.tap, input_shape=self.backbone.input_shape, name=name, label=label
            )
        self.unfrozen: Unfrozen = choose_unfrozen(
            self.copy.model, params.unfreeze, batch_norm=params.batch_norm, label=label
        )
        self.frontier: Frontier = find_frontier(
            self.unfrozen.frontier, self.backbone, self.copy, resolved, dtype=params.frontier_dtype
        )
        self.why_pixels = self._why_pixels()
        if len(self.backbone.input_shape) != 3 and (params.augment is not None or params.cutmix):
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
            f"from pixels in each epoch, since {self.why_pixels}"
            if self.why_pixels
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
        if self.why_pixels or precisions != {"float32"}:
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
        if self.why_pixels is None:
            n_rows, limit = n_samples * self.n_kept, self.params.max_cache_bytes
            self.why_pixels = self.frontier.why_not_stored(cache, n_rows, limit)

    @property
    def n_kept(self) -> int:
        """How many rows a sample has at the frontier: itself, and its augmented versions."""
        return 0 if self.why_pixels else 1 + (self.params.views or 0)
