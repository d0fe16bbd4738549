"""``sketch_of``, ``fraction_in``: the smallest digests of samples, to find those of another set.

The k smallest digests of a set are a uniform sample of its content: Beyer et al. 2007, "On Synopses
for Distinct-Value Estimation Under Multiset Operations".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featx.digests.key_table import matrix_from_keys

SKETCH_SIZE = 1024


def sketch_of(keys: np.ndarray) -> list[int]:
    """Return the smallest 64-bit digests of samples, each once, in increasing order.

    The first halves of keys, (n_samples,) S16, are the digests. Keys of zeros, which stand for
    samples that cannot be read, are left out.

    Examples
    --------
    >>> sketch_of(np.array([bytes(7) + b"b" + bytes(8), bytes(16), bytes(7) + b"a" * 9], "S16"))
    [97, 98]
    """
    digests = np.unique(matrix_from_keys(keys)[:, :8].copy().view(">u8"))
    return digests[digests > 0][:SKETCH_SIZE].tolist()


def fraction_in(sketch: Sequence[int], other: Sequence[int]) -> tuple[float, bool] | None:
    """Estimate the fraction of a set of samples that is in another set, from the sketches of both.

    Return it, and True if it is exact: no digest of the other set is missing that would decide. It
    is None if nothing can be compared: all digests lie above those of the other sketch.

    Examples
    --------
    >>> fraction_in([1, 3, 7, 8], [1, 2, 3])
    (0.5, True)
    """
    limits = [digests[-1] for digests in (sketch, other) if len(digests) >= SKETCH_SIZE]
    compared = [digest for digest in sketch if digest <= min(limits, default=digest)]
    if not compared:
        return None
    n_found = len(set(compared).intersection(other))
    is_exact = len(compared) == len(sketch) < SKETCH_SIZE
    return n_found / len(compared), is_exact
