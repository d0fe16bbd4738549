"""NearestMeanProbe: the class whose mean is nearest."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.preprocessing import normalize
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.documented import DocumentedEstimator
from featx.probes.classes import numbered
from featx.probes.weights import checked_weights


class NearestMeanProbe(ClassifierMixin, DocumentedEstimator):
    """Nearest class mean by cosine, which learns from one sample of a class as from thousands.

    Rows of length 1 are averaged for each class (Mensink et al. 2013, "Distance-Based Image
    Classification"), and a sample is of the class whose mean has the largest cosine with it.
    scikit-learn's ``NearestCentroid`` takes no weights and warns of features that are zero in a
    class, of which embeddings have many.

    Attributes
    ----------
    means_ : ndarray of shape (n_classes, n_features)
        Of length 1; zeros for a class whose samples have weight 0.
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int

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
        y : array-like of shape (n_samples,)
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        self

        Raises
        ------
        ValueError
            Lengths differ, numbers are missing, there is one class only, and so on.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        self.classes_, numbers = numbered(y)
        weights = checked_weights(sample_weight, len(X))
        shares = np.zeros((len(self.classes_), len(X)), X.dtype)
        shares[numbers, np.arange(len(X))] = weights
        self.means_ = normalize(shares @ normalize(X))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the cosines with the means of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes by how much that of the second is larger.
        """
        cosines = self._cosines(X)
        return cosines[:, 1] - cosines[:, 0] if len(self.classes_) == 2 else cosines

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class whose mean is nearest.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        cosines = self._cosines(X)
        return self.classes_[cosines.argmax(axis=1)]

    def _cosines(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return normalize(X) @ self.means_.T
