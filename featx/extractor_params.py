"""The parameters of a :class:`FeatureExtractor`, and the backbone that they describe."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self

from featx._warning import warn_caller
from featx.cloning import clone_sharing_models
from featx.exceptions import ParameterWarning
from featx.extractor_checks import check_extractor_params
from featx.networks.backbones import BackboneSpec
from featx.param_names import SuggestingParams
from featx.storage.cache import EmbeddingCache
from featx.storage.cache_choice import cache_at_first, path_at_first, resolve_cache


class ExtractorParams(SuggestingParams):
    """What a :class:`FeatureExtractor` is made with."""

    def __init__(
        self,
        backbone: Any = "mobilenet_v2",
        *,
        weights: Any = "imagenet",
        backbone_params: dict[str, Any] | None = None,
        preprocessing: Any = "auto",
        layer: str | None = None,
        pooling: str | None = "avg",
        input_size: int | tuple[int, int] | None = None,
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
        self.layer = layer
        self.pooling = pooling
        self.input_size = input_size
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

    def _path_params(self) -> dict[str, Any]:
        """Return the parameters that may be paths, each relative one as it was first resolved.

        A relative path is resolved when it is first used, pickled or passed to another process, so
        that fitted estimators, their clones and their copies in workers keep to the same files
        after a change of the working directory.
        """
        first: dict[str, tuple[Any, str]] = self.__dict__.setdefault("_first_paths", {})
        return {
            "backbone": path_at_first(first, "backbone", self.backbone, is_path=_is_there),
            "weights": path_at_first(first, "weights", self.weights, is_path=_is_there),
            "cache": cache_at_first(first, self.cache),
        }

    def __getstate__(self) -> dict[str, Any]:
        self._path_params()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # On another machine, relative paths are resolved again.
        first = self.__dict__.get("_first_paths", {})
        self._first_paths = {
            name: (given, path)
            for name, (given, path) in first.items()
            if os.path.isdir(os.path.dirname(path))
        }

    def resolved_cache(self) -> EmbeddingCache | None:
        """Return the cache that `cache` stands for; None if nothing is cached."""
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
            precision=self.precision,
        )

    def has_named_weights(self) -> bool:
        """Tell whether name and weights say all that is needed to have the backbone elsewhere."""
        return self._spec().network is not None and self.weights == "imagenet"

    @property
    def label(self) -> str:
        """The backbone, and the layer if one was named, in a few words for people."""
        return "/".join(filter(None, (self._spec().label, self.layer)))

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
        featx.exceptions.ParameterError: FeatureExtractor has a faulty parameter: \
pooling='average': expected one of 'avg', 'max', 'avgmax', 'flatten', None. Did you mean 'avg'?
        """
        params = {**self.get_params(deep=False), **self._path_params()}
        check_extractor_params(type(self).__name__, params)

    def _warn_of_unused_augment(self) -> None:
        # No error, since a search may try views=1 beside others.
        if self.augment is not None and self.views == 1:
            warn_caller(
                ParameterWarning(
                    f"augment={self.augment!r} is not used with views=1, the sample alone: pass "
                    "views=2 or more, or augment=None"
                )
            )

    def __sklearn_clone__(self) -> Self:
        clone = clone_sharing_models(self)
        clone._first_paths = dict(self.__dict__.get("_first_paths", {}))
        return clone


def _is_there(path: str | os.PathLike[str]) -> bool:
    return path != "imagenet" and os.path.isfile(path)
