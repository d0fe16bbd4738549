"""``search_faults``, ``report_faults``: samples that cannot be embedded, all in one message."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from featx._warning import warn_caller
from featx.backbones.backbone import why_not_finite
from featx.backbones.resolve import EmbeddingSource
from featx.exceptions import (
    BackboneError,
    BadSampleError,
    BadSampleWarning,
    SampleFault,
)
from featx.extraction.prefetch import GROUP_SIZE, KnownRows, load
from featx.inputs.kinds import InputForm
from featx.inputs.samples import Samples

_SEARCH_S = 10.0
_SEARCH_ROWS = 1024


def search_faults(
    samples: Samples,
    keys: np.ndarray,
    faults: list[SampleFault],
    *,
    form: InputForm,
    n_jobs: int | None,
) -> tuple[list[SampleFault], int]:
    """Decode the other samples for some seconds, to list as many faults as possible at once.

    `faults` are known already; `form` is that of one input of the network. Return all faults, and
    the number of samples for which there was no time.
    """
    start_s = time.monotonic()
    healthy = np.setdiff1d(np.flatnonzero(keys), [fault.position for fault in faults])
    n_seen = 0
    while n_seen < len(healthy) and time.monotonic() - start_s < _SEARCH_S:
        some = healthy[n_seen : n_seen + _SEARCH_ROWS]
        rows = KnownRows(some)
        for _, _, bad in load(samples, rows, form, batch_size=lambda: GROUP_SIZE, n_jobs=n_jobs):
            faults = faults + bad
        n_seen += len(some)
    return with_duplicates(faults, samples, keys), len(healthy) - n_seen


def with_duplicates(
    faults: list[SampleFault], samples: Samples, keys: np.ndarray
) -> list[SampleFault]:
    """Return faults, and those of all samples with the same content, sorted by position."""
    if not faults:
        return []
    first = {keys[fault.position]: fault for fault in reversed(faults) if keys[fault.position]}
    known = {fault.position for fault in faults}
    repeated = []
    for row in np.flatnonzero(np.isin(keys, list(first))).tolist():
        if row not in known:
            origin = first[keys[row]]
            reason = f"{origin.reason} (found in {origin.name}, which had the same content)"
            repeated.append(samples.fault(row, reason))
    return sorted([*faults, *repeated])


def report_faults(faults: list[SampleFault], n_samples: int, on_error: str) -> None:
    """Raise BadSampleError for faults, or warn if `on_error` is "nan"."""
    if faults and on_error == "raise":
        raise BadSampleError(faults, n_samples)
    if faults:
        warn_caller(BadSampleWarning(faults, n_samples))


def check_finite(
    rows: np.ndarray, outputs: np.ndarray, samples: Samples, sources: Sequence[EmbeddingSource]
) -> None:
    """Raise BackboneError, which names the layer, if outputs of a network are NaN or infinite.

    `outputs` of shape (n, sum of the features of all sources) holds their embeddings side by side.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(outputs.sum()):
            return
    is_finite = np.isfinite(outputs)
    bad = np.flatnonzero(~is_finite.all(axis=1))
    if not len(bad):
        return
    ends = np.cumsum([source.space.n_features for source in sources])
    first = int(np.argmin(is_finite[bad[0]]))
    source = sources[int(np.searchsorted(ends, first, side="right"))]
    backbone, row = source.load_backbone(), int(rows[bad[0]])
    _, inputs, _ = samples.batch(rows[bad[:1]], source.input_form)
    raise BackboneError(
        f"{backbone.spec.label} gives NaN or infinite values for {len(bad)} of {len(rows)} samples "
        f"that could be read (equal ones count once), the first being [{row}] {samples.name(row)}. "
        f"Their embeddings were not stored. {why_not_finite(backbone, inputs)}."
    )
