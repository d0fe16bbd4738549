"""Whatever a person passes as ``X``, recognised: see :func:`as_samples`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from featx.exceptions import InputError
from featx.samples.base import ArraySamples, Samples, ValueSamples
from featx.samples.item_samples import ItemSamples, is_missing

_ONE_SAMPLE = (str, bytes, os.PathLike, Image.Image)
_KINDS = (*_ONE_SAMPLE, bytearray, memoryview, np.ndarray)


def as_samples(X: Any) -> Samples:
    """Turn whatever a person passes as ``X`` into samples.

    Parameters
    ----------
    X : list, array, Series or one-column DataFrame of paths; list of encoded bytes, PIL images or \
arrays; array, memmap or h5py dataset of shape (n, h, w), (n, h, w, c) or (n, p)

    Returns
    -------
    Samples

    Raises
    ------
    InputError
        `X` is none of these, or is empty.

    Examples
    --------
    >>> len(as_samples(["a.jpg", "b.jpg"]))
    2
    >>> as_samples(np.zeros((3, 8, 8), np.uint8)).array_shape
    (8, 8)
    """
    if isinstance(X, _ONE_SAMPLE):
        raise InputError(
            f"X is a single {type(X).__name__}: expected several samples. Pass [X] for one "
            "sample, or load_image_folder(path).data for a folder of images."
        )
    if isinstance(X, Mapping):
        raise InputError(
            f"X is a {type(X).__name__} with {', '.join(map(repr, list(X)[:5]))}: expected "
            "samples. Of what load_image_folder(path) returns, pass .data."
        )
    if hasattr(X, "toarray"):
        raise InputError("X is a sparse matrix, which no backbone takes: pass X.toarray()")
    samples = _samples_of_array(_column(X)) if _is_array(X) else _samples_of_sequence(X)
    if not len(samples):
        raise InputError(
            f"Found array with 0 sample(s) (shape={np.shape(X)}) while a minimum of 1 is required."
        )
    return samples


def _is_array(X: Any) -> bool:
    return hasattr(X, "iloc") or hasattr(X, "to_numpy") or hasattr(X, "__array__")


def _column(X: Any) -> Any:
    """Return the only column of a frame or of an (n, 1) array of objects; anything else as is."""
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        if len(X.columns) != 1 and not _is_numeric(X.to_numpy()):
            raise InputError(
                f"X is a DataFrame with {len(X.columns)} columns {list(X.columns)[:5]}: expected "
                "one column of paths or images. Select it, or use ColumnTransformer."
            )
        X = X.to_numpy()
    elif hasattr(X, "to_numpy"):
        X = X.to_numpy()
    if not hasattr(X, "dtype") or not hasattr(X, "shape"):
        X = np.asarray(X)
    if not _is_numeric(X) and len(X.shape) == 2 and X.shape[1] == 1:
        X = X[:, 0]
    return X


def _is_numeric(X: Any) -> bool:
    return getattr(X, "dtype", None) is not None and getattr(X.dtype, "kind", "O") in "biuf"


def _samples_of_array(X: Any) -> Samples:
    ndim = len(X.shape)
    if _is_numeric(X):
        if ndim in (3, 4):
            return ArraySamples(X)
        if ndim == 2 and X.shape[0] and not X.shape[1]:
            raise InputError(
                f"Found array with 0 feature(s) (shape={tuple(X.shape)}) while a minimum of 1 is "
                "required."
            )
        if ndim == 2:
            return ValueSamples(X)
        raise InputError(
            f"X has shape {tuple(X.shape)}. Expected 2D array (n, p) for a backbone that takes "
            f"vectors, or images (n, h, w) or (n, h, w, c), got {ndim}D array instead. Reshape "
            "your data: X[np.newaxis] if it is a single sample."
        )
    if X.dtype.kind == "S":
        raise InputError(
            "X is a numpy array of bytes (dtype S), which has lost trailing zero bytes of the "
            "encoded images: pass a list of bytes, or an array of dtype object"
        )
    if hasattr(X, "asstr"):
        X = X.asstr()[...]  # an HDF5 dataset of paths
    if X.dtype.kind == "c":
        raise InputError("Complex data not supported: X has complex values")
    if ndim == 2 and X.dtype.kind == "O" and all(isinstance(x, Real) for x in X.flat):
        return _samples_of_array(X.astype(np.float64))
    if ndim != 1:
        raise InputError(
            f"X has shape {tuple(X.shape)} and dtype {X.dtype}: expected one column of paths or "
            "images"
        )
    return _samples_of_sequence(X.tolist())


def _samples_of_sequence(X: Any) -> Samples:
    try:
        items = list(X)
    except TypeError as exc:
        raise InputError(
            f"X is a {type(X).__name__}: expected a list, array or Series of samples"
        ) from exc
    if _are_one_column(items):
        return _samples_of_sequence([item[0] for item in items])
    first = next((item for item in items if not is_missing(item)), None)
    if isinstance(first, (list, tuple, int, float, np.number)):
        try:
            array = np.asarray(items)
        except ValueError as exc:
            raise InputError(f"X is a list of lists that make no array: {exc}") from exc
        if array.ndim > 1 or _is_numeric(array):
            return _samples_of_array(array)
    foreign = [
        row for row, item in enumerate(items) if not (isinstance(item, _KINDS) or is_missing(item))
    ]
    if foreign:
        shown = ", ".join(f"[{row}] {type(items[row]).__name__}" for row in foreign[:10])
        raise InputError(
            f"{len(foreign)} of {len(items)} samples are of no known kind: {shown}. Expected "
            "paths, encoded bytes, PIL images or arrays."
        )
    return ItemSamples(items)


def _are_one_column(items: list[Any]) -> bool:
    """Tell whether items are rows, of one column, of what is no number."""
    if not all(isinstance(item, (list, tuple)) and len(item) == 1 for item in items):
        return False
    inner = [item[0] for item in items if not is_missing(item[0])]
    return bool(inner) and all(isinstance(item, _ONE_SAMPLE) for item in inner)
