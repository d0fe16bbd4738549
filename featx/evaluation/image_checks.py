"""Images that are unreadable, dark, bright, blurred, tiny, oddly shaped, or exact duplicates.

Each image is measured on a picture of at most 256 pixels, close to what a backbone sees, so that
the size of a photograph does not matter. The limits were chosen on photographs, X-rays, signs and
icons, and the benchmark counts false alarms and what is found (benchmarks/bench_image_checks.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from featx.evaluation.pixel_hashes import HASH_WORDS, both_hashes, first_rows, picture_digest
from featx.evaluation.small_images import SmallImage, small_images
from featx.inputs.reader import Reader
from featx.inputs.recognize import as_samples

_DARK = 0.32  # largest level of nearly all pixels; that of photographs is 0.4 or more
_BRIGHT = 0.8  # smallest level of nearly all pixels; that of photographs is 0.73 or less
_LOW_CONTRAST = 0.15  # range of nearly all levels; that of photographs is 0.34 or more
_BLURRED = 0.6  # sharpness of edges that spread over 0.9 pixels; photographs have 0.7 or more
_EDGES = 0.1  # of the energy of the gradient, if not all of it is noise
_TINY = 1 / 4  # of the usual side
_ODD_ASPECT = 3.0  # of the longer side to the shorter one ...
_ODD_FACTOR = 2.0  # ... and of that to the usual one
_FEW = 20  # images, too few to call anything usual

ISSUES = (
    "unreadable",
    "dark",
    "bright",
    "low contrast",
    "blurred",
    "tiny",
    "odd shape",
    "exact duplicate",
)


class ImageMeasures(NamedTuple):
    """Measures of an image; those of pixels are of its picture of at most 256 pixels.

    Levels are luma (ITU-R 601) from 0 (black) to 1 (white). Of an image that cannot be read, the
    sizes and hashes are 0 and other measures NaN.

    Attributes
    ----------
    width, height : int
        Size of the upright image in pixels.
    brightness, contrast : float
        Mean and standard deviation of the levels.
    low, high : float
        Levels that 5% and 99% of the pixels do not exceed.
    level_range : float
        Difference of the levels that 99% and 1% of the pixels do not exceed.
    sharpness : float
        See :func:`sharpness_of`; NaN without edges.
    hash, mirrored_hash : ndarray of shape (4,), uint64
        Bits of ``difference_hash`` of the image and of its mirror image.
    digest : bytes
        Digest of sizes and pixels, equal for files of the same content.
    fault : str
        Reason why the image cannot be read; empty if it can.
    """

    width: int
    height: int
    brightness: float
    contrast: float
    low: float
    high: float
    level_range: float
    sharpness: float
    hash: np.ndarray
    mirrored_hash: np.ndarray
    digest: bytes
    fault: str


def find_image_issues(X: Any, *, read: Callable[..., Any] | None = None) -> Bunch:
    """Find images that are unreadable, dark, blurred, tiny, oddly shaped, or exact duplicates.

    Each image is read once, and measured on a picture of at most 256 pixels.

    ==================  ============================================================================
    issue               images
    ==================  ============================================================================
    "unreadable"        those that featx cannot read; ``fault`` has the reasons
    "dark"              99% of the pixels are darker than 0.32 of white
    "bright"            95% of the pixels are brighter than 0.8 of white
    "low contrast"      the levels of 98% of the pixels differ by less than 0.15 of white
    "blurred"           sharpness below 0.6: edges spread over more than 0.9 pixels (their standard
                        deviation), where the longer side has at most 256
    "tiny"              the root of the number of pixels is below a quarter of the median
    "odd shape"         one side more than 3 times as long as the other, and more than twice as
                        elongated as the median image
    "exact duplicate"   the same size and pixels as an earlier image
    ==================  ============================================================================

    All X-rays may be dark, and all scans bright. So with 20 images or more, "dark", "bright", "low
    contrast" and "blurred" have no rows if they would hold for half of the images.

    Parameters
    ----------
    X : sequence of images
        Paths, encoded images, PIL images or arrays, as for :class:`FeatureExtractor`.
    read : callable, default=None
        Reader of other files: see :class:`FeatureExtractor`.

    Returns
    -------
    Bunch
        ``width``, ``height`` (n_samples,), int64, of upright images, 0 if unreadable;
        ``brightness``, ``contrast`` (n_samples,), float64, mean and standard deviation of luma
        from 0 to 1; ``sharpness`` (n_samples,), float64, about 2 for sharp photographs, NaN
        without edges; ``hashes``, ``mirrored_hashes`` (n_samples, 4), uint64, bits of the
        difference hash of the image and its mirror image; ``first`` (n_samples,), int64, the first
        row with the same pixels; ``fault`` (n_samples,), object, reasons why images cannot be read,
        else empty; ``issues``, dict from each issue to its rows, int64.

    Raises
    ------
    InputError
        `X` does not hold images, or floating-point pixels seem to be scaled to 0..1.

    See Also
    --------
    near_duplicates : Pairs of samples that are nearly the same.
    find_label_issues : Suspect labels.

    Notes
    -----
    Sharpness is the energy of the Laplacian, whose variance is a common measure (Pech-Pacheco et
    al. 2000, "Diatom autofocusing in brightfield microscopy"), divided by that of the gradient. So
    contrast and the number of edges do not matter: an edge with a standard deviation of s pixels
    has 1 / (2 s^2). The energies of noise, by the estimate of Immerkaer 1996, "Fast noise variance
    estimation", are subtracted. Percentiles for "dark" and "bright" are as in cleanvision.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import find_image_issues
    >>> photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    >>> found = find_image_issues([photo, photo // 8, photo[:8, :8], photo, b"no image"])
    >>> {issue: rows.tolist() for issue, rows in found.issues.items() if len(rows)}
    {'unreadable': [4], 'dark': [1], 'low contrast': [1], 'tiny': [2], 'exact duplicate': [3]}
    """
    samples = as_samples(X)
    if read is not None:
        samples = samples.read_by(Reader(read))
    return issues_of_measures(map(measure_image, small_images(samples)))


def measure_image(small: SmallImage) -> ImageMeasures:
    """Measure a picture of at most 256 pixels; that of an unreadable sample has its fault."""
    if small.image is None:
        empty = np.zeros(HASH_WORDS, np.uint64)
        nan = np.nan
        return ImageMeasures(0, 0, nan, nan, nan, nan, nan, nan, empty, empty, b"", small.fault)
    gray = small.image.convert("L")
    levels = np.asarray(gray, np.float32)
    counts = np.cumsum(gray.histogram())
    ranks = np.array([0.01, 0.05, 0.99]) * counts[-1]
    lowest, low, high = (np.searchsorted(counts, ranks) / 255).tolist()
    return ImageMeasures(
        small.width,
        small.height,
        float(levels.mean()) / 255,
        float(levels.std()) / 255,
        low,
        high,
        high - lowest,
        sharpness_of(levels),
        *both_hashes(gray),
        picture_digest(small),
        "",
    )


def sharpness_of(levels: np.ndarray) -> float:
    """Return the energy of the Laplacian divided by that of the gradient, both without noise.

    `levels` are gray levels (h, w), float32. NaN is returned where there are no edges, or only
    noise. See :func:`find_image_issues` for the sources.

    Examples
    --------
    >>> from scipy.special import ndtr
    >>> x = np.arange(-20, 20, dtype=np.float32) + 0.5
    >>> [round(sharpness_of(np.tile(ndtr(x / s), (9, 1))), 2) for s in (0.1, 0.9, 2.0)]
    [2.05, 0.5, 0.12]
    """
    if min(levels.shape) < 3:
        return np.nan
    across = levels[:, 2:] + levels[:, :-2] - 2 * levels[:, 1:-1]
    down = levels[2:] + levels[:-2] - 2 * levels[1:-1]
    laplacian = across[1:-1] + down[:, 1:-1]
    # The difference of the two is blind to edges, and of variance 36 for noise of variance 1.
    checked = across[2:] + across[:-2] - 2 * across[1:-1]
    noise = (1.4826 * float(np.median(np.abs(checked)))) ** 2 / 36
    right, below = np.diff(levels, axis=1), np.diff(levels, axis=0)
    measured = float(np.mean(right**2) + np.mean(below**2))
    gradient = measured - 4 * noise
    if measured == 0 or gradient < _EDGES * measured:
        return np.nan
    return max(0.0, float(np.mean(laplacian**2)) - 20 * noise) / gradient


def issues_of_measures(measures: Iterable[ImageMeasures]) -> Bunch:
    """Return the measures of all images as arrays, with the rows of each issue.

    See :func:`find_image_issues`.
    """
    measured = list(measures)
    found = Bunch(
        width=_column(measured, "width", np.int64),
        height=_column(measured, "height", np.int64),
        brightness=_column(measured, "brightness", np.float64),
        contrast=_column(measured, "contrast", np.float64),
        sharpness=_column(measured, "sharpness", np.float64),
        hashes=np.array([one.hash for one in measured], np.uint64).reshape(-1, HASH_WORDS),
        mirrored_hashes=np.array([one.mirrored_hash for one in measured], np.uint64).reshape(
            -1, HASH_WORDS
        ),
        first=first_rows([one.digest for one in measured]),
        fault=_column(measured, "fault", object),
    )
    is_read = found.fault == ""
    flags = {
        "unreadable": ~is_read,
        "dark": _unless_usual(_column(measured, "high", np.float64) < _DARK, is_read),
        "bright": _unless_usual(_column(measured, "low", np.float64) > _BRIGHT, is_read),
        "low contrast": _unless_usual(
            _column(measured, "level_range", np.float64) < _LOW_CONTRAST, is_read
        ),
        "blurred": _unless_usual(found.sharpness < _BLURRED, is_read),
        "tiny": is_read & _are_tiny(found.width, found.height, is_read),
        "odd shape": is_read & _are_odd(found.width, found.height, is_read),
        "exact duplicate": found.first != np.arange(len(measured)),
    }
    found.issues = {issue: np.flatnonzero(flags[issue]) for issue in ISSUES}
    return found


def _column(measured: list[ImageMeasures], name: str, dtype: Any) -> np.ndarray:
    return np.array([getattr(one, name) for one in measured], dtype)


def _unless_usual(flags: np.ndarray, is_read: np.ndarray) -> np.ndarray:
    """Return flags of readable images, or none if so many have them that they are usual."""
    n_read = int(is_read.sum())
    is_usual = n_read >= _FEW and 2 * int(flags.sum()) >= n_read
    return np.zeros_like(flags) if is_usual else flags & is_read


def _are_tiny(width: np.ndarray, height: np.ndarray, is_read: np.ndarray) -> np.ndarray:
    side = np.sqrt(width * height)
    usual = np.median(side[is_read]) if is_read.any() else 0.0
    return side < _TINY * usual


def _are_odd(width: np.ndarray, height: np.ndarray, is_read: np.ndarray) -> np.ndarray:
    aspect = np.maximum(width, height) / np.maximum(np.minimum(width, height), 1)
    usual = np.median(aspect[is_read]) if is_read.any() else 1.0
    return (aspect > _ODD_ASPECT) & (aspect > _ODD_FACTOR * usual)
