"""NearestMeanProbe: the class whose mean is nearest."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import normalize

from featx.probes._arrays import (
    ArrayApiMixin,
    check_same_place,
    in_memory,
    inner_products,
    like,
    precision,
    rows_for,
    take,
    to_numpy,
    to_same_device,
    validated,
)
from featx.probes._validation import checked_weights, encode_classes, predict_class_indices


class NearestMeanProbe(ArrayApiMixin, ClassifierMixin, BaseEstimator):
    """Nearest class mean by cosine, which learns from one sample of a class as from thousands.

    Rows of length 1 are averaged for each class (Mensink et al. 2013, "Distance-Based Image
    Classification"), and a sample is of the class whose mean has the largest cosine with it.
    scikit-learn's ``NearestCentroid`` takes no weights and warns of features that are zero in a
    class, of which embeddings have many.

    With ``array_api_dispatch=True`` rows may be arrays of another library, such as torch tensors on
    a GPU; answers are there, too, but for classes that are words.

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
        X, y = validated(self, in_memory(X), y)
        self.classes_, numbers = encode_classes(y)
        weights = checked_weights(sample_weight, len(y))
        shares = np.zeros((len(self.classes_), len(y)), precision(X))
        shares[numbers, np.arange(len(y))] = weights
        self.means_ = normalize(like(shares, X) @ normalize(X))
        self.classes_ = to_same_device(self.classes_, X)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the cosines with the means of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes by how much that of the second is larger.
        """
        cosines = self._cosines(X, "decision_function")
        return cosines[:, 1] - cosines[:, 0] if self.means_.shape[0] == 2 else cosines

    def predict(self, X: Any) -> np.ndarray:
        """Predict the class whose mean is nearest.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        array of shape (n_samples,)
        """
        cosines = self._cosines(X, "predict")
        return take(self.classes_, to_numpy(predict_class_indices(cosines)))

    def _cosines(self, X: Any, method: str) -> Any:
        rows = rows_for(self, X)
        check_same_place(self, rows, self.means_, method)
        return inner_products(normalize(rows), self.means_)
