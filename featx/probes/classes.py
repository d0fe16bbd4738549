"""The classes of samples, numbered."""

from __future__ import annotations

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from featx.exceptions import InputError


def numbered(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give each class of samples a number, in order.

    Parameters
    ----------
    y : ndarray of shape (n_samples,)

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    numbers : ndarray of shape (n_samples,), int64

    Raises
    ------
    ValueError
        There is one class only, or `y` holds no classes.

    Examples
    --------
    >>> numbered(np.array(["b", "a", "b"]))
    (array(['a', 'b'], dtype='<U1'), array([1, 0, 1]))
    """
    check_classification_targets(y)
    classes, numbers = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y holds one class only, {y.tolist()[0]!r}: expected 2 or more")
    return classes, numbers
