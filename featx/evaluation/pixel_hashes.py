"""Copies of images: pairs that agree in their pixels and in their embeddings.

Pixels are compared by difference hashes of 256 bits, of the image and of its mirror image. Two
images are copies if they differ much less than each does from its ten nearest neighbors in the
embeddings. So photographs, whose hashes differ in 80 bits or more, need no stricter limits than
pieces of clothing of 28 pixels, whose hashes agree in all but 20 (benchmarks/bench_duplicates.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.utils import Bunch

from featx.digests.hashing import digest_of
from featx.evaluation.small_images import SmallImage, small_images
from featx.exceptions import SampleFault
from featx.inputs.samples import Samples
from featx.probes._arrays import largest_of_each_row

_HASH_SIDE = 16
HASH_WORDS = _HASH_SIDE**2 // 64
_PICTURE_SIZE = 128
_N_NEIGHBORS = 10
# Fractions of the usual: of the distance to the tenth neighbor, and of the bits that three of four
# of these neighbors do not exceed. Chosen on six sets (benchmarks/NOTES.md).
CLOSE = 0.4
_CLOSE_BITS = 0.7
_FEW_BITS = 0.35
_ROUNDING = 1e-6
_BLOCK_ROWS, _BLOCK_COLUMNS = 1024, 8192


class ImageHashes(NamedTuple):
    """Hashes of images.

    Attributes
    ----------
    plain, mirrored : ndarray of shape (n_samples, 4), uint64
        Bits of :func:`difference_hash` of each image and of its mirror image.
    first : ndarray of shape (n_samples,), int64
        First row with the same pixels.
    """

    plain: np.ndarray
    mirrored: np.ndarray
    first: np.ndarray

    @classmethod
    def of_issues(cls, images: Bunch, rows: np.ndarray) -> ImageHashes:
        """Return the hashes of some rows in what :func:`find_image_issues` returned."""
        _, first, places = np.unique(images.first[rows], return_index=True, return_inverse=True)
        return cls(images.hashes[rows], images.mirrored_hashes[rows], first[places])

    def part(self, rows: np.ndarray) -> ImageHashes:
        """Return the hashes of some rows, none of which are equal."""
        return ImageHashes(self.plain[rows], self.mirrored[rows], np.arange(len(rows)))

    def joined(self, others: ImageHashes) -> ImageHashes:
        """Return these hashes and those of further images."""
        first = np.concatenate([self.first, others.first + len(self.first)])
        plain = np.concatenate([self.plain, others.plain])
        return ImageHashes(plain, np.concatenate([self.mirrored, others.mirrored]), first)

    def bits(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return the number of bits in which images differ, or an image and a mirror image."""
        found = np.empty(len(first), np.int64)
        for start in range(0, len(first), _BLOCK_COLUMNS):
            some = slice(start, start + _BLOCK_COLUMNS)
            own = self.plain[first[some]]
            pair = (self.plain[second[some]], self.mirrored[second[some]])
            counts = [np.bitwise_count(own ^ other).sum(axis=1, dtype=np.int64) for other in pair]
            found[some] = np.minimum(*counts)
        return found


class Neighbors(NamedTuple):
    """The nearest rows of each row, at most ten, the nearest first.

    Attributes
    ----------
    rows : ndarray of shape (n_samples, n_neighbors), int64
    distances : ndarray of shape (n_samples, n_neighbors), float32
        1 minus the cosine.
    """

    rows: np.ndarray
    distances: np.ndarray

    def pairs(self) -> CopyPairs:
        """Return the pairs of rows that are among the nearest of each other."""
        n_samples, n_neighbors = self.rows.shape
        one, other = np.repeat(np.arange(n_samples), n_neighbors), self.rows.reshape(-1)
        _, places = np.unique(
            np.minimum(one, other) * n_samples + np.maximum(one, other), return_index=True
        )
        first, second = np.sort([one[places], other[places]], axis=0)
        distance, usual = self.distances.reshape(-1)[places], self.distances[:, -1]
        ratio = distance / np.maximum(np.minimum(usual[first], usual[second]), _ROUNDING)
        pairs = CopyPairs(first, second, 1 - distance, ratio)
        return pairs.part(ratio <= 1 + _ROUNDING)


class CopyPairs(NamedTuple):
    """Pairs of rows, `first` below its `second`.

    Attributes
    ----------
    first, second : ndarray of shape (n_pairs,), int64
    similarity : ndarray of shape (n_pairs,), float32
        Cosine.
    ratio : ndarray of shape (n_pairs,), float32
        Distance of the two, divided by the distance to the tenth neighbor of one of them, whichever
        is smaller.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    ratio: np.ndarray

    def part(self, chosen: np.ndarray) -> CopyPairs:
        """Return some of the pairs."""
        return CopyPairs(*(each[chosen] for each in self))


def difference_hash(gray: Image.Image) -> np.ndarray:
    """Return which of 16 x 17 gray levels are brighter than their left neighbors, (4,) uint64.

    It is ``dhash`` of the package imagehash, for ``hash_size=16``. Hashes of copies of an image
    differ in few of their 256 bits.

    Examples
    --------
    >>> ramp = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90)
    >>> np.bitwise_count(difference_hash(ramp)).tolist()
    [64, 64, 64, 64]
    """
    size = (_HASH_SIDE + 1, _HASH_SIDE)
    levels = np.asarray(gray.resize(size, Image.Resampling.LANCZOS))
    return np.packbits(levels[:, 1:] > levels[:, :-1]).view(np.uint64)


def both_hashes(gray: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the difference hashes of an image and of its mirror image."""
    mirrored = gray.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return difference_hash(gray), difference_hash(mirrored)


def picture_digest(small: SmallImage) -> bytes:
    """Return a digest of the size and the picture of an image, none if it could not be read."""
    if small.image is None:
        return b""
    return digest_of(f"{small.width}x{small.height}:".encode() + small.image.tobytes())


def first_rows(digests: list[bytes]) -> np.ndarray:
    """Return the first row with the same digest for each row; its own for rows without one.

    Examples
    --------
    >>> first_rows([b"a", b"b", b"a", b"", b""]).tolist()
    [0, 1, 0, 3, 4]
    """
    first: dict[bytes, int] = {}
    rows = [first.setdefault(digest, row) if digest else row for row, digest in enumerate(digests)]
    return np.array(rows, np.int64)


def hash_images(samples: Samples, rows: Any = None) -> tuple[ImageHashes, list[SampleFault]]:
    """Read images and hash them; return the faults of those that cannot be read, too.

    The hashes of these are random, like no others.
    """
    hashes, digests, faults = [], [], []
    for small in small_images(samples, rows, size=_PICTURE_SIZE):
        if small.image is None:
            faults.append(samples.fault(small.row, small.fault))
            random = np.random.default_rng(small.row)
            hashes.append(tuple(random.integers(0, 2**64, (2, HASH_WORDS), np.uint64)))
        else:
            hashes.append(both_hashes(small.image.convert("L")))
        digests.append(picture_digest(small))
    both = np.array(hashes, np.uint64).reshape(-1, 2, HASH_WORDS)
    return ImageHashes(both[:, 0], both[:, 1], first_rows(digests)), faults


def nearest_rows(directions: np.ndarray) -> Neighbors:
    """Return the ten nearest rows of each row, computed block by block."""
    n_neighbors = min(_N_NEIGHBORS, len(directions) - 1)
    found = list(_nearest_of_blocks(directions, n_neighbors))
    rows, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    return Neighbors(rows, 1 - cosines)


def _nearest_of_blocks(
    directions: np.ndarray, n_neighbors: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the nearest rows, and their cosines, of some rows after others."""
    for start in range(0, len(directions), _BLOCK_ROWS):
        some = directions[start : start + _BLOCK_ROWS]
        parts = []
        for others in range(0, len(directions), _BLOCK_COLUMNS):
            cosines = some @ directions[others : others + _BLOCK_COLUMNS].T
            own = np.arange(max(start, others), min(start + len(some), others + cosines.shape[1]))
            cosines[own - start, own - others] = -np.inf
            columns, largest = largest_of_each_row(cosines, min(n_neighbors, len(cosines.T)))
            parts.append((columns + others, largest))
        rows, cosines = (np.hstack(part) for part in zip(*parts, strict=True))
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :n_neighbors]
        yield np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)


def copies_of_pixels(
    pairs: CopyPairs, neighbors: Neighbors, hashes: ImageHashes
) -> tuple[CopyPairs, np.ndarray]:
    """Return those of the pairs that are copies, and the number of bits in which each differs."""
    bits = hashes.bits(pairs.first, pairs.second)
    usual = _usual_bits(neighbors, hashes)
    usual = np.minimum(usual[pairs.first], usual[pairs.second])
    are_close = (bits <= _CLOSE_BITS * usual) & (pairs.ratio <= CLOSE)
    # Where neighbors do not differ, as flat images, the hash is no evidence.
    chosen = (usual > 0) & (are_close | (bits <= _FEW_BITS * usual))
    return pairs.part(chosen), bits[chosen]


def _usual_bits(neighbors: Neighbors, hashes: ImageHashes) -> np.ndarray:
    """Return the number of bits in which three of four neighbors differ at most, for each row."""
    n_samples, n_neighbors = neighbors.rows.shape
    rows = np.repeat(np.arange(n_samples), n_neighbors)
    bits = hashes.bits(rows, neighbors.rows.reshape(-1)).reshape(n_samples, n_neighbors)
    return np.percentile(bits, 75, axis=1)
