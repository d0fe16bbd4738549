"""``near_duplicates``: near-copies, which raise a score if they lie in training and test part.

The threshold is measured on the samples, since it depends on network and images: each of 600 X-rays
has a neighbor at a cosine of 0.9 in the embeddings of one network, and none of 600 photographs of
flowers has one in those of another. From embeddings alone, copies of photographs that were
recompressed or made smaller are found in four of five cases or more, and copies of 28 to 64 pixels
rarely. With the images, nearly all copies of photographs are found, mirrored and trimmed ones too
(benchmarks/README.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.utils import Bunch, check_array

from featx._training_data import check_all_were_read
from featx._warning import warn_caller
from featx.evaluation.pixel_hashes import (
    CLOSE,
    HASH_WORDS,
    CopyPairs,
    ImageHashes,
    Neighbors,
    copies_of_pixels,
    hash_images,
    nearest_rows,
)
from featx.exceptions import BadSampleError, InputError, NearDuplicateWarning, ParameterError
from featx.inputs.recognize import as_samples

_FRACTION = 1 / 8  # of the median distance to a near neighbor
_NEIGHBOR = 5  # or a hundredth of all samples, so that copies of an image are usually nearer
_LARGEST_THRESHOLD = 0.985  # for images with so many copies that the neighbor is one, too
_N_MEASURED = 1000  # samples, evenly spread, from which the median is computed
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 8192
_MAX_ROWS_COMPARED = 20_000  # in a comparison of heads, where it takes seconds on two cores
_MAX_ROWS_HASHED = 10_000  # likewise, by the pixels of the closest
_MAX_IMAGES_HASHED = 300  # in a comparison of heads, where it takes a second on two cores
_N_SHOWN = 3
_ROUNDING = 1e-6  # may bring the cosine of a row and its copy just below 1


class _SimilarPairs(NamedTuple):
    """Some pairs of rows that are nearly the same, each row index `first` below its `second`."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray


def near_duplicates(X: Any, *, images: Any = None, threshold: float | str = "auto") -> Bunch:
    """Find samples that are nearly the same.

    Embeddings are compared by their cosine, after the mean of all embeddings was subtracted. With
    `images`, their pixels are compared as well. Then nearly all copies of photographs are found
    that were compressed again, made smaller, trimmed or mirrored, and many copies of smaller
    pictures, for any backbone.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Embeddings. The time grows with the square of their number.
    images : sequence of images of shape (n_samples,), default=None
        Images of the embeddings, in the same order. Each is read once more.
    threshold : float or "auto", default="auto"
        Smallest cosine of near-duplicates, over 0 and at most 1. "auto" is the cosine at which the
        distance, 1 minus the cosine, is an eighth of the median distance between a sample and its
        fifth nearest neighbor (with more than 500 samples, the neighbor whose rank is a hundredth
        of their number), and at most 0.985. If an image has more copies than that rank, only the
        closest are found. With `images`, it has to be "auto", and no cosine decides alone.

    Returns
    -------
    Bunch
        ``pairs`` (n_pairs, 2), int64, the most similar first; ``similarity`` (n_pairs,), float32;
        ``groups`` (n_samples,), int64, equal for samples that pairs connect, so that ``groups=``
        keeps them together where samples are held out; ``threshold``, float, NaN with `images`.
        With `images`, also ``bits`` (n_pairs,), int64, the number of bits of 256 in which the
        hashes of the pixels differ, 0 for a sample and the first one with the same pixels.

    Raises
    ------
    ParameterError
        The threshold is not "auto" and not over 0 and at most 1; or it is given with `images`.
    InputError
        `X` is not a matrix of finite numbers, or `images` are not as many images.
    BadSampleError
        Images cannot be read.

    See Also
    --------
    find_image_issues : Images with the same pixels, and unusual ones.
    find_similar : Samples that are most similar to a query.
    compare_heads : Comparison of heads, which takes the groups.

    Notes
    -----
    Pixels are compared by difference hashes of 16 x 16 bits (N. Krawetz, "Kind of Like That",
    2013), of the image and of its mirror image. A pair of samples, each of which is among the ten
    nearest neighbors of the other, are copies if they differ in at most 0.35 of the usual number of
    bits, which is the third quartile among those neighbors; or in at most 0.7 of it, while their
    distance is at most 0.4 of the distance to the tenth neighbor. "Usual" is that of the two
    samples for which it is smaller, as in the local scaling of Zelnik-Manor and Perona 2004.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import near_duplicates
    >>> X = np.random.default_rng(0).standard_normal((50, 20))
    >>> X[30] = X[4] + 0.01
    >>> found = near_duplicates(X)
    >>> found.pairs.tolist(), len(set(found.groups))
    ([[4, 30]], 49)

    With the images, a mirrored copy is found although its embedding is farther away:

    >>> images = np.random.default_rng(0).integers(0, 256, (50, 32, 32), dtype=np.uint8)
    >>> X[30], images[30] = X[4] + 0.5 * X[31], images[4, :, ::-1]
    >>> len(near_duplicates(X).pairs), near_duplicates(X, images=images).pairs.tolist()
    (0, [[4, 30]])
    """
    is_number = isinstance(threshold, Real) and 0 < threshold <= 1
    if threshold != "auto" and not is_number:
        raise ParameterError(
            f"threshold={threshold!r}: expected 'auto', or a number over 0 and at most 1"
        )
    if images is not None and is_number:
        raise ParameterError(f"threshold={threshold!r}: expected 'auto', since images are given")
    X = _checked_embeddings(X)
    if images is not None:
        return copies_among(X, _hashes_of(images, n_expected=len(X)))
    directions = _centered_directions(X)
    least = float(threshold) if is_number else _measured_threshold(directions)
    blocks = list(_similar_row_pairs(directions, least))
    first, second, similarity = (np.concatenate(part) for part in zip(*blocks, strict=True))
    found = _SimilarPairs(first, second, similarity)
    order = np.argsort(-similarity, kind="stable")
    return _bunch_of_pairs(found, order, n_samples=len(X), threshold=least)


def copies_among(X: np.ndarray, hashes: ImageHashes) -> Bunch:
    """Return the copies among images, by their embeddings and hashes: see :func:`near_duplicates`.

    Images with the same pixels are paired with the first of them, and only that one is compared
    with others.
    """
    directions = _centered_directions(X)
    repeated = np.flatnonzero(hashes.first != np.arange(len(X)))
    originals = hashes.first[repeated]
    cosines = np.sum(directions[originals] * directions[repeated], axis=1)
    rows = np.setdiff1d(np.arange(len(X)), repeated)
    parts = [(originals, repeated, cosines, np.zeros(len(repeated), np.int64))]
    if len(rows) > 1:
        neighbors = nearest_rows(directions[rows])
        near, bits = copies_of_pixels(neighbors.pairs(), neighbors, hashes.part(rows))
        parts.append((rows[near.first], rows[near.second], near.similarity, bits))
    first, second, similarity, bits = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = _SimilarPairs(first, second, similarity.astype(np.float32))
    order = np.argsort(-found.similarity, kind="stable")
    return _bunch_of_pairs(found, order, n_samples=len(X), threshold=np.nan, bits=bits[order])


def _hashes_of(images: Any, *, n_expected: int) -> ImageHashes:
    samples = as_samples(images)
    if len(samples) != n_expected:
        raise InputError(f"images has {len(samples)} images, but X has {n_expected} rows")
    hashes, faults = hash_images(samples)
    if faults:
        raise BadSampleError(faults, len(samples))
    return hashes


def _bunch_of_pairs(
    found: _SimilarPairs, order: np.ndarray, *, n_samples: int, **more: Any
) -> Bunch:
    """Return pairs in an order, and the groups of samples that they connect."""
    links = sparse.coo_array(
        (np.ones(len(found.first)), (found.first, found.second)), shape=(n_samples, n_samples)
    )
    _, groups = connected_components(links, directed=False)
    return Bunch(
        pairs=np.column_stack([found.first, found.second])[order],
        similarity=found.similarity[order],
        groups=groups.astype(np.int64),
        **more,
    )


def warn_of_duplicates(
    X: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    name: Callable[[int], str],
    read_hashes: Callable[[np.ndarray], ImageHashes] | None = None,
) -> None:
    """Warn once of near-duplicates in different folds, with the names of the closest.

    Each sample is in the test part of one fold; `name` returns the name of a row for the message.
    `read_hashes` hashes the images of some rows, 300 at most. Then, as in :func:`near_duplicates`
    with images, pairs of neighbors count if their pixels are nearly the same; the closest are
    compared first. More than 20,000 samples are not compared, nor the pixels of more than 10,000.
    """
    if len(X) > _MAX_ROWS_COMPARED:
        return
    fold = np.empty(len(X), np.int64)
    for number, (_, test) in enumerate(folds):
        fold[test] = number
    directions = _centered_directions(X)
    if read_hashes is not None and 1 < len(X) <= _MAX_ROWS_HASHED:
        blocks: Iterable[_SimilarPairs] = [
            _copies_in_different_folds(directions, fold, read_hashes)
        ]
        arguments, what = "embeddings, images=X", "pixels"
    else:
        threshold = _measured_threshold(directions)
        blocks = _similar_row_pairs(directions, threshold)
        arguments = "embeddings"
        what = f"embeddings (a cosine of {threshold:.3f} or more, once centered)"
    n_found, closest = _pairs_in_different_folds(blocks, fold)
    if not n_found:
        return
    pairs = "; ".join(
        f"{name(first)} and {name(second)} ({similarity:.3f})"
        for similarity, first, second in closest
    )
    counted = "1 pair of samples has" if n_found == 1 else f"{n_found} pairs of samples have"
    warn_caller(
        NearDuplicateWarning(
            f"{counted} nearly the same {what} but in different folds, so that scores may be too "
            f"high: {pairs}.",
            cure=f"near_duplicates({arguments}).groups, passed as groups=, keeps them together.",
        )
    )


def _pairs_in_different_folds(
    blocks: Iterable[_SimilarPairs], fold: np.ndarray
) -> tuple[int, list[tuple[float, int, int]]]:
    """Return the number of pairs in different folds, and similarity and rows of the closest."""
    n_found = 0
    shown: list[tuple[float, int, int]] = []
    for block in blocks:
        parted = np.flatnonzero(fold[block.first] != fold[block.second])
        n_found += len(parted)
        closest = parted[np.argsort(-block.similarity[parted], kind="stable")[:_N_SHOWN]]
        rows = (part[closest].tolist() for part in (block.similarity, block.first, block.second))
        shown = heapq.nlargest(_N_SHOWN, [*shown, *zip(*rows, strict=True)])
    return n_found, shown


def _copies_in_different_folds(
    directions: np.ndarray,
    fold: np.ndarray,
    read_hashes: Callable[[np.ndarray], ImageHashes],
) -> _SimilarPairs:
    """Return neighbors in different folds that have nearly the same pixels."""
    neighbors = nearest_rows(directions)
    pairs = neighbors.pairs()
    pairs = pairs.part((fold[pairs.first] != fold[pairs.second]) & (pairs.ratio <= CLOSE))
    pairs = pairs.part(np.argsort(pairs.ratio, kind="stable"))
    rows, n_pairs = _rows_to_hash(pairs, neighbors)
    hashes = read_hashes(rows) if n_pairs else None
    if hashes is None:
        return _SimilarPairs(*pairs.part(np.arange(0))[:3])
    plain, mirrored = (np.zeros((len(directions), HASH_WORDS), np.uint64) for _ in range(2))
    plain[rows], mirrored[rows] = hashes.plain, hashes.mirrored
    known = ImageHashes(plain, mirrored, np.arange(len(directions)))
    copies, _ = copies_of_pixels(pairs.part(np.arange(n_pairs)), neighbors, known)
    return _SimilarPairs(copies.first, copies.second, copies.similarity)


def _rows_to_hash(pairs: CopyPairs, neighbors: Neighbors) -> tuple[np.ndarray, int]:
    """Return the rows of the closest pairs and of their neighbors, and how many pairs these are."""
    rows: set[int] = set()
    for number, both in enumerate(zip(pairs.first, pairs.second, strict=True)):
        more = rows.union(both, *neighbors.rows[list(both)].tolist())
        if len(more) > _MAX_IMAGES_HASHED:
            return np.array(sorted(rows), np.int64), number
        rows = more
    return np.array(sorted(rows), np.int64), len(pairs.first)


def _checked_embeddings(X: Any) -> np.ndarray:
    check_all_were_read(X)
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
            first, second = np.nonzero(similarity >= threshold - _ROUNDING)
            similarity = similarity[first, second]
            is_later = second + others > first + start
            yield _SimilarPairs(
                first[is_later] + start, second[is_later] + others, similarity[is_later]
            )
