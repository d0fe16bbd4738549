"""FeatureExtractor: a frozen backbone as a scikit-learn transformer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featx._base import with_callbacks
from featx._extractor_params import ExtractorParams
from featx._extractor_validation import (
    as_layer_specs,
    check_channels_first,
    check_out_array,
)
from featx._facts import extractor_facts
from featx._warning import warn_caller
from featx.backbones.augment import Augmentation, check_takes_channels_first
from featx.backbones.resolve import (
    EmbeddingSource,
    describe_change,
    resolve,
    resolve_layers,
    unique_sources,
)
from featx.exceptions import BackboneError, ParameterWarning
from featx.extraction.forward import ForwardPass
from featx.extraction.missing import PassSettings
from featx.inputs.recognize import as_samples, check_columns
from featx.inputs.samples import Samples


class FeatureExtractor(TransformerMixin, ExtractorParams):
    """Turn images into embeddings with a frozen, pretrained Keras network.

    The network embeds each distinct sample once. A cache on disk keeps the embedding; its key
    covers the content of the sample and everything else that the embedding depends on.

    Parameters
    ----------
    backbone : str, Path, keras.Model or callable, default="mobilenet_v2"
        Name from :func:`list_backbones`, preset of KerasHub, path of a ``.keras`` file, model, or
        callable ``input_shape -> keras.Model``, which is called once per process and input shape.
        Presets need ``featx[hub]``, and are written ``"keras_hub:dinov2_base"``,
        ``"keras_hub:hf://owner/name"``, ``"keras_hub:kaggle://..."`` or ``"keras_hub:FOLDER"``.
    weights : "pretrained", None, str or Path, default="pretrained"
        Weights of a named backbone. "pretrained" stands for the published weights, which Keras
        downloads once (those of "tiny" come with featx); "imagenet" is another name for them. None
        stands for random weights from a fixed seed. A path leads to a file of weights.
    backbone_params : dict, default=None
        Parameters for the constructor of a named backbone, such as ``{"alpha": 0.35}``.
    preprocessing : {"auto", "tf", "torch", "caffe", "unit", None} or keras.Layer, default="auto"
        Scaling of pixels, which are from 0 to 255. "auto" is the scaling that belongs to a named
        network; a model that is passed gets pixels without scaling. The constants of "torch" and
        "caffe" are averaged for one channel, and repeated for more than three channels.
    read : callable, default=None
        Reader: a function from the bytes of a file (from its path, if it has an attribute
        ``takes = "path"``) to an array, in place of the decoder of images. Images are pixels from 0
        to 255 of any size; an array that has the shape of the input may hold any numbers if there
        is no preprocessing. Other backbones take exactly their shape. An exception is a fault of
        the sample. The code of the function and the versions of the packages that it imports, or
        names in an attribute `packages`, are part of the space. None is the decoder. The module
        :mod:`featx.readers` has readers of DICOM, NIfTI, TIFF and NumPy files.
    layer : str, default=None
        Name of the layer whose output is pooled; None is the output of the network.
    pooling : str or None, default="auto"
        Pooling that turns activations (h, w, c), or token vectors (n_tokens, c), into one vector:
        "avg", "max", both side by side ("avgmax"), or the generalized mean with exponent 3
        ("gem"). For the tokens of a vision transformer, "cls" is the class token, and "patches"
        the mean of the patches; "cls+patches" and "cls+avg" put two vectors side by side.
        "flatten" keeps all values in one vector, and None keeps their shape. Vectors are never
        pooled. "auto" is the pooling that a text preset names, otherwise the class token if there
        is one, otherwise "avg".
    n_prefix_tokens : int, default=None
        Number of tokens before the patches: class token, registers and distillation token. With
        None, featx finds the number for a KerasHub backbone.
    input_size : int or (int, int), default=None
        Height and width in pixels to which images are resized; None is the network's default.
    resize : {"stretch", "crop", "pad"}, default="stretch"
        How images of another aspect ratio are resized to the input size. "stretch" changes the
        ratio, and the others keep it. "crop" covers the input with the image and cuts out its
        center, as in most published evaluations. "pad" fits the entire image into the input, and
        fills the rest with black (zeros).
    in_channels : int, default=None
        Number of channels of the images, for a named network; None is three. The kernel of the
        first convolution is adapted as in timm: summed over the colors for one channel, otherwise
        repeated along the channels and rescaled. For one channel, files are read as gray images;
        otherwise, files must have that many channels.
    cache : "auto", None, str, Path or EmbeddingCache, default="auto"
        Cache of the embeddings, or its folder. "auto" is ``$FEATX_CACHE`` or the user's cache
        folder; with None, nothing is cached.
    batch_size : int or "auto", default="auto"
        Number of samples per call of the network. "auto" finds it, and halves it if memory runs
        out.
    precision : {"float32", "tf32", "bfloat16", "float16"}, default="float32"
        Precision in which the network computes; each has its own rows in the cache. "bfloat16" is
        often more than twice as fast on CPUs and GPUs that support it; "tf32" and "float16" are
        for GPUs.
    engine : {"auto", "keras", "openvino", "onnx"}, default="auto"
        Library that runs the network. Embeddings of two engines differ by at most 1e-4 of their
        length in float32, and by the rounding of 16 bits in other precisions. "auto" is Keras, but
        OpenVINO (``featx[openvino]``) on a CPU if the pass is long enough to pay for the
        conversion of the network, or if the cache holds the converted network. Unless `engine` is
        "keras", the first pass of a named network or a file in float32 stores the converted
        network in the cache; later processes then embed new samples without TensorFlow and Keras.
    also_cache : sequence of str or (str, str), default=()
        Further layers, or (layer, pooling) pairs, whose embeddings a pass stores as well, so that
        a search over them needs only one pass. A layer without a pooling gets `pooling`; None is
        the output of the network. Samples that can no longer be read get no rows for these layers.
    views : int, default=1
        Number of embeddings of each sample: one of the unchanged sample, and ``views - 1`` of
        augmented views that `augment` makes. (The `views` of :class:`FineTune` counts augmented
        views only.) A view depends only on the sample, `augment` and the number of the view, so
        each view is embedded once. Estimators train their heads on all embeddings.
        :meth:`transform` returns their mean, for which a linear head predicts the mean of their
        scores. `views` may be changed after `fit`, to predict from more or fewer views.
    augment : None, "standard", keras.Layer or sequence of them, default=None
        Keras layers that make augmented views from images with pixels from 0 to 255. "standard"
        flips, shifts, zooms and rotates images and changes their contrast a little. With
        ``views=1``, `augment` is not used, and `fit` warns.
    on_error : {"raise", "nan"}, default="raise"
        What happens if samples cannot be read: an error, or rows of NaN and one warning.
    n_jobs : int, default=None
        Number of threads that decode images; None is one per core.
    verbose : int or callable, default=0
        Progress bar for passes of more than two seconds if it is a number other than 0. A function
        is called with the number of samples done and the total.

    Attributes
    ----------
    array_shape_ : tuple of int or None
        Shape of one sample if all samples in ``fit`` were arrays of one shape, otherwise None.
    feature_shape_ : tuple of int
        Shape of one embedding.
    float_range_ : tuple of float or None
        Range of floating-point pixels: ``(0.0, 255.0)`` if the images in ``fit`` were not scaled
        to 0..1, so that ``transform`` accepts a single dark image. None if ``fit`` got no
        floating-point images, or only black ones; each ``transform`` then checks its own images.
    space_ : Space
        Everything that the embeddings depend on except the samples, as of ``fit``;
        ``space_digest_`` is its digest.
    n_features_in_ : int
        Number of columns of vectors and data frames; one for a frame of images.
    feature_names_in_ : ndarray of shape (`n_features_in_`,), dtype object
        Names of the columns of a data frame.
    report_ : Bunch
        Report of the last ``transform``, with these items:

        - ``n_samples``; ``n_unread``, samples that could not be read;
        - ``n_hits``, rows found in the cache; ``n_forward``, samples and augmented views that went
          through the backbone; ``n_above_frontier``, those of them that went through its
          fine-tuned part only, from cached activations;
        - ``seconds``, dict from each stage to its time; ``bytes_read`` and ``bytes_written``, the
          bytes read from and written to the cache;
        - ``engine`` and ``batch_size``, which are None if the network did not run;
        - ``sample_digests``, the 1,024 smallest digests of the samples' contents, with which
          ``featx evaluate`` finds images that the model was trained on.

    See Also
    --------
    TransferClassifier : An extractor and a classifier as one estimator.
    TransferRegressor : An extractor and a regressor as one estimator.
    EmbeddingCache : Folder in which the embeddings are kept.
    list_backbones : Names of backbones.
    embed_on_gpus : Embeddings from one process for each GPU.

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

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the kind of samples; the frozen network is not trained.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`transform`.
        y : ignored
            Not used; scikit-learn's pipelines pass it.

        Returns
        -------
        FeatureExtractor
            The extractor itself, fitted.

        Raises
        ------
        ParameterError
            Parameters have faulty values; the message lists all of them.
        InputError
            `X` does not hold samples, or floating-point images seem to be scaled to 0..1.
        WeightsError, BackboneError
            The backbone is not available, or cannot be used.

        See Also
        --------
        fit_transform : Fit and embed in one pass.
        check_params : Check the parameters alone.
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
            A list, array or Series of paths or URLs of images; a list of encoded images (bytes),
            PIL images or arrays; an array, memmap or HDF5 dataset of shape (n, h, w) or (n, h, w,
            c) with values from 0 to 255 (0 to 65535 in uint16); a one-column DataFrame of any of
            these; or (n, p) vectors for a backbone that takes vectors. Tensors and columns of other
            libraries are accepted as well. So are lazy sequences, which make an item when they are
            indexed, such as a PyTorch ``Dataset`` of images without labels, or a column of a
            Hugging Face ``Dataset``. Each item is read once per pass, and only a few are in memory
            at a time. With `read`, they are paths, URLs or contents of files of any format, or
            pages and regions of files (``featx.readers.Page`` and ``Region``).
        out : ndarray of shape (n_samples, n_features), float32, default=None
            Array that receives the embeddings, such as ``numpy.lib.format.open_memmap(...)`` if
            they do not fit in memory; None makes a new one.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Embeddings in the order of the samples, in `out` if it was passed. If ``views`` is more
            than 1, they are means over the views. With ``pooling=None``, the shape is that of the
            layer output: ``(n_samples, *feature_shape_)``.

        Raises
        ------
        BadSampleError
            Some samples cannot be read; all of them are listed, and the others are stored.
        BackboneError
            The backbone computes other embeddings than when `fit` was called.

        See Also
        --------
        fit_transform : Fit and embed in one pass.
        transform_views : Embed each augmented view of the samples.
        EmbeddingCache.open : Read stored embeddings without a pass.

        Examples
        --------
        >>> import numpy as np
        >>> from featx import FeatureExtractor
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
        >>> extractor = FeatureExtractor("tiny").fit(images)
        >>> out = np.empty((4, 400), np.float32)  # or a memmap, for more than fits in memory
        >>> extractor.transform(list(images), out=out) is out
        True
        """
        inputs, source = self._inputs(X)
        if out is not None:
            check_out_array(out, (len(inputs), *source.space.feature_shape))
        return self._extract(inputs, source, out=out)

    def transform_views(self, X: Any) -> np.ndarray:
        """Embed each view of samples; the network runs only for those without a row in the cache.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`transform`.

        Returns
        -------
        ndarray of shape (n_samples, views, n_features), float32
            The first view is the sample itself.

        Raises
        ------
        BadSampleError, BackboneError
            The same faults as in :meth:`transform`.

        See Also
        --------
        transform : Return the mean over the views of each sample.

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
        """Fit the extractor and embed the samples in one pass.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`transform`.
        y : ignored
            Not used; scikit-learn's pipelines pass it.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Embeddings, as :meth:`transform` returns them.

        Raises
        ------
        ParameterError, InputError, WeightsError, BackboneError
            The same faults as in :meth:`fit`.
        BadSampleError
            Some samples cannot be read; all of them are listed, and the others are stored.

        See Also
        --------
        transform : Embed samples with a fitted extractor.
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
            Not used; scikit-learn's transformers pass it.

        Returns
        -------
        ndarray of shape (n_features,), dtype object
            Names, as in ``"tiny_avg_0"``.

        Examples
        --------
        >>> import numpy as np
        >>> from featx import FeatureExtractor
        >>> images = np.zeros((1, 32, 32, 3), np.uint8)
        >>> extractor = FeatureExtractor("tiny", layer="stage2").fit(images)
        >>> extractor.get_feature_names_out()[:2].tolist()
        ['tiny_stage2_avg_0', 'tiny_stage2_avg_1']
        """
        check_is_fitted(self, "feature_shape_")
        pooling = self.pooling
        if pooling == "auto":
            pooling = self.space_.description["pooling"] or "avg"
        stem = "_".join(filter(None, (self._spec().label, self.layer, pooling)))
        count = math.prod(self.feature_shape_)
        return np.array([f"{stem}_{number}" for number in range(count)], dtype=object)

    @property
    def space_digest_(self) -> str:
        """Digest of `space_`, by which the cache finds its rows."""
        return self.space_.digest

    def current_source(self) -> EmbeddingSource:
        """Return the source of the embeddings that a fitted extractor gives now.

        Returns
        -------
        EmbeddingSource
            Space of the embeddings, and the way to build the backbone that computes them.
        """
        return self._source(self.array_shape_)

    def extract_also(
        self,
        inputs: Samples,
        others: Sequence[EmbeddingSource],
        *,
        source: EmbeddingSource | None = None,
    ) -> np.ndarray:
        """Embed samples, and store other layers of the backbone in the same pass.

        Parameters
        ----------
        inputs : Samples
            Samples as the backbone takes them: see ``Samples.for_inputs``.
        others : sequence of EmbeddingSource
            Sources of the other layers.
        source : EmbeddingSource, default=None
            Source of the embeddings if the other layers belong to a copy of the backbone; None is
            :meth:`current_source`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Embeddings of the samples.
        """
        own = self.current_source()
        self._check_unchanged(own)
        return self._extract(inputs, source or own, also=others)

    def _samples(self, X: Any, *, reset: bool) -> Samples:
        """Recognize `X` and check the parameters, unless the caller did so and passes `Samples`."""
        if not isinstance(X, Samples):
            self.check_params()
        samples = as_samples(X).read_by(self.reader)
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

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "feature_shape_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = []
        return tags
