"""ExtractorParams, base of FeatureExtractor: its parameters, their checks, and what they select."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from featx._base import FeatxEstimator
from featx._extractor_validation import check_extractor_params
from featx._relative_paths import KeepsRelativePaths, cache_at_first, path_at_first
from featx.backbones.backbone import BackboneSpec
from featx.backbones.presets import PREFIX, is_preset
from featx.backbones.registry import PRETRAINED, normalized_weights
from featx.cache.cache import EmbeddingCache, resolve_cache
from featx.inputs.reader import Reader


class ExtractorParams(KeepsRelativePaths, FeatxEstimator):
    """Parameters of an extractor, and the backbone and cache that they select."""

    def __init__(
        self,
        backbone: Any = "mobilenet_v2",
        *,
        weights: Any = "pretrained",
        backbone_params: dict[str, Any] | None = None,
        preprocessing: Any = "auto",
        read: Callable[..., Any] | None = None,
        layer: str | None = None,
        pooling: str | None = "auto",
        n_prefix_tokens: int | None = None,
        input_size: int | tuple[int, int] | None = None,
        resize: str = "stretch",
        in_channels: int | None = None,
        cache: Any = "auto",
        batch_size: int | str = "auto",
        precision: str = "float32",
        engine: str = "auto",
        also_cache: Any = (),
        views: int = 1,
        augment: Any = None,
        on_error: str = "raise",
        n_jobs: int | None = None,
        verbose: int | bool | Callable[[int, int], object] = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.backbone_params = backbone_params
        self.preprocessing = preprocessing
        self.read = read
        self.layer = layer
        self.pooling = pooling
        self.n_prefix_tokens = n_prefix_tokens
        self.input_size = input_size
        self.resize = resize
        self.in_channels = in_channels
        self.cache = cache
        self.batch_size = batch_size
        self.precision = precision
        self.engine = engine
        self.also_cache = also_cache
        self.views = views
        self.augment = augment
        self.on_error = on_error
        self.n_jobs = n_jobs
        self.verbose = verbose

    def check_params(self) -> None:
        """Check the parameters, as `fit` does before anything else.

        Raises
        ------
        ParameterError
            Some have faulty values; the message lists all of them.

        Examples
        --------
        >>> from featx import FeatureExtractor
        >>> FeatureExtractor("tiny", pooling="average").check_params()
        Traceback (most recent call last):
            ...
        featx.exceptions.ParameterError: FeatureExtractor has a faulty parameter:
            pooling='average': expected one of 'auto', 'avg', ... Did you mean 'avg'?
        """
        check_extractor_params(type(self).__name__, {**vars(self), **self._path_params()})

    @property
    def label(self) -> str:
        """Name of the backbone, and of the layer if there is one, for messages."""
        return "/".join(filter(None, (self._spec().label, self.layer)))

    @property
    def reader(self) -> Reader | None:
        """Reader of the parameter `read`; None for featx' decoder of images."""
        return None if self.read is None else Reader(self.read)

    def has_named_weights(self) -> bool:
        """Return True if another machine can build the backbone from its name and weights.

        Returns
        -------
        bool
            True for a named backbone with published weights. False for random weights, for weights
            in a file, and for a backbone that is a model, a file or a callable.
        """
        spec = self._spec()
        return spec.network is not None and spec.weights == PRETRAINED

    def resolved_cache(self) -> EmbeddingCache | None:
        """Return the cache that the parameter `cache` selects.

        Returns
        -------
        EmbeddingCache or None
            Cache of the embeddings; None if nothing is cached.

        Examples
        --------
        >>> import tempfile
        >>> from featx import FeatureExtractor
        >>> FeatureExtractor("tiny", cache=tempfile.mkdtemp()).resolved_cache().info()["n_rows"]
        0
        """
        return resolve_cache(self._path_params()["cache"])

    def _spec(self) -> BackboneSpec:
        paths = self._path_params()
        return BackboneSpec(
            backbone=paths["backbone"],
            weights=paths["weights"],
            backbone_params=self.backbone_params,
            preprocessing=self.preprocessing,
            layer=self.layer,
            pooling=self.pooling,
            input_size=self.input_size,
            resize=self.resize,
            in_channels=self.in_channels,
            precision=self.precision,
            n_prefix_tokens=self.n_prefix_tokens,
            read=self.reader,
        )

    def _path_params(self) -> dict[str, Any]:
        """Return the parameters that may be paths, with relative paths as they were first resolved.

        A relative path is resolved when it is first used, pickled or passed to another process, so
        that fitted estimators, their clones and their copies in workers find the same files after
        a change of the working directory.
        """
        first = self._paths_at_first()
        return {
            "backbone": self._backbone_at_first(first),
            "weights": path_at_first(first, "weights", self.weights, is_path=_is_weights_file),
            "cache": cache_at_first(first, self.cache),
        }

    def _backbone_at_first(self, first: dict[str, tuple[Any, str]]) -> Any:
        if not is_preset(self.backbone):
            return path_at_first(first, "backbone", self.backbone, is_path=_is_weights_file)
        name = self.backbone.removeprefix(PREFIX)
        return PREFIX + path_at_first(first, "backbone", name, is_path=os.path.isdir)


def _is_weights_file(path: str | os.PathLike[str]) -> bool:
    return normalized_weights(path) != PRETRAINED and os.path.isfile(path)
