"""MomentPCA: principal components from moments, for more rows than fit in memory."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data

from featx.exceptions import InputError, ParameterError
from featx.probes._arrays import (
    apply_in_blocks,
    in_blocks,
    is_lazy,
    numpy_if_array_api,
    weighted_mean,
)


class MomentPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Exact principal components, optionally whitened, of more rows than fit in memory.

    The components are those of scikit-learn's ``PCA``, from the covariance (Hastie et al. 2009,
    section 14.5.1), which adds up over blocks of rows: two passes over them and one decomposition.
    `X` may be a lazy array of the cache (:meth:`EmbeddingCache.open`).

    Parameters
    ----------
    n_components : int or None, default=None
        Number of components; None is the number of features, or of samples if these are fewer.
    whiten : bool, default=False
        True if components are divided by their standard deviations.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features), float64
        Directions in order of decreasing variance; the entry of largest magnitude is positive.
    explained_variance_, explained_variance_ratio_ : ndarray of shape (n_components,), float64
        Variance along each component, and its fraction of the variance of all features.
    mean_ : ndarray of shape (n_features,)
        Mean of each feature, which is subtracted.
    n_features_in_ : int
        Number of features of the embeddings.

    See Also
    --------
    EmbeddingCache.open : Array of stored embeddings that is read when it is sliced.
    EmbeddingMapDisplay : Plot of two components.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import MomentPCA
    >>> X, _ = load_digits(return_X_y=True)
    >>> pca = MomentPCA(10, whiten=True).fit(X)
    >>> pca.transform(X).std(axis=0).round(2).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, n_components: int | None = None, *, whiten: bool = False) -> None:
        self.n_components = n_components
        self.whiten = whiten

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute the components.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.
        y : ignored
            Not used; scikit-learn's pipelines pass it.

        Returns
        -------
        self
            The fitted transformer itself.

        Raises
        ------
        ParameterError
            `n_components` is not from 1 to the smaller of features and samples.
        ValueError
            Values are missing or infinite, or there is only one sample.
        """
        X = numpy_if_array_api(X)
        if is_lazy(X):
            validate_data(self, X[:1])
        else:
            X = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        n_samples, n_features = X.shape
        if n_samples < 2:
            raise InputError("X has 1 sample: expected 2 or more")
        n_components = self._check_n_components(min(n_samples, n_features))
        self.mean_ = weighted_mean(X, np.ones(n_samples))
        gram = np.zeros((n_features, n_features))
        for _, rows in in_blocks(X):
            centered = rows - self.mean_
            gram += centered.T @ centered
        variances, directions = np.linalg.eigh(gram / (n_samples - 1))
        variances = np.maximum(variances[::-1], 0)
        components = directions.T[::-1][:n_components]
        largest = np.abs(components).argmax(axis=1)
        signs = np.sign(components[np.arange(n_components), largest])
        self.components_ = components * signs[:, np.newaxis]
        self.explained_variance_ = variances[:n_components]
        self.explained_variance_ratio_ = self.explained_variance_ / variances.sum()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the components of rows.

        Parameters
        ----------
        X : array-like or LazyEmbeddings of shape (n_samples, n_features)
            Embeddings, in memory or on disk.

        Returns
        -------
        ndarray of shape (n_samples, n_components), float64, or float32 if the rows are
            Components of each row; with ``whiten=True``, divided by their standard deviations.
        """

        def components_of(rows: np.ndarray) -> np.ndarray:
            basis = self.components_.T
            if self.whiten:
                least = np.finfo(np.float64).eps * self.explained_variance_.max(initial=0)
                basis = basis / np.sqrt(np.maximum(self.explained_variance_, least))
            return (rows - self.mean_.astype(rows.dtype)) @ basis.astype(rows.dtype)

        X = numpy_if_array_api(X)
        return apply_in_blocks(self, X, components_of)

    @property
    def _n_features_out(self) -> int:
        """Number of components, for ``get_feature_names_out``."""
        return len(self.components_)

    def _check_n_components(self, n_most: int) -> int:
        if self.n_components is None:
            return n_most
        is_count = isinstance(self.n_components, Integral)
        if not is_count or not 0 < int(self.n_components) <= n_most:
            raise ParameterError(
                f"n_components={self.n_components!r}: expected None, or a number from 1 to "
                f"{n_most}, the smaller of features and samples"
            )
        return int(self.n_components)
