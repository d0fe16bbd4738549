"""``near_duplicates``: near-copies, which raise a score if they lie in training and test part.

The threshold is measured on the samples, since it depends on network and images: each of 600 X-rays
has a neighbor at a cosine of 0.9 in the embeddings of one network, and none of 600 photographs of
flowers has one in those of another. Copies of photographs that were recompressed or made smaller
are found in four of five cases or more; copies of 28 to 64 pixels are rarely found
(benchmarks/README.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.utils import Bunch, check_array

from featx._warning import warn_caller
from featx.exceptions import InputError, NearDuplicateWarning, ParameterError

_FRACTION = 1 / 8  # of the median distance to a near neighbor
_NEIGHBOR = 5  # or a hundredth of all samples, so that copies of an image are usually nearer
_LARGEST_THRESHOLD = 0.985  # for images with so many copies that the neighbor is one, too
_N_MEASURED = 1000  # samples, evenly spread, from which the median is computed
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 8192
_MAX_ROWS_COMPARED = 20_000  # in a comparison of heads, where it takes seconds on two cores
_N_SHOWN = 3


class _SimilarPairs(NamedTuple):
    """Some pairs of rows that are nearly the same, each row index `first` below its `second`."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def near_duplicates(X: Any, *, threshold: float | str = "auto") -> Bunch:
    """Find samples whose embeddings are nearly the same.

    Embeddings are compared by their cosine, after the mean of all embeddings was subtracted.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings. The time grows with the square of their number.
    threshold : float or "auto", default="auto"
        Smallest cosine of near-duplicates, over 0 and at most 1. "auto" is the cosine at which the
        distance, 1 minus the cosine, is an eighth of the median distance between a sample and its
        fifth nearest neighbor (with more than 500 samples, the neighbor whose rank is a hundredth
        of their number), and at most 0.985. If an image has more copies than that rank, only the
        closest are found.

    Returns
    -------
    Bunch
        ``pairs`` (n_pairs, 2), int64, the most similar first; ``similarity`` (n_pairs,), float32;
        ``groups`` (n_samples,), int64, equal for samples that pairs connect, so that ``groups=``
        keeps them together where samples are held out; ``threshold``, float.

    Raises
    ------
    ParameterError
        The threshold is not "auto" and not over 0 and at most 1.
    InputError
        `X` is not a matrix of finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import near_duplicates
    >>> X = np.random.default_rng(0).standard_normal((50, 20))
    >>> X[30] = X[4] + 0.01
    >>> found = near_duplicates(X)
    >>> found.pairs.tolist(), len(set(found.groups))
    ([[4, 30]], 49)
    """
    is_number = isinstance(threshold, Real) and 0 < threshold <= 1
    if threshold != "auto" and not is_number:
        raise ParameterError(
            f"threshold={threshold!r}: expected 'auto', or a number over 0 and at most 1"
        )
    directions = _centered_directions(_checked_embeddings(X))
    least = float(threshold) if is_number else _measured_threshold(directions)
    blocks = list(_similar_row_pairs(directions, least))
    first, second, similarity = (np.concatenate(part) for part in zip(*blocks, strict=True))
    links = sparse.coo_array((np.ones(len(first)), (first, second)), shape=2 * directions.shape[:1])
    _, groups = connected_components(links, directed=False)
    order = np.argsort(-similarity, kind="stable")
    return Bunch(
        pairs=np.column_stack([first, second])[order],
        similarity=similarity[order],
        groups=groups.astype(np.int64),
        threshold=least,
    )


def warn_of_duplicates(
    X: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    name: Callable[[int], str],
) -> None:
    """Warn once of near-duplicates in different folds, with the names of the closest.

    Each sample is in the test part of one fold; `name` returns the name of a row for the message.
    More than 20,000 samples are not compared.
    """
    if len(X) > _MAX_ROWS_COMPARED:
        return
    fold = np.empty(len(X), np.int64)
    for number, (_, test) in enumerate(folds):
        fold[test] = number
    directions = _centered_directions(X)
    threshold = _measured_threshold(directions)
    n_found = 0
    shown: list[tuple[float, int, int]] = []
    for block in _similar_row_pairs(directions, threshold):
        parted = np.flatnonzero(fold[block.first] != fold[block.second])
        n_found += len(parted)
        closest = parted[np.argsort(-block.similarity[parted], kind="stable")[:_N_SHOWN]]
        rows = (part[closest].tolist() for part in (block.similarity, block.first, block.second))
        shown = heapq.nlargest(_N_SHOWN, [*shown, *zip(*rows, strict=True)])
    if not n_found:
        return
    pairs = "; ".join(
        f"{name(first)} and {name(second)} ({similarity:.3f})"
        for similarity, first, second in shown
    )
    warn_caller(
        NearDuplicateWarning(
            f"{n_found} pairs of samples are nearly the same (cosine of centered embeddings of "
            f"{threshold:.3f} or more) but in different folds, so that scores may be too high: "
            f"{pairs}.",
            cure="near_duplicates(embeddings).groups, passed as groups=, keeps them together.",
        )
    )


def _checked_embeddings(X: Any) -> np.ndarray:
    try:
        return check_array(X, dtype=[np.float32, np.float64])
    except (TypeError, ValueError) as exc:
        raise InputError(
            "X is not a matrix of embeddings: expected an array of shape (n_samples, n_features), "
            f"as from FeatureExtractor().fit_transform(images). {exc}"
        ) from exc


def _centered_directions(X: np.ndarray) -> np.ndarray:
    """Return unit vectors whose products are cosines; rows that equal the mean are duplicates."""
    centered = np.asarray(X, np.float32) - X.mean(axis=0, dtype=np.float64).astype(np.float32)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    directions = np.divide(centered, lengths, out=np.zeros_like(centered), where=lengths > 0)
    if lengths.all():
        return directions
    return np.hstack([directions, lengths == 0])


def _measured_threshold(directions: np.ndarray) -> float:
    """Return the cosine above which samples are much nearer than usual neighbors."""
    n_samples = len(directions)
    rank = max(_NEIGHBOR, n_samples // 100)
    if n_samples <= rank:
        return _LARGEST_THRESHOLD
    some = np.unique(np.linspace(0, n_samples - 1, _N_MEASURED).astype(int))
    nearest = np.full((len(some), rank + 1), -1.0, np.float32)  # the first is the sample itself
    for start in range(0, n_samples, _BLOCK_COLUMNS):
        cosines = directions[some] @ directions[start : start + _BLOCK_COLUMNS].T
        both = np.hstack([nearest, cosines])
        nearest = np.partition(both, -rank - 1, axis=1)[:, -rank - 1 :]
    measured = 1 - _FRACTION * (1 - float(np.median(nearest[:, 0])))
    return min(measured, _LARGEST_THRESHOLD)


def _similar_row_pairs(directions: np.ndarray, threshold: float) -> Iterator[_SimilarPairs]:
    """Yield the pairs of similar rows block by block."""
    for start in range(0, len(directions), _BLOCK_ROWS):
        some = directions[start : start + _BLOCK_ROWS]
        for others in range(start, len(directions), _BLOCK_COLUMNS):
            similarity = some @ directions[others : others + _BLOCK_COLUMNS].T
            # Rounding may bring a row and its copy just below 1.
            first, second = np.nonzero(similarity >= threshold - 1e-6)
            similarity = similarity[first, second]
            is_later = second + others > first + start
            yield _SimilarPairs(
                first[is_later] + start, second[is_later] + others, similarity[is_later]
            )
