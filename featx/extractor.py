"""FeatureExtractor: a frozen backbone as a scikit-learn transformer."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featx._base import FeatxEstimator, with_callbacks
from featx._extractor_validation import (
    as_layer_specs,
    check_channels_first,
    check_extractor_params,
    check_out_array,
)
from featx._facts import extractor_facts
from featx._relative_paths import KeepsRelativePaths, cache_at_first, path_at_first
from featx._warning import warn_caller
from featx.backbones.augment import Augmentation, check_takes_channels_first
from featx.backbones.backbone import BackboneSpec
from featx.backbones.presets import PREFIX, is_preset
from featx.backbones.registry import PRETRAINED, normalized_weights
from featx.backbones.resolve import (
    EmbeddingSource,
    describe_change,
    resolve,
    resolve_layers,
    unique_sources,
)
from featx.cache.cache import EmbeddingCache, resolve_cache
from featx.exceptions import BackboneError, ParameterWarning
from featx.extraction.forward import ForwardPass
from featx.extraction.missing import PassSettings
from featx.inputs.recognize import as_samples, check_columns
from featx.inputs.samples import Samples


class FeatureExtractor(TransformerMixin, KeepsRelativePaths, FeatxEstimator):
    """Turn images into embeddings with a frozen, pretrained Keras network.

    Each distinct sample goes through the network once, ever: a cache on disk keeps its embedding
    under a digest of the sample's content and of everything that decides the numbers.

    Parameters
    ----------
    backbone : str, Path, keras.Model or callable, default="mobilenet_v2"
        A name from :func:`list_backbones`, a preset of KerasHub, the path of a ``.keras`` file, a
        model, or a callable ``input_shape -> keras.Model`` (called once per process and input
        shape). Presets need ``featx[hub]``, and are written ``"keras_hub:dinov2_base"``,
        ``"keras_hub:hf://owner/name"``, ``"keras_hub:kaggle://..."`` or ``"keras_hub:FOLDER"``.
    weights : "pretrained", None, str or Path, default="pretrained"
        Weights of a named backbone: the published ones, which Keras downloads once (those of
        ``"tiny"`` come with featx); random ones, from a fixed seed; or those in a file.
        ``"imagenet"`` is another name for ``"pretrained"``.
    backbone_params : dict, default=None
        Parameters for the constructor of a named backbone, such as ``{"alpha": 0.35}``.
    preprocessing : {"auto", "tf", "torch", "caffe", "unit", None} or keras.Layer, default="auto"
        Scaling of pixels from 0 to 255. "auto" is the named network's own, and none for a model
        that was passed. The constants of "torch" and "caffe" are averaged for gray images, and
        repeated for more channels than three.
    layer : str, default=None
        Name of the layer whose output is read; None is the output of the network.
    pooling : str or None, default="auto"
        Pooling that turns activations (h, w, c), or token vectors (n_tokens, c), into one vector:
        "avg", "max", both side by side ("avgmax"), or the generalized mean with exponent 3 ("gem").
        Of the tokens of a vision transformer, "cls" is the class token, and "patches" the mean of
        the patches; "cls+patches" and "cls+avg" put two vectors side by side. "flatten" keeps all
        values, and None keeps the shape. Vectors are never pooled. "auto" is the pooling that a
        text preset names, else the class token if there is one, else "avg".
    n_prefix_tokens : int, default=None
        Number of tokens before the patches: class token, registers, distillation token. None is the
        number that featx knows for a KerasHub backbone.
    input_size : int or (int, int), default=None
        Height and width in pixels to which images are resized; None is the network's default.
    resize : {"stretch", "crop", "pad"}, default="stretch"
        How images of another aspect ratio get the input size. "stretch" changes the ratio; the
        others keep it. "crop" covers the input and cuts out the center, as in most published
        evaluations. "pad" fits the entire image in, and fills the rest with black (zeros).
    in_channels : int, default=None
        Number of channels of the images, for a named network; None is three. The kernel of the
        first convolution is adapted as in timm: summed over the colors for gray images, else
        repeated along the channels and rescaled. For one channel, files are read as gray images;
        otherwise, files must have that many channels.
    cache : "auto", None, str, Path or EmbeddingCache, default="auto"
        Cache of the embeddings. "auto" is ``$FEATX_CACHE`` or the user's cache folder; None keeps
        nothing.
    batch_size : int or "auto", default="auto"
        Samples per call of the network.
    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        Precision in which the network computes; each has its own rows in the cache. "bfloat16" is
        twice as fast on CPUs and GPUs that support it; "tf32" and "float16" are for GPUs.
    engine : {"auto", "keras", "openvino", "onnx"}, default="auto"
        Library that runs the network. In float32, embeddings of two engines differ by at most 1e-4
        of their length, else by the rounding of 16 bits. "auto" is Keras, and OpenVINO
        (``featx[openvino]``) on a CPU where the pass is long enough to pay for the conversion of
        the network, or where the cache holds the converted network. Unless it is "keras", the
        first pass of a named network or a file in float32 stores the converted network in the
        cache: a later process then embeds new samples without TensorFlow and Keras.
    also_cache : sequence of str or (str, str), default=()
        Further layers, or (layer, pooling) pairs, that a pass stores as well, so that a search over
        them needs one pass in all. A layer alone has the pooling `pooling`; None is the output of
        the network. Samples that can no longer be read are left out there.
    views : int, default=1
        Number of embeddings of each sample, with its own: the sample unchanged, and ``views - 1``
        augmented views that `augment` makes. 1 is the sample alone. (The `views` of
        :class:`FineTune` counts augmented views only.) Sample and number determine an augmented
        view, so each is embedded once. :meth:`transform` returns the mean of the embeddings, for
        which a linear head predicts the mean of their scores; estimators train heads on all of
        them. `views` may be changed after `fit`, to predict from more or fewer of them.
    augment : None, "standard", keras.Layer or sequence of them, default=None
        Layers that make augmented views from pixels from 0 to 255; "standard" flips, shifts, zooms,
        rotates and changes contrast a little. `fit` warns if ``views=1``, which does not use it.
    on_error : {"raise", "nan"}, default="raise"
        Samples that cannot be read raise an error, or give rows of NaN and one warning.
    n_jobs : int, default=None
        Number of threads that decode images; None is one per core.
    verbose : int or callable, default=0
        Progress bar for passes of more than two seconds, if it is not 0; a function is called with
        the number of samples done and the total.

    Attributes
    ----------
    array_shape_ : tuple of int or None
        Shape of one sample, if all samples that ``fit`` saw were arrays of one shape.
    feature_shape_ : tuple of int
        Shape of one embedding.
    float_range_ : tuple of float or None
        Range of floating-point pixels: ``(0.0, 255.0)`` once ``fit`` has seen that they are not
        scaled to 0..1, so that a single dark image is accepted. None if ``fit`` saw no
        floating-point images, or only black ones: each ``transform`` then checks its own images.
    space_ : Space
        Everything that decides the numbers, as of ``fit``; ``space_digest_`` is its digest.
    n_features_in_ : int
        Number of columns, for vectors and for frames; one for a frame of images.
    feature_names_in_ : ndarray of shape (n_features_in_,), dtype object
        Names of the columns, for frames only.
    report_ : Bunch
        Report of the last ``transform``: ``n_samples``, ``n_hits``, ``n_forward`` (samples and
        augmented views that went through the backbone), ``n_above_frontier`` (those that went
        through the fine-tuned part only), ``seconds`` by stage, ``bytes_read``, ``bytes_written``,
        ``engine`` (None if the network did not run), ``batch_size``, ``n_unread`` (samples that
        could not be read).

    Examples
    --------
    >>> import numpy as np
    >>> from featx import FeatureExtractor
    >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    >>> extractor = FeatureExtractor("tiny", cache=None)
    >>> extractor.fit_transform(images).shape
    (4, 400)
    >>> extractor.report_.n_forward
    4
    """

    def __init__(
        self,
        backbone: Any = "mobilenet_v2",
        *,
        weights: Any = "pretrained",
        backbone_params: dict[str, Any] | None = None,
        preprocessing: Any = "auto",
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

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the kind of samples; the frozen network is not trained.

        Parameters
        ----------
        X : samples
            See :meth:`transform`.
        y : ignored

        Returns
        -------
        FeatureExtractor

        Raises
        ------
        ParameterError
            Parameters have faulty values; the message lists all of them.
        InputError
            `X` does not hold samples, or floating-point images seem to be scaled to 0..1.
        WeightsError, BackboneError
            The backbone is not available, or cannot be used.
        """
        with self._state_kept_on_failure():
            samples = self._samples(X, reset=True)
            if self.on_error == "raise":
                samples.check_finite()
            with self._fit_task(X, y):
                source = self._source(samples.array_shape)
                self._learn(samples, source)
                self._other_sources(source, samples.array_shape)  # raises if a layer is not there
        return self

    def transform(self, X: Any, *, out: np.ndarray | None = None) -> np.ndarray:
        """Embed samples; the network runs only for those without a row in the cache.

        Parameters
        ----------
        X : samples
            A list, array or Series of image paths; a list of encoded images (bytes), PIL images or
            arrays; an array, memmap or HDF5 dataset of shape (n, h, w) or (n, h, w, c) with values
            from 0 to 255 (0 to 65535 in uint16); a one-column DataFrame of any of these; or (n, p)
            vectors for a backbone that takes vectors. Tensors and columns of other libraries are
            accepted as well. So are lazy sequences, which make an item when they are indexed, such
            as a PyTorch ``Dataset`` of images without labels, or a column of Hugging Face's
            ``datasets``: each item is read once per pass, and few are in memory at a time.
        out : ndarray of shape (n_samples, n_features), float32, default=None
            Array for the embeddings, such as ``numpy.lib.format.open_memmap(...)`` for more than
            fits in memory; None makes one.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Embeddings in the order of the samples, `out` if it was passed; the mean over augmented
            views, if there are several. The shape is (n_samples, *feature_shape) with
            ``pooling=None``.

        Raises
        ------
        BadSampleError
            Some samples cannot be read; all of them are listed, and the others are stored.
        BackboneError
            The backbone computes other embeddings than when `fit` was called.
        """
        inputs, source = self._inputs(X)
        if out is not None:
            check_out_array(out, (len(inputs), *source.space.feature_shape))
        return self._extract(inputs, source, out=out)

    def transform_views(self, X: Any) -> np.ndarray:
        """Embed each augmented view of samples; the network runs only for missing ones.

        Parameters
        ----------
        X : samples
            See :meth:`transform`.

        Returns
        -------
        ndarray of shape (n_samples, views, n_features), float32
            The first view is the sample itself.

        Raises
        ------
        BadSampleError, BackboneError
            The same faults as in :meth:`transform`.

        Examples
        --------
        >>> import numpy as np
        >>> from featx import FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        >>> extractor = FeatureExtractor("tiny", views=3, augment="standard")
        >>> extractor.fit(images).transform_views(images).shape
        (4, 3, 400)
        """
        inputs, source = self._inputs(X)
        shape = source.space.feature_shape
        views = np.full((len(inputs), self.views, *shape), np.nan, np.float32)
        for number, rows, embeddings in self._each_view(inputs, source):
            views[rows, number] = embeddings.reshape(-1, *shape)
        return views

    @with_callbacks
    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit to samples, and embed them, in one pass.

        Parameters
        ----------
        X : samples
            See :meth:`transform`.
        y : ignored

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
        """
        with self._state_kept_on_failure():
            samples = self._samples(X, reset=True)
            with self._fit_task(X, y):
                shape = samples.array_shape
                source = self._source(shape)
                inputs = self._learn(samples, source)
                embeddings = self._extract(inputs, source)
                # Only the first item of a lazy sequence was known so far.
                self.float_range_ = inputs.float_range()
                if samples.array_shape != shape:
                    self.array_shape_ = samples.array_shape
                    self._source(samples.array_shape)  # raises if the input shape depends on it
                return embeddings

    _facts = extractor_facts

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the features after backbone, layer and pooling.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (n_features,), dtype object
        """
        check_is_fitted(self, "feature_shape_")
        pooling = self.pooling
        if pooling == "auto":
            pooling = self.space_.description["pooling"] or "avg"
        stem = "_".join(filter(None, (self._spec().label, self.layer, pooling)))
        count = math.prod(self.feature_shape_)
        return np.array([f"{stem}_{number}" for number in range(count)], dtype=object)

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
pooling='average': expected one of 'auto', 'avg', 'max', 'avgmax', 'gem', 'cls', 'patches', \
'cls+patches', 'cls+avg', 'flatten', None. Did you mean 'avg'?
        """
        check_extractor_params(type(self).__name__, {**vars(self), **self._path_params()})

    @property
    def space_digest_(self) -> str:
        """Digest of `space_`, by which the cache finds its rows."""
        return self.space_.digest

    @property
    def label(self) -> str:
        """Name of the backbone, and of the layer if there is one, for messages."""
        return "/".join(filter(None, (self._spec().label, self.layer)))

    def has_named_weights(self) -> bool:
        """Return True if another machine can build the backbone from its name and weights."""
        spec = self._spec()
        return spec.network is not None and spec.weights == PRETRAINED

    def resolved_cache(self) -> EmbeddingCache | None:
        """Return the cache that the parameter `cache` selects; None if nothing is cached."""
        return resolve_cache(self._path_params()["cache"])

    def current_source(self) -> EmbeddingSource:
        """Return the source of the embeddings that a fitted extractor gives now."""
        return self._source(self.array_shape_)

    def extract_also(
        self,
        inputs: Samples,
        others: Sequence[EmbeddingSource],
        *,
        source: EmbeddingSource | None = None,
    ) -> np.ndarray:
        """Embed samples, and store other layers of the backbone in the same pass.

        `inputs` are as the backbone takes them: see :meth:`Samples.for_inputs`. `source` is that of
        the embeddings, if the other layers are those of a copy of the backbone.
        """
        own = self.current_source()
        self._check_unchanged(own)
        return self._extract(inputs, source or own, also=others)

    def _samples(self, X: Any, *, reset: bool) -> Samples:
        """Recognize `X` and check the parameters, unless the caller did so and passes `Samples`."""
        if not isinstance(X, Samples):
            self.check_params()
        samples = as_samples(X)
        check_columns(self, samples, reset=reset)
        return samples

    def _inputs(self, X: Any) -> tuple[Samples, EmbeddingSource]:
        """Return samples as the backbone takes them, and the source of their embeddings."""
        samples = self._samples(X, reset=False)
        source = self._source(getattr(self, "array_shape_", samples.array_shape))
        self._check_unchanged(source)
        check_channels_first(samples, source, label=self._spec().label)
        return samples.for_inputs(source.input_shape), source

    @contextlib.contextmanager
    def _state_kept_on_failure(self) -> Iterator[None]:
        """Restore the fitted attributes if a fit fails."""
        before = self._fitted_state()
        try:
            yield
        except BaseException:
            for name in self._fitted_state().keys() - before.keys():
                delattr(self, name)
            self.__dict__.update(before)
            raise

    def _fitted_state(self) -> dict[str, Any]:
        state = vars(self).items()
        return {name: value for name, value in state if name.endswith("_") or name == "_reports"}

    def _learn(self, samples: Samples, source: EmbeddingSource) -> Samples:
        """Set the fitted attributes, and return samples as the backbone takes them."""
        inputs = samples.for_inputs(source.input_shape)
        float_range = inputs.float_range()
        check_channels_first(samples, source, label=self._spec().label)
        self._warn_of_unused_augment()
        if augmentation := self._augmentation(source):
            augmentation.check()
        self.array_shape_ = samples.array_shape
        self.float_range_ = float_range
        self.feature_shape_ = source.space.feature_shape
        self.space_ = source.space
        self.__dict__.pop("frontier_", None)
        self._reports = []
        return inputs

    def _warn_of_unused_augment(self) -> None:
        # No error, since a search may try views=1 beside others.
        if self.augment is not None and self.views == 1:
            warn_caller(
                ParameterWarning(
                    f"augment={self.augment!r} is not used with views=1, the sample alone: pass "
                    "views=2 or more, or augment=None"
                )
            )

    def _check_unchanged(self, source: EmbeddingSource) -> None:
        """Check that the backbone computes the same embeddings as when `fit` was called."""
        if not (hasattr(self, "space_") and source.is_cacheable):
            return
        if not source.space.is_equal_but_for_storage(self.space_):
            raise BackboneError(describe_change(self._spec().label, source.space, self.space_))

    def _extract(
        self,
        inputs: Samples,
        source: EmbeddingSource,
        *,
        out: np.ndarray | None = None,
        also: Sequence[EmbeddingSource] = (),
    ) -> np.ndarray:
        """Return the mean of the views of each sample."""
        flat = None if out is None else out.reshape(len(inputs), source.space.n_features)
        views = self._each_view(inputs, source, out=flat, also=also)
        _, _, embeddings = next(views)
        for _, rows, view in views:
            embeddings[rows] += view
        if self.views > 1:
            embeddings /= self.views
        if out is not None:
            return out
        return embeddings.reshape(len(embeddings), *source.space.feature_shape)

    def _each_view(
        self,
        inputs: Samples,
        source: EmbeddingSource,
        *,
        out: np.ndarray | None = None,
        also: Sequence[EmbeddingSource] = (),
    ) -> Iterator[tuple[int, Any, np.ndarray]]:
        """Yield the embeddings of each view: see :meth:`ForwardPass.embed_views`."""
        array_shape = getattr(self, "array_shape_", inputs.array_shape)
        is_range_known = getattr(self, "float_range_", None) is not None
        if not is_range_known:
            inputs.float_range()  # raises if they seem to be scaled to 0..1
        others = unique_sources(also, self._other_sources(source, array_shape))
        forward = ForwardPass(
            [source, *others],
            self.resolved_cache(),
            PassSettings(self.batch_size, self.engine, self.n_jobs, self.on_error, self.verbose),
            frontier=getattr(self, "frontier_", None),
        )
        augmentation = self._augmentation(source)
        for view in forward.embed_views(inputs, augmentation, self.views, out=out):
            self.report_ = forward.report
            yield view
        if not is_range_known:
            inputs.float_range()  # again, since a lazy sequence has been read to its end now

    def _augmentation(self, source: EmbeddingSource) -> Augmentation | None:
        """Return the augmentation that makes the augmented views; None if there are none."""
        if self.views == 1:
            return None
        if source.space.description.get("channels_first"):
            check_takes_channels_first(self.augment)
        return Augmentation(self.augment, source.input_shape, self.resolved_cache())

    def _source(self, array_shape: tuple[int, ...] | None) -> EmbeddingSource:
        return resolve(self._spec(), array_shape=array_shape, cache=self.resolved_cache())

    def _other_sources(
        self, own: EmbeddingSource, array_shape: tuple[int, ...] | None
    ) -> list[EmbeddingSource]:
        """Return the sources that `also_cache` names."""
        cache = self.resolved_cache()
        if cache is None or not own.is_cacheable or not self.also_cache:
            return []
        layers = as_layer_specs(self.also_cache, self.pooling)
        return resolve_layers(self._spec(), layers, own, array_shape=array_shape, cache=cache)

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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "feature_shape_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _is_weights_file(path: str | os.PathLike[str]) -> bool:
    return normalized_weights(path) != PRETRAINED and os.path.isfile(path)
