"""What the estimators share: an extractor, a head, and the way from samples to predictions."""

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

from featx._validation import InputFaults
from featx.exceptions import InputError, ParameterError
from featx.exporting import export, to_keras
from featx.extractor import FeatureExtractor
from featx.fit_tasks import CallbackSupportMixin, FitTask, fit_task, with_callbacks
from featx.forward.faults import were_read
from featx.heads.fitting import as_head_input, predict, train_further
from featx.heads.folds import check_holds_whole_samples_out
from featx.heads.views import as_rows, fit_on_views
from featx.samples.inputs import as_samples
from featx.targets import as_groups, as_weights
from featx.training_data import (
    check_known,
    checked_classes,
    checked_weights,
    rows_that_were_read,
    training_views,
    views_of,
)
from featx.transfer_params import TransferParams
from featx.tuning.data import Data
from featx.tuning.distilling import distill
from featx.tuning.stage import fine_tune

if TYPE_CHECKING:
    import keras


def head_has(method: str) -> Callable[[Any], bool]:
    """Offer a method exactly where the head has it."""

    def check(estimator: Any) -> bool:
        try:
            head = getattr(estimator, "head_", None) or estimator.new_head()
        except ParameterError:
            return False
        getattr(head, method)
        return True

    return check


class TransferEstimator(CallbackSupportMixin, TransformerMixin, TransferParams):
    """An extractor and a head as one estimator; what classifier and regressor share."""

    @with_callbacks
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Embed the samples, train the head on the embeddings, and fine-tune if that was asked for.

        Parameters
        ----------
        X : samples
            Whatever :meth:`FeatureExtractor.transform` takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            For the head, and for fine-tuning.
        groups : array-like of shape (n_samples,), default=None
            Samples of one group never part between what fine-tuning, or a head that
            cross-validates (by a number of folds, or a splitter of groups), trains on and what it
            is judged by.

        Returns
        -------
        self

        Raises
        ------
        ParameterError, InputError
            Before anything is computed; see also :meth:`FeatureExtractor.fit`.
        BadSampleError
            Samples cannot be read.
        """
        self.check_params()
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples)
        new_head = partial(self.new_head, y)
        if sample_weight is not None:
            sample_weight = faults.check(checked_weights, sample_weight, new_head(), n_samples)
        if groups is not None:
            groups = faults.check(as_groups, groups, n_samples)
        faults.raise_any()
        n_views = self._new_extractor().views
        check_holds_whole_samples_out(new_head(), y, groups, n_views=n_views)
        data = Data(samples, y, sample_weight, groups)
        with fit_task(self, samples.given, y, n_parts=2 if self.fine_tune is None else 1) as task:
            if self.fine_tune is None:
                self._fit_head(new_head(), data, task)
            else:
                with task.part("fine-tune"):
                    self._fine_tune(new_head, data)
        self._take_names()
        return self

    def _fit_head(self, head: BaseEstimator, data: Data, task: FitTask) -> None:
        extractor = self._new_extractor()
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

    def _fine_tune(self, new_head: Callable[[], BaseEstimator], data: Data) -> None:
        tune = fine_tune if self.fine_tune.distill_to is None else distill
        outcome = tune(
            self.fine_tune,
            self._new_extractor(),
            new_head,
            data,
            random_state=self.random_state,
            verbose=self.verbose,
        )
        self.extractor_, self.head_ = outcome.extractor, outcome.head
        self.report_ = Bunch(**outcome.report)

    def _take_names(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(self.extractor_, name):
                setattr(self, name, getattr(self.extractor_, name))

    def _partial_fit(self, X: Any, y: Any, **params: Any) -> Self:
        """Embed more samples, and train the head further on them; the parameters are its own."""
        self.check_params()
        if self.fine_tune is not None:
            raise ParameterError("partial_fit trains the head only: pass fine_tune=None")
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples, is_all=False)
        is_first = not hasattr(self, "head_")
        head = self.new_head(y) if is_first else self.head_
        params = {name: value for name, value in params.items() if value is not None}
        if "sample_weight" in params:
            given = params["sample_weight"]
            params["sample_weight"] = faults.check(checked_weights, given, head, n_samples)
        if y is not None and y.ndim == 1 and "classes" in params:
            params["classes"] = faults.check(checked_classes, params["classes"], y)
        elif y is not None and y.ndim == 1 and hasattr(head, "classes_"):
            faults.check(check_known, y, head.classes_, source="the classes of the first call")
        faults.raise_any()
        extractor = self._new_extractor().fit(samples) if is_first else self.extractor_
        views = views_of(extractor, samples)
        kept = rows_that_were_read(views)
        if "sample_weight" in params:
            params["sample_weight"] = np.repeat(params["sample_weight"][kept], views.shape[1])
        start_s = time.perf_counter()
        rows, labels = as_rows(views[kept], y[kept])
        train_further(head, rows, labels, **params)
        self.extractor_, self.head_ = extractor, head
        self._report_head(time.perf_counter() - start_s)
        self._take_names()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels or values.

        Parameters
        ----------
        X : samples

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        return self._head_output("predict", X)

    @available_if(head_has("score_samples"))
    def score_samples(self, X: Any) -> np.ndarray:
        """Return what the head's ``score_samples`` says, such as a log-likelihood.

        Parameters
        ----------
        X : samples

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self._head_output("score_samples", X)

    def transform(self, X: Any) -> np.ndarray:
        """Return the embeddings from which the head predicts: of several views, their mean.

        Parameters
        ----------
        X : samples

        Returns
        -------
        ndarray of shape (n_samples, n_features), float32
        """
        check_is_fitted(self, "head_")
        return self.extractor_.transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the features that :meth:`transform` gives.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        ndarray of shape (n_features,), dtype object
        """
        check_is_fitted(self, "head_")
        return self.extractor_.get_feature_names_out()

    def to_keras(self) -> keras.Model:
        """Make one Keras model of the fitted estimator, which needs neither featx nor scikit-learn.

        Returns
        -------
        keras.Model
            From uint8 pixels (n, h, w, c) of the backbone's size to float32 probabilities
            (n, n_classes), to scores where the head has no probabilities, or to values. Its layers
            are copies, which may be trained. That of a classifier has ``class_names``. It looks at
            each image once, also where the extractor averages several views.

        Raises
        ------
        ParameterError
            The head is not linear.
        BackboneError
            The backbone cannot be copied, or was changed after `fit`.
        """
        check_is_fitted(self, "head_")
        return to_keras(self.extractor_, self.head_)

    def export(self, path: str | os.PathLike[str], *, format: str = "keras") -> None:
        """Write the fitted estimator for a runtime that knows nothing of featx.

        Parameters
        ----------
        path : str or Path
            The folder of a SavedModel; else a file ``.keras``, ``.onnx``, ``.xml`` (OpenVINO, which
            gets a second file ``.bin``) or ``.tflite``. Existing regular files, or a folder that
            holds only a SavedModel, are replaced once the new ones are complete; permissions are
            kept.
        format : {"keras", "saved_model", "onnx", "openvino", "litert"}, default="keras"
            All but "keras" need Keras to run on TensorFlow. The file holds the names of the classes
            and the settings with which a runtime computes in full float32 precision, which OpenVINO
            needs on CPUs with bfloat16: ``{"EXECUTION_MODE_HINT": "ACCURACY"}``. See
            ``featx/exporting.py`` for their places.

        Raises
        ------
        ParameterError
            The format is not known, the path does not suit it, or the head is not linear.
        MissingExtraError
            Packages that write the format are not installed.
        EngineError
            The format cannot hold the network.
        OSError
            The disk is full, the folder cannot be written, and so on; what was there is unharmed.
        """
        check_is_fitted(self, "head_")
        export(self.extractor_, self.head_, path, format=format)

    @abstractmethod
    def _checked_target(self, y: Any, n_samples: int, *, is_all: bool = True) -> np.ndarray:
        """Return labels or values, all or some; raise if no head could be trained on them."""

    def _head_output(self, method: str, X: Any) -> np.ndarray:
        check_is_fitted(self, "head_")
        embeddings = np.asarray(self.extractor_.transform(X))
        unread = np.flatnonzero(~were_read(embeddings))
        if len(unread):
            raise InputError(
                f"{len(unread)} of {len(embeddings)} samples could not be read (rows "
                f"{unread[:10].tolist()}), and there is no prediction for them: leave them out"
            )
        ask = partial(predict, self.head_) if method == "predict" else getattr(self.head_, method)
        return ask(as_head_input(embeddings))

    def _scorable(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Check labels and weights; leave out samples unread under ``on_error="nan"``."""
        check_is_fitted(self, "head_")
        samples = as_samples(X)
        n_samples = len(samples)
        faults = InputFaults()
        y = faults.check(self._checked_target, y, n_samples, is_all=False)
        if sample_weight is not None:
            sample_weight = faults.check(as_weights, sample_weight, n_samples)
        faults.raise_any()
        if self.extractor_.on_error == "raise":
            return samples.given, y, sample_weight
        embeddings = np.asarray(self.extractor_.transform(samples))
        kept = rows_that_were_read(embeddings)
        if kept.all():
            return samples.given, y, sample_weight
        weights = None if sample_weight is None else sample_weight[kept]
        return samples.take(np.flatnonzero(kept)), y[kept], weights

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = FeatureExtractor().__sklearn_tags__().input_tags
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")
