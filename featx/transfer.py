"""What the estimators share: an extractor, a head, and the way from samples to predictions."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from featx._validation import ParameterFaults
from featx.cloning import clone_sharing_models
from featx.exceptions import BadSampleWarning, InputError, ParameterError
from featx.extractor import FeatureExtractor
from featx.heads import (
    as_head_input,
    fit_head,
    make_head,
    seed_head,
    set_head_params,
)


def head_has(method: str) -> Callable[[Any], bool]:
    """Offer a method exactly where the head has it."""

    def check(estimator: Any) -> bool:
        head = getattr(estimator, "head_", None) or estimator._new_head()
        getattr(head, method)
        return True

    return check


def training_embeddings(extractor: FeatureExtractor, X: Any) -> np.ndarray:
    """Fit an extractor and embed samples as vectors: (n_samples, n_features), float32.

    Raises
    ------
    ParameterError
        The embeddings are no vectors; raised before they are computed.
    """
    if extractor.pooling is None and len(extractor.fit(X).feature_shape_) != 1:
        raise ParameterError(
            f"extractor has pooling=None, which gives embeddings of shape "
            f"{extractor.feature_shape_}: a head needs vectors, so pass another pooling"
        )
    return np.asarray(extractor.fit_transform(X))


def were_read(embeddings: np.ndarray) -> np.ndarray:
    """Tell of each row, (n_samples,) bool, whether its sample could be read."""
    return ~np.isnan(embeddings[:, 0])


class TransferEstimator(BaseEstimator, ABC):
    """An extractor and a head as one estimator; what classifier and regressor share."""

    _heads: dict[str, Callable[[], BaseEstimator]]

    def __init__(
        self,
        extractor: Any = None,
        head: Any = "logistic",
        fine_tune: Any = None,
        *,
        random_state: Any = None,
        verbose: int | bool = 0,
    ) -> None:
        self.extractor = extractor
        self.head = head
        self.fine_tune = fine_tune
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Embed the samples and train the head on the embeddings.

        Parameters
        ----------
        X : samples
            Whatever :meth:`FeatureExtractor.transform` takes.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels or values.
        sample_weight : array-like of shape (n_samples,), default=None
            For the head.

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
        head, extractor = self._new_head(), self._new_extractor()
        y = self._checked_y(X, y)
        embeddings = training_embeddings(extractor, X)
        kept = self._rows_to_train_on(embeddings)
        start_s = time.perf_counter()
        weights = None if sample_weight is None else np.asarray(sample_weight)[kept]
        fit_head(head, as_head_input(embeddings[kept]), y[kept], sample_weight=weights)
        self.extractor_, self.head_ = extractor, head
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(extractor, name):
                setattr(self, name, getattr(extractor, name))
        report = extractor.report_
        seconds = {**report.seconds, "head": time.perf_counter() - start_s}
        self.report_ = Bunch(**{**report, "seconds": seconds})
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
        if self.fine_tune is not None:
            expected = "None, since fine-tuning is not part of this version."
            faults.add("fine_tune", self.fine_tune, expected)
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
            self.head = self._named_head() or self.head
            inner = {name.removeprefix("head__"): value for name, value in nested.items()}
            set_head_params(self.head, inner)
        return self

    @abstractmethod
    def _check_target(self, y: np.ndarray) -> None:
        """Raise if no head could be trained on these labels or values."""

    def _named_extractor(self) -> FeatureExtractor | None:
        """Return the extractor that a name, a model or None stands for; None if it is one."""
        if hasattr(self.extractor, "get_params"):
            return None
        return FeatureExtractor() if self.extractor is None else FeatureExtractor(self.extractor)

    def _named_head(self) -> BaseEstimator | None:
        known = isinstance(self.head, str) and self.head in self._heads
        return self._heads[self.head]() if known else None

    def _new_head(self) -> BaseEstimator:
        head = make_head(self.head, self._heads)
        seed_head(head, self.random_state)
        return head

    def _new_extractor(self) -> FeatureExtractor:
        extractor = self._named_extractor() or clone(self.extractor)
        if self.verbose:
            extractor.set_params(verbose=self.verbose)
        return extractor

    def _rows_to_train_on(self, embeddings: np.ndarray) -> np.ndarray | slice:
        kept = were_read(embeddings)
        n_unread = len(kept) - np.count_nonzero(kept)
        if n_unread == 0:
            return slice(None)
        if n_unread == len(kept):
            raise InputError(f"none of the {len(kept)} samples could be read")
        warnings.warn(
            BadSampleWarning(
                f"{n_unread} of {len(kept)} samples could not be read and were left out of fit"
            ),
            stacklevel=3,
        )
        return kept

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

    def _checked_y(self, X: Any, y: Any) -> np.ndarray:
        if y is None:
            raise InputError(
                f"{type(self).__name__} requires y to be passed, but the target y is None"
            )
        y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
        n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
        if len(y) != n_samples:
            raise InputError(f"X has {n_samples} samples and y has {len(y)}: expected as many")
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        self._check_target(y)
        return y

    def __sklearn_clone__(self) -> Self:
        return clone_sharing_models(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "head_")
