"""What a head is trained and scored on: embeddings, labels and weights, checked first."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, column_or_1d

from featx._warning import warn_caller
from featx.exceptions import BadSampleWarning, InputError, ParameterError
from featx.extractor import FeatureExtractor
from featx.forward.faults import were_read
from featx.heads.fitting import takes_sample_weight


def training_views(extractor: FeatureExtractor, X: Any) -> np.ndarray:
    """Fit an extractor and embed views as vectors: (n_samples, n_views, n_features), float32.

    Raises
    ------
    ParameterError
        The embeddings are no vectors; raised before they are computed.
    """
    if extractor.views == 1:
        return training_embeddings(extractor, X)[:, np.newaxis]
    return views_of(extractor.fit(X), X)


def views_of(extractor: FeatureExtractor, X: Any) -> np.ndarray:
    """Embed views with a fitted extractor: (n_samples, n_views, n_features), float32.

    Raises
    ------
    ParameterError
        The embeddings are no vectors; raised before they are computed.
    """
    check_vectors(extractor)
    if extractor.views == 1:
        return np.asarray(extractor.transform(X))[:, np.newaxis]
    return extractor.transform_views(X)


def training_embeddings(extractor: FeatureExtractor, X: Any) -> np.ndarray:
    """Fit an extractor and embed samples as vectors: (n_samples, n_features), float32.

    Raises
    ------
    ParameterError
        The embeddings are no vectors; raised before they are computed.
    """
    if extractor.pooling is None:
        check_vectors(extractor.fit(X))
    return np.asarray(extractor.fit_transform(X))


def check_vectors(extractor: FeatureExtractor) -> None:
    """Check that the embeddings of a fitted extractor are vectors.

    Raises
    ------
    ParameterError
        They are not, so that no head can be trained on them.
    """
    if len(extractor.feature_shape_) != 1:
        raise ParameterError(
            f"extractor has pooling=None, which gives embeddings of shape "
            f"{extractor.feature_shape_}: a head needs vectors, so pass another pooling"
        )


def checked_weights(sample_weight: Any, head: BaseEstimator, n_samples: int) -> np.ndarray:
    """Return the weights of samples, shape (n_samples,).

    Raises
    ------
    InputError
        There are not as many as samples, or the head cannot be fitted with weights.
    """
    if not takes_sample_weight(head):
        raise InputError(
            f"sample_weight was passed, but the head {type(head).__name__} takes no weights, nor "
            "does what is inside it (a search with `scoring` hands none on): leave them out, or "
            "take another head"
        )
    weights = np.asarray(sample_weight)
    if weights.shape != (n_samples,):
        raise InputError(
            f"sample_weight.shape == {weights.shape}, expected {(n_samples,)}: one for each sample"
        )
    return weights


def checked_labels(y: Any, n_samples: int, *, owner: str) -> np.ndarray:
    """Return labels or values, shape (n_samples,) or (n_samples, n_outputs).

    Raises
    ------
    InputError
        There are none, not as many as samples, or some are missing.
    """
    if y is None:
        raise InputError(f"{owner} requires y to be passed, but the target y is None")
    _check_none_missing(y)
    y = check_array(y, ensure_2d=False, dtype=None, input_name="y")
    if len(y) != n_samples:
        raise InputError(f"X has {n_samples} samples and y has {len(y)}: expected as many")
    return column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y


def _check_none_missing(y: Any) -> None:
    labels = np.asarray(y)
    if labels.dtype != object:
        return
    # pandas.NA is equal to nothing and no truth value; NaN is not equal to itself.
    missing = [
        row
        for row, label in enumerate(labels.ravel().tolist())
        if label is None or type(label).__name__ == "NAType" or label != label
    ]
    if missing:
        raise InputError(
            f"y has {len(missing)} missing labels (rows {missing[:10]}): leave these samples out"
        )


def rows_that_were_read(embeddings: np.ndarray, *, n_unread: int, job: str) -> np.ndarray:
    """Tell of each row, (n_samples,) bool, whether a head can use it.

    Of samples that could not be read, `n_unread`, the pass has warned; others are warned of here.

    Raises
    ------
    InputError
        It can use none.
    """
    kept = were_read(embeddings)
    if kept.all():
        return kept
    if not kept.any():
        raise InputError(f"none of the {len(kept)} samples could be read")
    n_left_out = len(kept) - np.count_nonzero(kept)
    if n_left_out > n_unread:
        warn_caller(
            BadSampleWarning(
                f"the backbone gives NaN for {n_left_out - n_unread} of {len(kept)} samples, which "
                f"were left out of {job}"
            )
        )
    return kept
