"""``as_samples``: the samples in ``X``, recognized whatever ``X`` is."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from featx._urls import is_url, local_path
from featx.exceptions import InputError, UnreadableImageError
from featx.inputs.containers import check_is_sequence, is_numeric, type_name, unwrapped_container
from featx.inputs.items import ONE_SAMPLE, as_item, is_encoded_record, is_missing, is_sample
from featx.inputs.lazy import LazySamples, item_at
from featx.inputs.reader import UNKNOWN_READER
from featx.inputs.samples import ArraySamples, Samples, ValueSamples
from featx.inputs.sequence import ItemSamples
from featx.inputs.url_samples import UrlSamples


def check_columns(estimator: BaseEstimator, samples: Samples, *, reset: bool) -> None:
    """Store the columns of vectors and frames on an estimator, or check that they are the same.

    They become ``n_features_in_`` and, from a frame, ``feature_names_in_``. Other samples have no
    columns. A list of images may follow a frame of images. If the number or the names of the
    columns differ, and `reset` is False, InputError is raised.
    """
    if reset:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)
    if hasattr(samples.given, "columns"):
        columns = samples.given
    elif isinstance(samples, ValueSamples):
        columns = samples.array
    else:
        return
    if reset or hasattr(estimator, "n_features_in_"):
        try:
            validate_data(estimator, columns, skip_check_array=True, reset=reset)
        except ValueError as exc:
            raise InputError(str(exc)) from exc


def as_samples(X: Any) -> Samples:
    """Return the samples in ``X``, of any supported type.

    `X` may be a list, array, Series or one-column DataFrame of paths; a list of encoded bytes, PIL
    images or arrays; an array, memmap or h5py dataset of shape (n, h, w), (n, h, w, c) or (n, p); a
    tensor or column of another library; a lazy sequence of such items; or samples. InputError is
    raised if it is none of these, or is empty.

    Examples
    --------
    >>> len(as_samples(["a.jpg", "b.jpg"]))
    2
    >>> as_samples(np.zeros((3, 8, 8), np.uint8)).array_shape
    (8, 8)
    """
    if isinstance(X, Samples):
        return X
    _check_several_samples(X)
    if isinstance(X, Iterator):
        X = _items_of_iterator(X)
    content = unwrapped_container(X)
    if hasattr(content, "dtype") and hasattr(content, "shape"):
        samples = _samples_of_array(content)
    elif _is_lazy(content):
        samples = _samples_of_lazy(content)
    else:
        samples = _samples_of_sequence(content)
    if not len(samples):
        raise InputError(
            f"Found array with 0 sample(s) (shape={np.shape(X)}) while a minimum of 1 is required."
        )
    samples.given = X
    return samples


def samples_of_space(X: Any, description: Mapping[str, Any]) -> Samples:
    """Return the samples in ``X`` as a space with this description identifies them.

    Samples of a reader that the caller passed are identified by their content, without the reader.
    """
    samples = as_samples(X)
    if "reader" in description:
        samples = samples.read_by(UNKNOWN_READER)
    return samples.for_inputs(tuple(description["input_shape"]))


def _check_several_samples(X: Any) -> None:
    """Raise if `X` is a single sample, a mapping, a sparse matrix or a stream."""
    is_bytes = isinstance(X, memoryview) and X.ndim == 1
    if isinstance(X, ONE_SAMPLE) or is_bytes:
        cure = "Pass [X] for one sample, or load_image_folder(path).data for a folder of images."
        if isinstance(X, (str, os.PathLike)) and os.path.isdir(X):
            cure = (
                "It is a folder: pass load_image_folder(X).data if it holds one folder per class, "
                "else a list of its files, as in sorted(pathlib.Path(X).glob('*.jpg'))."
            )
        raise InputError(f"X is a single {type(X).__name__}: expected several samples. {cure}")
    if isinstance(X, Mapping):
        shown = ", ".join(map(repr, list(X)[:5]))
        cure = "Pass one of its values; of what load_image_folder(path) returns, pass .data."
        if hasattr(X, "column_names"):  # a DatasetDict
            cure = f"Pass the images of one of them, as in X[{next(iter(X), 'train')!r}]['image']."
        raise InputError(f"X is a {type(X).__name__} with {shown}: expected samples. {cure}")
    if hasattr(type(X), "asstr") and not X:
        raise InputError(f"X is a {type_name(X)} of a closed file: open it, and keep it open")
    if hasattr(X, "dense_shape"):
        raise InputError(f"X is a sparse {type_name(X)}: pass tf.sparse.to_dense(X)")
    if hasattr(X, "toarray"):
        raise InputError("X is a sparse matrix, which no backbone takes: pass X.toarray()")
    check_is_sequence(X)


def _samples_of_array(X: Any) -> Samples:
    ndim = len(X.shape)
    if is_numeric(X):
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
    if not ndim:
        raise InputError("X is a single value: expected several samples. Pass [X.item()]")
    if X.dtype.kind == "S":
        raise InputError(
            "X is a numpy array of bytes (dtype S), which has lost trailing zero bytes of the "
            "encoded images: pass a list of bytes, or an array of dtype object. Pass paths as str, "
            "as in np.char.decode(X)"
        )
    if X.dtype.kind == "c":
        raise InputError("Complex data not supported: X has complex values")
    if ndim == 2 and X.shape[1] == 1:
        X = X[:, 0]
    elif ndim != 1:
        raise InputError(
            f"X has shape {tuple(X.shape)} and dtype {X.dtype}: expected one column of paths or "
            "images"
        )
    return _samples_of_sequence(X.tolist())


def _is_lazy(X: Any) -> bool:
    """Return True for a sequence that may make its items when it is indexed."""
    return (
        not isinstance(X, (list, tuple, range))
        and hasattr(X, "__len__")
        and hasattr(X, "__getitem__")
    )


def _samples_of_lazy(X: Any) -> Samples:
    """Return samples that are read when needed; read paths and numbers at once."""
    if not len(X):
        return ItemSamples([])
    try:
        first = as_item(X[0])
    except (OSError, ValueError, SyntaxError, EOFError) as exc:
        return LazySamples(X, exc)
    except (IndexError, KeyError, TypeError) as exc:
        raise InputError(
            f"X is a {type_name(X)}: expected a sequence, but X[0] raises {type(exc).__name__}: "
            f"{exc}. Pass a list, array or Series of samples"
        ) from exc
    _check_item(X, first)
    is_small = isinstance(first, (str, os.PathLike)) or not (is_sample(first) or is_missing(first))
    if not is_small:
        return LazySamples(X, first)
    n_items = len(X)
    return _samples_of_sequence([first, *(item_at(X, row, n_items) for row in range(1, n_items))])


def _items_of_iterator(X: Iterator[Any]) -> list[Any]:
    """Return the items of an iterator; check the first item first, since it may be endless."""
    first = list(itertools.islice(X, 1))
    for item in first:
        _check_item(X, item)
    items = [*first, *X]
    if len(items) > 1 and items[1] is items[0] and isinstance(items[0], Image.Image):
        raise InputError(
            f"X is a {type_name(X)} that returns the same image object each time, which now has "
            "the pixels of the last: pass [frame.copy() for frame in X]"
        )
    return items


def _check_item(X: Any, item: Any) -> None:
    """Raise :class:`InputError` if an item is a sample with its label, a batch or an open file."""
    if isinstance(item, (tuple, list)) and _is_sample_with_label(item):
        parts = ", ".join(type_name(part) for part in item)
        raise InputError(
            f"X is a {type_name(X)} of ({parts}) {type(item).__name__}s: expected samples without "
            "labels. Pass the first part of each, as in [item[0] for item in X], or a sequence "
            "whose __getitem__(i) returns X[i][0]"
        )
    if isinstance(item, Mapping):
        shown = ", ".join(map(repr, list(item)[:5]))
        cure = "X['image'] or [row['image'] for row in X]"
        raise InputError(
            f"X is a {type_name(X)} of rows with {shown or 'nothing'}: expected one column of "
            f"samples. Pass the images alone, as in {cure}"
        )
    if hasattr(item, "read"):
        raise InputError(
            f"X is a {type_name(X)} of open files ({type_name(item)}): pass their contents, as in "
            "[file.read() for file in X]"
        )
    ndim = getattr(item, "ndim", None)
    if isinstance(ndim, int) and ndim > 3:
        raise InputError(
            f"X is a {type_name(X)} of arrays of shape {tuple(item.shape)}, which are batches: "
            "expected samples. Pass np.concatenate of the batches of images, without labels"
        )


def _is_sample_with_label(item: Any) -> bool:
    """Return True for a sample followed by something, such as its label."""
    parts = [part for part in item if not isinstance(part, (int, float, np.number))]
    return len(item) > 1 and bool(parts) and (is_sample(item[0]) or hasattr(item[0], "__array__"))


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
    if is_encoded_record(first):
        items = [as_item(item) for item in items]
        first = as_item(first)
    if isinstance(first, (list, tuple, int, float, np.number)):
        try:
            array = _nested_lists_as_array(items)
        except InputError:
            _check_item(X, first)
            if any(map(is_missing, items)):  # images of nested lists, some of them missing
                return ItemSamples(
                    [None if is_missing(x) else as_item(_nested_lists_as_array(x)) for x in items]
                )
            raise
        array = unwrapped_container(array)  # converts None among numbers to NaN
        if is_numeric(array):
            return _samples_of_array(array)
        _check_item(X, first)
        if array.ndim > 1:
            return _samples_of_array(array)
    else:
        _check_item(X, first)
    if not all(map(is_sample, items)):
        items = _converted_items(items)
    if not any(map(is_url, items)):
        return ItemSamples(items)
    items = [local_path(item) or item if is_url(item) else item for item in items]
    return UrlSamples(items)


def _nested_lists_as_array(nested: Any) -> np.ndarray:
    try:
        return np.asarray(nested)
    except ValueError as exc:
        raise InputError(f"X is a list of lists that is not an array: {exc}") from exc


def _converted_items(items: list[Any]) -> list[Any]:
    """Return items as numpy and Python objects; raise if some are not samples."""
    converted, foreign = [], []
    for row, item in enumerate(items):
        try:
            converted.append(as_item(item))
        except UnreadableImageError as exc:
            raise InputError(f"X[{row}] is {exc}") from exc
        if not (is_sample(converted[-1]) or is_missing(converted[-1])):
            foreign.append(row)
    if foreign:
        shown = ", ".join(f"[{row}] {type(items[row]).__name__}" for row in foreign[:10])
        raise InputError(
            f"{len(foreign)} of {len(items)} samples are of unknown types: {shown}. Expected "
            "paths, encoded bytes, PIL images or arrays."
        )
    return converted


def _are_one_column(items: list[Any]) -> bool:
    """Return True for rows of one column that does not hold numbers."""
    if not all(isinstance(item, (list, tuple)) and len(item) == 1 for item in items):
        return False
    inner = [item[0] for item in items if not is_missing(item[0])]
    return bool(inner) and all(isinstance(item, ONE_SAMPLE) for item in inner)
