"""Exact nearest neighbors by cosine, read block by block; ``find_similar``."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import normalize
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from featx._transfer import TransferEstimator
from featx.exceptions import InputError, ParameterError
from featx.inputs.items import ONE_SAMPLE
from featx.probes._arrays import (
    as_array_like,
    cast_floats,
    inner_products,
    is_array_api,
    is_lazy,
    largest_of_each_row,
    namespace,
    to_numpy,
    unchecked_blocks,
    without_gradients,
)

COPY = 1 - 1e-5  # cosine from which rows in float32 count as copies of each other
_QUERIES_AT_ONCE = 2048


def find_similar(query: Any, X: Any, *, extractor: Any = None, k: int = 10) -> Bunch:
    """Find the samples whose embeddings are most similar to that of a query.

    All cosines are computed, block by block. The embeddings in `X` may be arrays on disk, which are
    read once, or, with ``array_api_dispatch=True``, arrays of another library such as torch tensors
    on a GPU, which are compared on their device.

    Parameters
    ----------
    query : path, image or vector, or several of them
        A path, encoded image, PIL image or vector is one query. An array of images and a list are
        several: pass ``image[np.newaxis]`` for one image that is an array.
    X : samples of shape (n_samples,), or array-like of shape (n_samples, n_features)
        Samples to search, or their embeddings if there is no extractor. A query that is among them
        is found like any other. Samples that could not be read, rows of NaN, are never found.
    extractor : FeatureExtractor or transformer, default=None
        Embeds `query` and `X`. If it is not fitted, a clone of it is fitted to `X`.
    k : int, default=10
        Number of samples to find for each query.

    Returns
    -------
    Bunch
        ``indices`` (n_queries, k), int64: rows of `X`, the most similar first; ``similarity``
        (n_queries, k), float32: their cosines, from -1 to 1. Both have the shape (k,) for one
        query.

    Raises
    ------
    ParameterError
        `k` is not a number from 1 to that of the samples in `X` that could be read.
    InputError
        The embedding of a query holds NaN or infinite values, or embeddings are not vectors or have
        different lengths.

    See Also
    --------
    near_duplicates : Pairs of samples that are nearly the same.
    find_label_issues : Samples whose label is probably wrong.
    KNNProbe : Classifier that predicts from the nearest samples.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx import find_similar
    >>> X, y = load_digits(return_X_y=True)
    >>> found = find_similar(X[0], X, k=4)
    >>> found.indices.tolist(), y[found.indices].tolist()
    ([0, 877, 464, 1365], [0, 0, 0, 0])

    The training samples that speak for a prediction are the similar ones of the predicted class,
    those that speak against it are the others:

    >>> from featx import TransferClassifier
    >>> images, labels = X[:200].reshape(-1, 8, 8), y[:200]
    >>> classifier = TransferClassifier("tiny", "knn").fit(images * 15.9375, labels)
    >>> new = X[300:301].reshape(-1, 8, 8) * 15.9375
    >>> found = find_similar(new, images * 15.9375, extractor=classifier.extractor_, k=5)
    >>> bool((labels[found.indices[0]] == classifier.predict(new)[0]).any())
    True
    """
    if not isinstance(k, Integral) or isinstance(k, bool) or k < 1:
        raise ParameterError.of("k", k, "expected a positive integer.")
    if hasattr(X, "__len__"):
        _check_count(int(k), len(X))
    if extractor is None:
        is_one = not isinstance(query, ONE_SAMPLE) and np.ndim(query) == 1
        queries, rows = as_embeddings([query] if is_one else query, "query"), as_embeddings(X, "X")
    else:
        is_one = isinstance(query, ONE_SAMPLE)
        queries, rows = _embedded([query] if is_one else query, X, extractor)
    _check_search(queries, rows, int(k))
    indices, similarity = nearest_neighbors(queries, rows, k=int(k))
    _check_count(int(k), int((indices[0] >= 0).sum()), which=" that could be read")
    if is_one:
        indices, similarity = indices[0], similarity[0]
    return Bunch(indices=indices, similarity=similarity)


def nearest_neighbors(
    queries: Any, X: Any, *, k: int, below: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of X nearest to each query by cosine, and their cosines.

    `X` (n, d) is read once, a few thousand rows at a time, and may be any array; `queries` (m, d)
    are in memory. Only rows with a cosine under `below` are taken: ``below=COPY`` leaves out copies
    of the query, and the query itself if it is a row of `X`. Rows that hold NaN are left out.

    Both arrays, (m, k) of int64 and float32, are in decreasing order of the cosine. Where there are
    not enough rows, the index is -1 and the cosine -inf.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> nearest_neighbors(rows, rows, k=2, below=COPY)[0].tolist()
    [[1, 2], [0, 2], [1, 0]]
    """
    queries = _like(queries, X)
    queries, are_read = _unit_rows(queries)
    indices = np.full((queries.shape[0], k), -1, np.int64)
    cosines = np.full((queries.shape[0], k), -np.inf, np.float32)
    for block, rows in unchecked_blocks(X):
        others, are_found = _unit_rows(rows)
        for start in range(0, len(indices), _QUERIES_AT_ONCE):
            part = slice(start, min(start + _QUERIES_AT_ONCE, len(indices)))
            products = _without(inner_products(queries[part, :], others), are_found, below)
            found = largest_of_each_row(products, min(k, products.shape[1]))
            indices[part], cosines[part] = _merged(
                (indices[part], cosines[part]), (found[0] + block.start, found[1])
            )
    cosines[~to_numpy(are_read)] = -np.inf
    indices[cosines == -np.inf] = -1
    return indices, np.clip(cosines, -1, 1, where=np.isfinite(cosines), out=cosines)


def as_embeddings(X: Any, name: str) -> Any:
    """Return a matrix of embeddings; arrays on disk and of other libraries stay what they are."""
    if is_array_api(X):
        X = without_gradients(X)
    elif not (is_lazy(X) or _is_on_disk(X)):
        try:
            X = np.asarray(X)
            X = X if X.dtype.kind == "f" else X.astype(np.float32)
        except (TypeError, ValueError) as exc:
            raise InputError(_not_embeddings(X, name)) from exc
    if len(X.shape) != 2 or 0 in X.shape:
        raise InputError(_not_embeddings(X, name))
    return X


def _is_on_disk(X: Any) -> bool:
    """Return True for a dataset of h5py or zarr, which np.asarray would read at once."""
    return not hasattr(X, "columns") and isinstance(getattr(X, "chunks", 0), tuple | None)


def _not_embeddings(X: Any, name: str) -> str:
    shape = getattr(X, "shape", None)
    got = type(X).__name__ if shape is None else f"an array of shape {tuple(shape)}"
    return (
        f"{name} is {got}: expected embeddings of shape (n_samples, n_features), as from "
        "FeatureExtractor().fit_transform(images)"
    )


def _embedded(queries: Any, X: Any, extractor: Any) -> tuple[Any, Any]:
    """Return the embeddings of queries and of samples."""
    is_fitted = _is_fitted(extractor)
    if isinstance(extractor, TransferEstimator) and not is_fitted:
        expected = "expected a fitted estimator, or a FeatureExtractor."
        raise ParameterError.of("extractor", extractor, expected)
    fitted = extractor if is_fitted else clone(extractor).fit(X)
    return (
        as_embeddings(fitted.transform(queries), "query"),
        as_embeddings(fitted.transform(X), "X"),
    )


def _is_fitted(extractor: Any) -> bool:
    """Return True for a fitted transformer; scikit-learn takes those for it that need no fit."""
    if hasattr(extractor, "__sklearn_is_fitted__"):
        return extractor.__sklearn_is_fitted__()
    try:
        check_is_fitted(extractor)
    except NotFittedError:
        return False
    return True


def _check_count(k: int, n_found: int, *, which: str = "") -> None:
    """Raise a ParameterError if there are fewer than k samples."""
    if k > n_found:
        reason = f"expected at most {n_found}, the number of samples in X{which}."
        raise ParameterError.of("k", k, reason)


def _check_search(queries: Any, X: Any, k: int) -> None:
    """Raise an InputError if queries cannot be compared with k rows of X."""
    if queries.shape[1] != X.shape[1]:
        raise InputError(
            f"query has {queries.shape[1]} features and X has {X.shape[1]}: expected embeddings of "
            "the same network"
        )
    _check_count(k, X.shape[0])
    asked = to_numpy(queries) if is_array_api(queries) else np.asarray(queries)
    unread = np.flatnonzero(~np.isfinite(asked).all(axis=1)).tolist()
    if unread:
        shown = ", ".join(map(str, unread[:10]))
        raise InputError(f"query holds NaN or infinite values in rows {shown}: it has no neighbors")


def _like(queries: Any, X: Any) -> Any:
    """Return queries in the library and on the device of X."""
    if is_array_api(X):
        return queries if is_array_api(queries) else as_array_like(np.asarray(queries), X)
    return to_numpy(queries) if is_array_api(queries) else np.asarray(queries)


def _unit_rows(rows: Any) -> tuple[Any, Any]:
    """Return rows as unit vectors, float32, and a mask of those without NaN; the others are 0."""
    rows = cast_floats(rows, np.dtype(np.float32))
    xp = namespace(rows)
    are_read = xp.all(xp.isfinite(rows), axis=1)
    return normalize(xp.where(are_read[:, None], rows, xp.zeros_like(rows[:1, :1]))), are_read


def _without(products: Any, are_found: Any, below: float) -> Any:
    """Return cosines (m, n) that are -inf in columns not to be found, and from `below` on."""
    if not isinstance(products, np.ndarray):
        xp = namespace(products)
        return xp.where((products < below) & are_found[None, :], products, -xp.inf)
    if below < np.inf:
        products[products >= below] = -np.inf
    if not are_found.all():
        products[:, ~are_found] = -np.inf
    return products


def _merged(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest of two lists of neighbors, as many as the first has."""
    indices, cosines = (np.hstack(pair) for pair in zip(first, second, strict=True))
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : first[0].shape[1]]
    return np.take_along_axis(indices, order, 1), np.take_along_axis(cosines, order, 1)
