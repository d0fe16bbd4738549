"""TransferEstimator, base of TransferClassifier and TransferRegressor: an extractor and a head."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from featx._base import FitTask, with_callbacks
from featx._facts import estimator_facts
from featx._targets import as_groups, as_weights
from featx._training_data import (
    Data,
    check_known,
    checked_classes,
    checked_weights,
    draw_seed,
    readable_mask,
    rows_that_were_read,
    training_views,
    views_of,
)
from featx._transfer_params import TransferParams
from featx._validation import InputFaults
from featx.exceptions import InputError, ParameterError
from featx.export import export, to_keras
from featx.extractor import FeatureExtractor
from featx.heads.fit import as_head_input, fit_on_views, predict, train_further, views_as_rows
from featx.heads.folds import check_keeps_samples_together
from featx.inputs.recognize import as_samples

if TYPE_CHECKING:
    import keras


def head_has(method: str) -> Callable[[Any], bool]:
    """Return a check that the head has a method, for ``available_if``."""

    def check(estimator: Any) -> bool:
        try:
            head = getattr(estimator, "head_", None) or estimator.new_head()
        except ParameterError:
            return False
        getattr(head, method)
        return True

    return check


class TransferEstimator(TransformerMixin, TransferParams):
    """An extractor and a head as one estimator."""

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Embed the samples, train the head on the embeddings, and fine-tune if `fine_tune` is set.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights for the head and for fine-tuning.
        groups : array-like of shape (n_samples,), default=None
            Groups of samples that stay together where fine-tuning holds samples out, or where a
            head cross-validates (with a number of folds, or a splitter that takes groups).

        Returns
        -------
        self
            The fitted estimator itself.

        Raises
        ------
        ParameterError, InputError
            Parameters or inputs are faulty; raised before anything is computed.
        WeightsError, BackboneError
            The backbone is not available, or cannot be used.
        BadSampleError
            Some samples cannot be read.
        """
        self.check_params()
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples)
        head = self.new_head(y)
        if sample_weight is not None:
            sample_weight = faults.check(checked_weights, sample_weight, head, n_samples)
        if groups is not None:
            groups = faults.check(as_groups, groups, n_samples)
        faults.raise_any()
        extractor = self._new_extractor()
        check_keeps_samples_together(head, y, groups, n_views=extractor.views)
        data = Data(samples, y, sample_weight, groups)
        n_parts = 2 if self.fine_tune is None else 1
        with self._fit_task(samples.given, y, n_parts=n_parts) as task:
            if self.fine_tune is None:
                self._fit_head(extractor, head, data, task)
            else:
                with task.part("fine-tune"):
                    self._fine_tune(extractor, data)
        self._set_column_names()
        return self

    def _fit_head(
        self, extractor: FeatureExtractor, head: BaseEstimator, data: Data, task: FitTask
    ) -> None:
        with task.part("embed", extractor):
            views = training_views(extractor, data.X)
        kept = rows_that_were_read(views)
        if not kept.all():
            views, data = views[kept], data.take(np.flatnonzero(kept))
        start_s = time.perf_counter()
        with task.part("fit-head", head):
            fit_on_views(head, views, data.y, sample_weight=data.sample_weight, groups=data.groups)
        self.extractor_, self.head_ = extractor, head
        self._report_head(time.perf_counter() - start_s)

    def _report_head(self, head_s: float) -> None:
        report = self.extractor_.report_
        self.report_ = Bunch(**{**report, "seconds": {**report.seconds, "head": head_s}})

    def _fine_tune(self, extractor: FeatureExtractor, data: Data) -> None:
        # Imported here, since these modules load Keras. The seed is drawn before, since TensorFlow
        # draws from NumPy's global generator when it is imported (2026-11).
        args = self.fine_tune, extractor, partial(self.new_head, data.y), data
        state, verbose = self.random_state, self.verbose
        if self.fine_tune.distill_to is None:
            seed = draw_seed(state)
            from featx.finetune.run import fine_tune

            outcome = fine_tune(*args, seed=seed, is_seeded=state is not None, verbose=verbose)
        else:
            from featx.finetune.distill import distill

            outcome = distill(*args, random_state=state, verbose=verbose)
        self.extractor_, self.head_ = outcome.extractor, outcome.head
        self.report_ = Bunch(**outcome.report)

    def _set_column_names(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.extractor_, name):
                setattr(self, name, getattr(self.extractor_, name))

    def _partial_fit(self, X: Any, y: Any, **params: Any) -> Self:
        """Embed more samples, and pass them and `params` to ``partial_fit`` of the head."""
        self.check_params()
        if self.fine_tune is not None:
            raise ParameterError("partial_fit trains the head only: pass fine_tune=None")
        samples = as_samples(X)
        is_first = not hasattr(self, "head_")
        y, head, params = self._checked_batch(y, len(samples), params)
        extractor = self._new_extractor().fit(samples) if is_first else self.extractor_
        views = views_of(extractor, samples)
        kept = rows_that_were_read(views)
        if "sample_weight" in params:
            params["sample_weight"] = np.repeat(params["sample_weight"][kept], views.shape[1])
        start_s = time.perf_counter()
        rows, labels = views_as_rows(views[kept], y[kept])
        train_further(head, rows, labels, **params)
        self.extractor_, self.head_ = extractor, head
        self._report_head(time.perf_counter() - start_s)
        self._set_column_names()
        return self

    def _checked_batch(
        self, y: Any, n_samples: int, params: dict[str, Any]
    ) -> tuple[np.ndarray, BaseEstimator, dict[str, Any]]:
        """Return checked labels or values, the head to train on them, and checked parameters."""
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples, is_all=False)
        head = self.head_ if hasattr(self, "head_") else self.new_head(y)
        params = {name: value for name, value in params.items() if value is not None}
        if "sample_weight" in params:
            given = params["sample_weight"]
            params["sample_weight"] = faults.check(checked_weights, given, head, n_samples)
        known: Any = getattr(head, "classes_", None)
        if y is not None and y.ndim == 1 and "classes" in params:
            known = params["classes"] = faults.check(checked_classes, params["classes"], y)
        elif y is not None and y.ndim == 1 and known is not None:
            faults.check(check_known, y, known, source="the classes of the first call")
        faults.raise_any()
        if y.ndim == 1 and {y.dtype.kind, getattr(known, "dtype", y.dtype).kind} == {"i", "u"}:
            y = y.astype(known.dtype)  # NumPy searches uint64 in int64 as floats
        return y, head, params

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels or values.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Labels of a classifier, with the dtype of those in `fit`; values of a regressor.

        Raises
        ------
        BadSampleError, InputError
            Some samples cannot be read; raised with ``extractor__on_error="nan"`` too, since there
            is no prediction for them.
        """
        return self._head_output("predict", X)

    @available_if(head_has("score_samples"))
    def score_samples(self, X: Any) -> np.ndarray:
        """Return the scores of the head's ``score_samples``, such as log-likelihoods.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.

        Returns
        -------
        ndarray of shape (n_samples,)
            Score of each sample; its meaning is that of the head.
        """
        return self._head_output("score_samples", X)

    def transform(self, X: Any) -> np.ndarray:
        """Return the embeddings from which the head predicts: the mean over augmented views.

        Parameters
        ----------
        X : samples
            Samples: see :meth:`FeatureExtractor.transform`.

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
            Embeddings in the order of the samples.
        """
        check_is_fitted(self, "head_")
        return self.extractor_.transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features of ``transform``.

        Parameters
        ----------
        input_features : ignored
            Not used; scikit-learn's transformers pass it.

        Returns
        -------
        ndarray of shape (n_features,), dtype object
            Names, as in ``"tiny_avg_0"``.
        """
        check_is_fitted(self, "head_")
        return self.extractor_.get_feature_names_out()

    def to_keras(self, *, input_dtype: str = "auto") -> keras.Model:
        """Return the fitted estimator as one Keras model without featx and scikit-learn.

        Parameters
        ----------
        input_dtype : {"auto", "uint8", "float32"}, default="auto"
            Dtype of the inputs. ``"auto"`` is uint8 for images, float32 for vectors and signals.
            With ``"float32"``, pixels are floats from 0 to 255, and gradients reach them, as
            saliency maps need; the outputs for whole numbers are the same.

        Returns
        -------
        keras.Model
            Model from pixels (n, h, w, c) of the backbone's size, from 0 to 255, to probabilities
            (n, n_classes), to scores if the head has no probabilities, or to values. Its layers are
            copies, which may be trained. The model of a classifier has ``class_names``. It does not
            average augmented views.

        Raises
        ------
        ParameterError
            The head is not linear, or `input_dtype` is another dtype; vectors and signals have no
            uint8.
        BackboneError
            The backbone cannot be copied, or changed after `fit`.

        See Also
        --------
        export : Write the model to a file.

        Examples
        --------
        >>> import numpy as np
        >>> from featx import TransferClassifier
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        >>> classifier = TransferClassifier("tiny").fit(images, ["cat", "dog"] * 2)
        >>> model = classifier.to_keras()
        >>> model.class_names, model.output_shape
        (['cat', 'dog'], (None, 2))
        """
        check_is_fitted(self, "head_")
        return to_keras(self.extractor_, self.head_, input_dtype=input_dtype)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        format: str = "keras",
        include_resize: bool = False,
    ) -> None:
        """Write the fitted estimator for a runtime without featx.

        Parameters
        ----------
        path : str or Path
            Folder of a SavedModel, else a file ``.keras``, ``.onnx``, ``.xml`` (OpenVINO, with a
            second file ``.bin``) or ``.tflite``. Existing regular files, or a folder that holds
            only a SavedModel, are replaced once the new ones are complete; permissions are kept.
        format : {"keras", "saved_model", "onnx", "openvino", "litert"}, default="keras"
            Format of the file. All but "keras" need Keras to run on TensorFlow. The file holds the
            class names and the settings for full float32 precision, which OpenVINO needs on CPUs
            with bfloat16: ``{"EXECUTION_MODE_HINT": "ACCURACY"}``. It also describes the inputs:
            their size and range, and how images get that size. ``featx/export.py`` describes where
            the file holds all this.
        include_resize : bool, default=False
            If True, the model takes uint8 images (n, height, width, c) of any size, all of one size
            in a batch, and resizes them itself, as the extractor's `resize` does: 0.5% of the
            values differ, by one level of 255. If False, images have to be resized before.

        Raises
        ------
        ParameterError
            The format is not known, the path does not suit it, the head is not linear, or images
            cannot be resized.
        MissingExtraError
            Packages that write the format are not installed.
        EngineError
            The format cannot hold the network.
        OSError
            The disk is full or the folder is read-only, for example; existing files are unharmed.

        See Also
        --------
        to_keras : Return the model as an object.
        save : Write the estimator itself, for :func:`load`.

        Examples
        --------
        >>> import os, tempfile
        >>> import numpy as np
        >>> from featx import TransferClassifier
        >>> images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        >>> path = os.path.join(tempfile.mkdtemp(), "pets.keras")
        >>> TransferClassifier("tiny").fit(images, ["cat", "dog"] * 2).export(path)
        >>> os.path.exists(path)
        True
        """
        check_is_fitted(self, "head_")
        export(self.extractor_, self.head_, path, format=format, include_resize=include_resize)

    @abstractmethod
    def _checked_target(self, y: Any, n_samples: int, *, is_all: bool = True) -> np.ndarray:
        """Return labels or values; raise if no head can be trained on them.

        `is_all` is True if no further samples will follow.
        """

    def _head_output(self, method: str, X: Any) -> np.ndarray:
        check_is_fitted(self, "head_")
        embeddings = np.asarray(self.extractor_.transform(X))
        unread = np.flatnonzero(~readable_mask(embeddings))
        if len(unread):
            raise InputError(
                f"{len(unread)} of {len(embeddings)} samples could not be read (rows "
                f"{unread[:10].tolist()}), and there is no prediction for them: leave them out"
            )
        call = partial(predict, self.head_) if method == "predict" else getattr(self.head_, method)
        return call(as_head_input(embeddings))

    def _checked_scored(self, y: Any, n_samples: int) -> np.ndarray:
        """Return the labels or values to compare with predictions."""
        return self._checked_target(y, n_samples, is_all=False)

    def _scorable(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Check labels and weights; leave out unreadable samples with ``on_error="nan"``."""
        check_is_fitted(self, "head_")
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_scored, y, n_samples)
        if sample_weight is not None:
            sample_weight = faults.check(as_weights, sample_weight, n_samples)
        faults.raise_any()
        self.extractor_.check_params()  # `transform` does not check them for ready samples
        if self.extractor_.on_error == "raise":
            return samples, y, sample_weight
        embeddings = np.asarray(self.extractor_.transform(samples))
        kept = rows_that_were_read(embeddings)
        if kept.all():
            return samples, y, sample_weight
        weights = None if sample_weight is None else sample_weight[kept]
        return samples.take(np.flatnonzero(kept)), y[kept], weights

    def _facts(self) -> list[tuple[str, str]]:
        extractor = getattr(self, "extractor_", None) or self._named_extractor() or self.extractor
        return estimator_facts(self, extractor)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = FeatureExtractor().__sklearn_tags__().input_tags
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")
