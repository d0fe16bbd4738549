"""NearestMeanProbe: the class whose mean is nearest."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.preprocessing import normalize

from featx.probes._arrays import as_array_like, float_dtype, inner_products
from featx.probes._base import CosineProbe
from featx.probes._classes_and_folds import check_weights


class NearestMeanProbe(CosineProbe):
    """Nearest class mean by cosine, which works with one sample per class as with thousands.

    The unit vectors of each class are averaged (Mensink et al. 2013, "Distance-Based Image
    Classification"), and the class whose mean has the largest cosine with a sample is predicted.
    scikit-learn's ``NearestCentroid`` takes no weights, and warns of features that are zero in a
    class, as many features of embeddings are.

    After ``sklearn.set_config(array_api_dispatch=True)``, rows may be arrays of another library,
    such as torch tensors on a GPU; predictions are on their device too, unless classes are strings.

    Attributes
    ----------
    means_ : ndarray of shape (n_classes, n_features)
        Means of length 1; zeros for a class whose samples have weight 0.
    classes_ : ndarray of shape (n_classes,)
        Class labels, sorted.
    n_features_in_ : int
        Number of features of the embeddings.

    See Also
    --------
    KNNProbe : Classification by the nearest samples.
    LinearProbe : Logistic regression whose strength is selected.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import NearestMeanProbe
    >>> X, y = load_digits(return_X_y=True)
    >>> NearestMeanProbe().fit(X, y).score(X, y) > 0.85
    True
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Average the samples of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights in the means, 0 or more; None is 1 for each sample.

        Returns
        -------
        self
            The fitted probe itself.

        Raises
        ------
        ValueError
            Lengths differ, values are missing or infinite, or there is only one class.
        """
        X, y, class_indices = self._fit_classes(X, y)
        weights = np.zeros((self.classes_.shape[0], len(y)), float_dtype(X))
        weights[class_indices, np.arange(len(y))] = check_weights(sample_weight, len(y))
        self.means_ = normalize(as_array_like(weights, X) @ normalize(X))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the cosines with the means of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        array of shape (n_samples, n_classes), or (n_samples,) for two classes
            Cosines; for two classes the cosine with the second less that with the first.
        """
        cosines = self._compute_scores(X, "decision_function")
        return cosines[:, 1] - cosines[:, 0] if self.means_.shape[0] == 2 else cosines

    def _compute_scores(self, X: Any, method: str) -> Any:
        return inner_products(self._unit_rows(X, "means_", method), self.means_)
