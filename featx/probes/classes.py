"""The classes of samples, numbered."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from featx.exceptions import InputError
from featx.probes.arrays import namespace


def decided(scores: Any) -> Any:
    """Return the numbers of the classes with the largest scores, (n,).

    Parameters
    ----------
    scores : array of shape (n, k), or (n,) or (n, 1) for two classes

    Examples
    --------
    >>> decided(np.array([-1.0, 2.0])), decided(np.array([[0.1, 0.7, 0.2]]))
    (array([0, 1]), array([1]))
    """
    xp = namespace(scores)
    if scores.ndim == 2 and scores.shape[1] > 1:
        return xp.argmax(scores, axis=1)
    return xp.astype(xp.reshape(scores, (-1,)) > 0, xp.int64)


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
