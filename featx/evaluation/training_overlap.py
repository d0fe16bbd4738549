"""``training_overlap``: how many of the evaluated samples an estimator was trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

from featx._transfer import TransferEstimator
from featx.digests.sketch import SKETCH_SIZE, fraction_in

_MAX_DIGEST = 2**64


class TrainingOverlap(NamedTuple):
    """Number of samples that an estimator was trained on, among those that it embedded last."""

    n_samples: int  # without those that could not be read
    n_trained_on: int
    is_exact: bool  # else an estimate

    def describe(self, model: str, *, noun: str = "images") -> str:
        """Return a sentence about scores on samples of the training."""
        about = "" if self.is_exact else "about "
        return (
            f"{about}{self.n_trained_on:,} of {self.n_samples:,} {noun} were in the training data "
            f"of {model}: these scores are too good"
        )


def training_overlap(estimator: TransferEstimator) -> TrainingOverlap | None:
    """Compare the samples that a fitted estimator embedded last with those of its training.

    Both reports hold the smallest digests of the samples' contents, and a saved file keeps that of
    the training. Equal contents count, under any name. Return None where nothing is known: for
    files of earlier versions, or if all digests of few samples lie above those of many.

    Examples
    --------
    >>> import numpy as np
    >>> from featx import TransferClassifier
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> classifier = TransferClassifier("tiny").fit(images[:6], [0, 1] * 3)
    >>> _ = classifier.predict(images[4:])
    >>> training_overlap(classifier).describe("it")
    '2 of 4 images were in the training data of it: these scores are too good'
    """
    report = estimator.extractor_.report_
    own, trained = _digests_in(report), _digests_in(getattr(estimator, "report_", {}))
    found = fraction_in(own, trained) if own and trained else None
    if found is None:
        return None
    n_read = report["n_samples"] - report["n_unread"]
    fraction, is_exact = found
    return TrainingOverlap(n_read, round(fraction * n_read), is_exact and len(own) == n_read)


def _digests_in(report: Any) -> list[int]:
    """Return the digests in a report; a saved file may hold anything in their place."""
    digests = report.get("sample_digests")
    is_sketch = (
        isinstance(digests, list)
        and len(digests) <= SKETCH_SIZE
        and all(isinstance(digest, int) and 0 < digest < _MAX_DIGEST for digest in digests)
    )
    return sorted(digests) if is_sketch else []
