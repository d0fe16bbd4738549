"""What the estimators share: an extractor, a head, and the way from samples to predictions."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from featx._validation import ParameterFaults
from featx.cloning import clone_sharing_models
from featx.exceptions import InputError
from featx.exporting import export, to_keras
from featx.extractor import FeatureExtractor
from featx.heads import (
    as_head_input,
    fit_head,
    make_head,
    seed_head,
    set_head_params,
)
from featx.samples.inputs import as_samples
from featx.training_data import (
    checked_labels,
    checked_weights,
    rows_that_were_read,
    training_embeddings,
    were_read,
)
from featx.tuning.data import Data
from featx.tuning.distilling import check_teacher, distill
from featx.tuning.params import FineTune
from featx.tuning.stage import fine_tune

if TYPE_CHECKING:
    import keras


def head_has(method: str) -> Callable[[Any], bool]:
    """Offer a method exactly where the head has it."""

    def check(estimator: Any) -> bool:
        head = getattr(estimator, "head_", None) or estimator.new_head()
        getattr(head, method)
        return True

    return check


class TransferEstimator(TransformerMixin, BaseEstimator, ABC):
    """An extractor and a head as one estimator; what classifier and regressor share."""

    _heads: dict[str, Callable[[], BaseEstimator]]

    def __init__(
        self,
        extractor: Any = None,
        head: Any = "logistic",
        fine_tune: Any = None,
        *,
        random_state: Any = None,
        verbose: Any = 0,
    ) -> None:
        self.extractor = extractor
        self.head = head
        self.fine_tune = fine_tune
        self.random_state = random_state
        self.verbose = verbose

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
            Samples of one group never part between what fine-tuning trains on and what it is
            judged by.

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
        head, extractor = self.new_head(), self._new_extractor()
        X = list(X) if isinstance(X, Iterator) else X
        n_samples = len(as_samples(X))
        y = self._checked_target(checked_labels(y, n_samples, owner=type(self).__name__))
        if sample_weight is not None:
            sample_weight = checked_weights(sample_weight, head, n_samples)
        groups = None if groups is None else np.asarray(groups)
        check_consistent_length(y, groups)
        if self.fine_tune is None:
            self._fit_head(extractor, X, y, sample_weight)
        else:
            self._fine_tune(extractor, Data(X, y, sample_weight, groups))
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.extractor_, name):
                setattr(self, name, getattr(self.extractor_, name))
        return self

    def _fit_head(
        self, extractor: FeatureExtractor, X: Any, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> None:
        head = self.new_head()
        embeddings = training_embeddings(extractor, X)
        kept: Any = rows_that_were_read(embeddings, job="fit")
        if kept.all():
            kept = slice(None)  # which copies nothing
        start_s = time.perf_counter()
        weights = None if sample_weight is None else sample_weight[kept]
        fit_head(head, as_head_input(embeddings[kept]), y[kept], sample_weight=weights)
        self.extractor_, self.head_ = extractor, head
        report = extractor.report_
        seconds = {**report.seconds, "head": time.perf_counter() - start_s}
        self.report_ = Bunch(**{**report, "seconds": seconds})

    def _fine_tune(self, extractor: FeatureExtractor, data: Data) -> None:
        tune = fine_tune if self.fine_tune.distill_to is None else distill
        outcome = tune(
            self.fine_tune,
            extractor,
            self.new_head,
            data,
            random_state=self.random_state,
            verbose=self.verbose,
        )
        self.extractor_, self.head_ = outcome.extractor, outcome.head
        self.report_ = Bunch(**outcome.report)

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

    def transform(self, X: Any) -> np.ndarray:
        """Return the embeddings that the head sees.

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
            are copies, which may be trained. That of a classifier has ``class_names``.

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
            gets a second file ``.bin``) or ``.tflite``. Replaced, whole, if it is there.
        format : {"keras", "saved_model", "onnx", "openvino", "litert"}, default="keras"
            All but "keras" need Keras to run on TensorFlow. The names of the classes are inside:
            see ``featx/exporting.py`` for where.

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

    def check_params(self) -> None:
        """Check the parameters, those of extractor and head too, as `fit` does first of all.

        Raises
        ------
        ParameterError
            Some have faulty values; the message lists all of them.
        """
        faults = ParameterFaults(type(self).__name__)
        extractor = self._named_extractor() or self.extractor
        if isinstance(extractor, FeatureExtractor):
            faults.check_part(extractor.check_params, prefix="extractor__")
        else:
            faults.add("extractor", extractor, "a FeatureExtractor, a backbone or None.")
        faults.check_part(lambda: make_head(self.head, self._heads))
        if isinstance(self.fine_tune, FineTune):
            faults.check_part(self.fine_tune.check_params, prefix="fine_tune__")
            if self.fine_tune.distill_to is not None:
                faults.check_part(lambda: check_teacher(make_head(self.head, self._heads)))
        elif self.fine_tune is not None:
            faults.add("fine_tune", self.fine_tune, "a FineTune, or None.")
        faults.raise_any()

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters; those of an extractor or head given by name are there as well.

        Parameters
        ----------
        deep : bool, default=True
            Whether to return the parameters of the extractor and the head too.

        Returns
        -------
        dict
        """
        params = super().get_params(deep)
        if deep:
            parts = {"extractor": self._named_extractor(), "head": self._named_head()}
            for prefix, part in parts.items():
                if part is not None:
                    inner = part.get_params()
                    params |= {f"{prefix}__{name}": value for name, value in inner.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; one inside a named extractor or head turns the name into the object.

        ``head__C`` reaches the classifier of a head that is a pipeline with scaling.

        Parameters
        ----------
        **params : dict

        Returns
        -------
        self
        """
        nested = {name: value for name, value in params.items() if name.startswith("head__")}
        rest = {name: value for name, value in params.items() if name not in nested}
        replaced = {name: rest.pop(name) for name in ("extractor", "head") if name in rest}
        super().set_params(**replaced)
        if any(name.startswith("extractor__") for name in rest):
            self.extractor = self._named_extractor() or self.extractor
        super().set_params(**rest)
        if nested:
            if isinstance(self.head, str):
                self.head = make_head(self.head, self._heads)
            inner = {name.removeprefix("head__"): value for name, value in nested.items()}
            set_head_params(self.head, inner)
        return self

    @abstractmethod
    def _checked_target(self, y: np.ndarray) -> np.ndarray:
        """Return labels or values; raise if no head could be trained on them."""

    def _named_extractor(self) -> FeatureExtractor | None:
        """Return the extractor that a name, a model or None stands for; None if it is one."""
        if hasattr(self.extractor, "get_params"):
            return None
        return FeatureExtractor() if self.extractor is None else FeatureExtractor(self.extractor)

    def _named_head(self) -> BaseEstimator | None:
        known = isinstance(self.head, str) and self.head in self._heads
        return self._heads[self.head]() if known else None

    def new_head(self) -> BaseEstimator:
        """Make the head that `fit` trains, not fitted yet."""
        head = make_head(self.head, self._heads)
        seed_head(head, self.random_state)
        return head

    def _new_extractor(self) -> FeatureExtractor:
        extractor = self._named_extractor() or clone(self.extractor)
        if self.verbose:
            extractor.set_params(verbose=self.verbose)
        return extractor

    def _head_output(self, method: str, X: Any) -> np.ndarray:
        check_is_fitted(self, "head_")
        embeddings = np.asarray(self.extractor_.transform(X))
        unread = np.flatnonzero(~were_read(embeddings))
        if len(unread):
            raise InputError(
                f"{len(unread)} of {len(embeddings)} samples could not be read (rows "
                f"{unread[:10].tolist()}), and there is no prediction for them: leave them out"
            )
        return getattr(self.head_, method)(as_head_input(embeddings))

    def _scorable(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Leave out, with a warning, what could not be read with ``on_error="nan"``."""
        check_is_fitted(self, "head_")
        if self.extractor_.on_error == "raise":
            return X, y, sample_weight
        embeddings = np.asarray(self.extractor_.transform(X))
        kept = rows_that_were_read(embeddings, job="score")
        if kept.all():
            return X, y, sample_weight
        check_consistent_length(kept, y, sample_weight)
        weights = None if sample_weight is None else np.asarray(sample_weight)[kept]
        return as_samples(X).take(np.flatnonzero(kept)), np.asarray(y)[kept], weights

    def __sklearn_clone__(self) -> Self:
        return clone_sharing_models(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = FeatureExtractor().__sklearn_tags__().input_tags
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")
