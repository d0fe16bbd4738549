"""Rows that are arrays of another library, such as torch tensors on a GPU.

They are what scikit-learn's Array API dispatch lets through (``array_api_dispatch=True``). What
multiplies rows is computed where they are; what is small, decompositions and searches, by numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn

from featx.exceptions import InputError

NUMBERS_AT_ONCE = 2**27  # on a GPU: rows, and what is made of them


def is_foreign(X: Any) -> bool:
    """Tell whether an array is of another library than numpy, and is to stay so."""
    if isinstance(X, np.ndarray) or not sklearn.get_config()["array_api_dispatch"]:
        return False
    import array_api_compat

    return array_api_compat.is_array_api_obj(X) and not array_api_compat.is_numpy_array(X)


def namespace(X: Any) -> Any:
    """Return the functions of the Array API for an array."""
    if isinstance(X, np.ndarray):
        return np
    import array_api_compat

    return array_api_compat.array_namespace(X)


def float_dtypes(X: Any) -> list[Any]:
    """Return double and single precision, as the library of an array calls them."""
    xp = namespace(X) if is_foreign(X) else np
    return [xp.float64, xp.float32]


def precision(X: Any) -> np.dtype:
    """Return the dtype of floats in numpy's words, float32 or float64."""
    if isinstance(X.dtype, np.dtype):
        return X.dtype
    is_single = X.dtype == namespace(X).float32
    return np.dtype(np.float32 if is_single else np.float64)


def cast(array: Any, dtype: np.dtype) -> Any:
    """Convert to float32 or float64, in numpy's words; what is of that dtype is not copied."""
    if isinstance(array, np.ndarray):
        return array.astype(dtype, copy=False)
    xp = namespace(array)
    return xp.astype(array, getattr(xp, dtype.name), copy=False)


def like(array: np.ndarray, X: Any, dtype: np.dtype | None = None) -> Any:
    """Move an array of numpy's to the library and the device of another.

    Parameters
    ----------
    array : ndarray
    X : array or view
    dtype : dtype, default=None
        Of what is returned, in numpy's words; None keeps it.
    """
    array = array if dtype is None else array.astype(dtype, copy=False)
    if isinstance(X.dtype, np.dtype):
        return array
    import array_api_compat

    # torch shares their memory, and takes none that is read-only or goes backwards.
    owned = np.require(array, requirements=["C", "W"])
    return namespace(X).asarray(owned, device=array_api_compat.device(X))


def to_numpy(array: Any) -> np.ndarray:
    """Copy an array to numpy, from whatever device; one of numpy's is returned as it is."""
    if isinstance(array, np.ndarray):
        return array
    import array_api_compat

    if array_api_compat.is_torch_array(array):  # not all versions hand them to another device
        return array.detach().cpu().numpy()
    # Older versions of numpy make even copies read-only.
    return np.require(np.from_dlpack(array, device="cpu", copy=True), requirements="W")


def without_gradients(X: Any) -> Any:
    """Return an array that is not part of a computation that torch is to differentiate."""
    if not is_foreign(X):
        return X
    import array_api_compat

    return X.detach() if array_api_compat.is_torch_array(X) else X


def numpy_if_foreign(values: Any) -> Any:
    """Copy labels, weights or groups to numpy if they are an array of another library."""
    return to_numpy(values) if is_foreign(values) else values


def moved_beside(array: Any, X: Any) -> Any:
    """Move what numpy has to where the rows are; words, and single numbers, cannot go there."""
    is_movable = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
    return like(array, X) if is_movable and is_foreign(X) else array


def take(X: Any, rows: np.ndarray) -> Any:
    """Return some rows of an array."""
    if isinstance(X, np.ndarray):
        return X[rows]
    return namespace(X).take(X, like(rows, X), axis=0)


def inner_products(rows: Any, others: Any) -> Any:
    """Multiply each row (n, d) with each other (k, d): (n, k), in the higher precision of both."""
    if not isinstance(rows, np.ndarray):
        xp = namespace(rows)
        dtype = xp.result_type(rows, others)  # not all libraries multiply what differs in it
        rows, others = (xp.astype(each, dtype, copy=False) for each in (rows, others))
    return rows @ others.T


class ArrayApiMixin:
    """A probe that takes rows of other libraries than numpy, as scikit-learn is told."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.array_api_support = True
        return tags


def check_same_place(estimator: Any, X: Any, fitted: Any, method: str) -> None:
    """Check that rows are of the library, and on the device, of those that were fitted.

    Parameters
    ----------
    estimator : estimator
    X : array
    fitted : array
        Something that was fitted.
    method : str
        What is called.

    Raises
    ------
    InputError
        They are not.
    """
    if isinstance(X, np.ndarray) and isinstance(fitted, np.ndarray):
        return
    import array_api_compat

    place, own = [
        (namespace(each).__name__.removeprefix("array_api_compat."), array_api_compat.device(each))
        for each in (X, fitted)
    ]
    if place != own:
        raise InputError(
            f"X is of {place[0]} on {place[1]}, what was fitted of {own[0]} on {own[1]}: inputs of "
            f"{type(estimator).__name__}.{method}() must use the same namespace and device"
        )
