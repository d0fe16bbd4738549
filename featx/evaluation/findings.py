"""All that may be wrong with labeled images, as one list of findings.

The findings are those of :func:`find_image_issues`, :func:`near_duplicates`, outliers and
:func:`find_label_issues`; and pairs of copies that lie in two classes, or in two splits such as
train and test.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from sklearn.utils import Bunch

from featx.evaluation.duplicates import copies_among
from featx.evaluation.folds import n_possible_folds
from featx.evaluation.image_checks import ISSUES
from featx.evaluation.label_issues import find_label_issues
from featx.evaluation.outliers import find_outliers
from featx.evaluation.pixel_hashes import ImageHashes
from featx.exceptions import InputError, ParameterError

KINDS = (
    *ISSUES[:-1],
    "suspect label",
    "in two classes",
    "in two splits",
    "exact duplicate",
    "near-duplicate",
    "outlier",
)


class Finding(NamedTuple):
    """Something that may be wrong with an image.

    Attributes
    ----------
    row : int
    issue : str
        One of ``KINDS``.
    score : float
        Measure that decided, NaN for unreadable images: a level from 0 to 1, sharpness, the side
        in pixels, the aspect ratio, the cosine of copies, the z-score of outliers, the probability
        of the label.
    detail : str
        Reason, size or suggested label.
    other : int
        Row of the other image of a pair, -1 without one.
    """

    row: int
    issue: str
    score: float
    detail: str
    other: int = -1


class Findings(NamedTuple):
    """The findings, by kind; the label check as :func:`find_label_issues` returns it.

    Attributes
    ----------
    found : list of Finding
    labels : Bunch or None
        None if labels were not checked.
    unchecked : str
        Reason why labels were not checked, empty if they were.
    """

    found: list[Finding]
    labels: Bunch | None
    unchecked: str


def find_all_issues(
    images: Bunch,
    embeddings: np.ndarray,
    *,
    labels: Any = None,
    splits: Any = None,
    groups: Any = None,
) -> Findings:
    """Return what may be wrong with images, by kind, the worst of each kind first.

    `images` is the result of :func:`find_image_issues`; `embeddings` (n_samples, n_features) are
    NaN for samples that could not be read; `labels`, `splits` and `groups`, (n_samples,), are
    names. Copies, and samples of a group, are in one fold where labels are checked.
    """
    is_read = (images.fault == "") & np.isfinite(embeddings).all(axis=1)
    rows = np.flatnonzero(is_read)
    X = np.asarray(embeddings[rows], np.float32)
    found = list(_of_pixels(images))
    together = np.arange(len(rows))
    if len(rows):
        copies = copies_among(X, ImageHashes.of_issues(images, rows))
        together = copies.groups
        if groups is not None:
            together = joined_groups(together, np.asarray(groups)[rows])
        found += _of_copies(copies, rows, images.first, labels, splits)
        scores, outliers = find_outliers(X)
        found += [Finding(int(rows[at]), "outlier", float(scores[at]), "") for at in outliers]
    checked, unchecked = _checked_labels(X, labels, rows, together)
    if checked is not None:
        found += [
            Finding(
                int(rows[at]),
                "suspect label",
                float(checked.scores[at]),
                str(checked.suggested[at]),
            )
            for at in checked.indices.tolist()
        ]
    found.sort(key=lambda finding: KINDS.index(finding.issue))
    return Findings(found, checked, unchecked)


def joined_groups(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return groups such that samples in one group by either of two arrays are in one group.

    Examples
    --------
    >>> joined_groups(np.array([0, 0, 1, 2]), np.array(["a", "b", "b", "c"])).tolist()
    [0, 0, 0, 1]
    """
    (_, one), (_, other) = (np.unique(each, return_inverse=True) for each in (first, second))
    n_one, n_other = one.max() + 1, other.max() + 1
    links = sparse.coo_array(
        (np.ones(len(one), bool), (one, n_one + other)), shape=(n_one + n_other,) * 2
    )
    return csgraph.connected_components(links, directed=False)[1][one]


def _of_pixels(images: Bunch) -> Iterator[Finding]:
    """Yield what find_image_issues found, copies excepted."""
    side = np.sqrt(images.width * images.height)
    aspect = np.maximum(images.width, images.height) / np.maximum(
        np.minimum(images.width, images.height), 1
    )
    sizes = zip(images.width, images.height, strict=True)
    size = [f"{width}x{height} pixels" for width, height in sizes]
    for issue, measure, detail in (
        ("unreadable", np.full(len(side), np.nan), images.fault),
        ("dark", images.brightness, size),
        ("bright", -images.brightness, size),
        ("low contrast", images.contrast, size),
        ("blurred", images.sharpness, size),
        ("tiny", side, size),
        ("odd shape", -aspect, size),
    ):
        rows = images.issues[issue]
        for row in rows[np.argsort(measure[rows], kind="stable")].tolist():
            yield Finding(row, issue, abs(float(measure[row])), str(detail[row]))


def _of_copies(
    copies: Bunch, rows: np.ndarray, originals: np.ndarray, labels: Any, splits: Any
) -> Iterator[Finding]:
    """Yield pairs of copies, and those of them in two classes or in two splits."""
    for pair, cosine in zip(rows[copies.pairs].tolist(), copies.similarity.tolist(), strict=True):
        first, second = pair
        is_exact = originals[first] == originals[second]
        issues = ["exact duplicate" if is_exact else "near-duplicate"]
        names = (("in two classes", labels), ("in two splits", splits))
        issues += [
            issue for issue, name in names if name is not None and name[first] != name[second]
        ]
        for issue in issues:
            yield Finding(second, issue, cosine, "", first)


def _checked_labels(
    X: np.ndarray, labels: Any, rows: np.ndarray, groups: np.ndarray
) -> tuple[Bunch | None, str]:
    """Return label issues with copies in one fold, or the reason why labels cannot be checked."""
    if labels is None:
        return None, "there are no labels"
    if not len(rows):
        return None, "no image could be read"
    y = np.asarray(labels)[rows]
    try:
        return find_label_issues(X, y, groups=groups, cv=n_possible_folds(y, groups)), ""
    except (InputError, ParameterError) as exc:
        return None, str(exc)
