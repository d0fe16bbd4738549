"""What a head is trained and scored on: embeddings, labels and weights, checked first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import column_or_1d

from featx.exceptions import InputError, ParameterError
from featx.extractor import FeatureExtractor
from featx.forward.faults import were_read
from featx.heads.fitting import takes_sample_weight
from featx.targets import as_labels, as_weights

_N_SHOWN = 10


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
    """Return the weights of samples, shape (n_samples,), float64.

    Raises
    ------
    InputError
        Some are faulty, see :func:`~featx.targets.as_weights`, or the head takes none.
    """
    if not takes_sample_weight(head):
        raise InputError(
            f"sample_weight was passed, but the head {type(head).__name__} takes no weights, nor "
            "does what is inside it (a search with `scoring` hands none on): leave them out, or "
            "take another head"
        )
    return as_weights(sample_weight, n_samples)


def checked_target(
    y: Any, n_samples: int, *, convert: Callable[[Any], np.ndarray], owner: str
) -> np.ndarray:
    """Return labels or values, shape (n_samples,) or (n_samples, n_outputs).

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
    n_samples : int
    convert : {as_labels, as_values}
    owner : str
        Name of the estimator, for messages.

    Raises
    ------
    InputError
        There are none, some are missing or unusable, or their number is not that of the samples.
    """
    if y is None:
        raise InputError(f"{owner} requires y to be passed, but the target y is None")
    target = convert(y)
    if len(target) != n_samples:
        raise InputError(f"X has {n_samples} samples and y has {len(target)}: expected as many")
    is_column = target.ndim == 2 and target.shape[1] == 1
    return column_or_1d(target, warn=True) if is_column else target


def checked_classes(classes: Any, y: np.ndarray) -> np.ndarray:
    """Return all class labels, shape (n_classes,), sorted.

    Raises
    ------
    InputError
        They are not labels, or some labels of `y` are not among them.
    """
    known = np.unique(as_labels(classes, name="classes"))
    check_known(y, known, source="classes")
    return known


def check_known(y: np.ndarray, classes: np.ndarray, *, source: str) -> None:
    """Check that labels are among the classes of a head.

    Raises
    ------
    InputError
        Some are not.
    """
    is_text = [array.dtype.kind in "OU" for array in (y, classes)]
    unknown = y if is_text[0] != is_text[1] else np.setdiff1d(y, classes)
    if len(unknown):
        shown = unknown[:_N_SHOWN].tolist()
        raise InputError(f"y has labels that are not in {source}: {shown}")


def rows_that_were_read(embeddings: np.ndarray) -> np.ndarray:
    """Return True for each row that a head can use, as an array of shape (n_samples,).

    The pass has warned of the others.

    Raises
    ------
    InputError
        There is none.
    """
    kept = were_read(embeddings)
    if not kept.any():
        raise InputError(f"none of the {len(kept)} samples could be read")
    return kept
