"""Views of samples: embeddings of the samples themselves, and of versions of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from sklearn.utils import Bunch

from featx.backbones.augment import Augmentation
from featx.extraction.faults import readable_mask
from featx.inputs.augmented import versions_of
from featx.inputs.file_index import FileIndex
from featx.inputs.samples import Samples


class Embed(Protocol):
    """A pass: see :func:`featx.extraction.forward.embed`."""

    def __call__(
        self, samples: Samples, *, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, Bunch]:
        """Embed samples."""


def embed_views(
    embed: Embed,
    samples: Samples,
    augmentation: Augmentation | None,
    n_views: int,
    *,
    files: FileIndex,
    out: np.ndarray | None = None,
) -> Iterator[tuple[int, Any, np.ndarray, Bunch]]:
    """Embed samples, and then versions of them, all those of some samples at a time.

    Parameters
    ----------
    embed : callable
    samples : Samples
    augmentation : Augmentation or None
        None if there are no versions.
    n_views : int
    files : FileIndex
        Digests of files that were hashed before.
    out : ndarray of shape (n_samples, n_features), float32, default=None
        Where the embeddings of the samples themselves go.

    Yields
    ------
    number : int
        Of the version; 0 is the samples themselves.
    rows : slice or ndarray of shape (m,)
        Of the samples; none of what cannot be read has versions.
    embeddings : ndarray of shape (m, n_features), float32
        NaN where a sample could not be read. The caller may change it.
    report : Bunch
        What was done so far.
    """
    embeddings, report = embed(samples, out=out)
    yield 0, slice(None), embeddings, report
    if augmentation is None:
        return
    readable = np.flatnonzero(readable_mask(embeddings))
    keys = samples.keys(files)[0]
    for rows, changed in versions_of(samples, readable, keys[readable], augmentation, n_views - 1):
        flat, more = embed(changed)
        report = _with_more(report, more)
        versions = flat.reshape(len(rows), n_views - 1, -1)
        for number in range(1, n_views):
            yield number, rows, versions[:, number - 1], report


def _with_more(report: Bunch, more: Bunch) -> Bunch:
    """Add up what was done in two passes over the same samples, or their versions."""
    counts = ("n_unread", "n_hits", "n_forward", "n_above_frontier", "bytes_read", "bytes_written")
    seconds = {stage: s + more.seconds[stage] for stage, s in report.seconds.items()}
    return Bunch(
        n_samples=report.n_samples,
        seconds=seconds,
        engine=more.engine or report.engine,
        batch_size=more.batch_size or report.batch_size,
        **{name: report[name] + more[name] for name in counts},
    )
