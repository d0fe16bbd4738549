"""``compare_paired``: accuracies of two classifiers on the same samples, and McNemar's test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import binomtest

from featx.evaluation.intervals import wilson_interval


def compare_paired(
    is_right: np.ndarray, is_right_first: np.ndarray, *, confidence: float = 0.95
) -> dict[str, Any]:
    """Compare the accuracy of a classifier with that of a first one on the same samples.

    The test is McNemar's (1947, doi:10.1007/BF02295996) in its exact form: if both are as good, the
    samples that only one of them gets right are as likely to be those of either. The interval of
    the difference is Newcombe's (1998, method 10, doi:10.1002/(SICI)1097-0258(19981130)17:22).

    Parameters
    ----------
    is_right, is_right_first : ndarray of shape (n_samples,), bool
        True where the prediction is right.
    confidence : float, default=0.95
        Confidence level of the interval.

    Returns
    -------
    dict
        Plain data: ``difference`` of the accuracies, ``interval``, ``p_value``, and the numbers of
        samples that one of them alone gets right, ``n_only_this`` and ``n_only_first``.

    Examples
    --------
    >>> this, first = np.arange(100) < 95, np.arange(100) < 85
    >>> found = compare_paired(this, first)
    >>> found["difference"], round(found["p_value"], 4), found["n_only_this"]
    (0.1, 0.002, 10)
    """
    counts = np.array(
        [
            [np.sum(is_right & is_right_first), np.sum(is_right & ~is_right_first)],
            [np.sum(~is_right & is_right_first), np.sum(~is_right & ~is_right_first)],
        ]
    )
    this, first = int(counts[0, 1]), int(counts[1, 0])
    return {
        "difference": (this - first) / len(is_right),
        "interval": _difference_interval(counts, confidence),
        "p_value": float(binomtest(this, this + first).pvalue) if this + first else 1.0,
        "n_only_this": this,
        "n_only_first": first,
    }


def _difference_interval(counts: np.ndarray, confidence: float) -> list[float]:
    """Return Newcombe's interval from counts of two by two: right and wrong of one by other."""
    n_samples = int(counts.sum())
    n_right = (int(counts[0].sum()), int(counts[:, 0].sum()))
    fractions = [n / n_samples for n in n_right]
    ends = [wilson_interval(n, n_samples, confidence=confidence) for n in n_right]
    below = [fraction - low for fraction, (low, _) in zip(fractions, ends, strict=True)]
    above = [high - fraction for fraction, (_, high) in zip(fractions, ends, strict=True)]
    phi = _phi(counts)

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    difference = fractions[0] - fractions[1]
    low = difference - distance(below[0], above[1])
    return [low, difference + distance(above[0], below[1])]


def _phi(counts: np.ndarray) -> float:
    """Return the correlation of a table of two by two, corrected for continuity as by Newcombe."""
    both, this, first, neither = map(int, counts.ravel())
    product = math.prod(map(int, (*counts.sum(axis=0), *counts.sum(axis=1))))
    if not product:
        return 0.0
    excess = both * neither - this * first
    if excess > 0:
        excess = max(excess - counts.sum() / 2, 0)
    return excess / math.sqrt(product)
