"""``extractor_facts``, ``estimator_facts``: what notebooks show of an estimator, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from featx._text import one_line

_MAX_CLASSES = 8
_MAX_CHARS = 100


def extractor_facts(extractor: Any) -> list[tuple[str, str]]:
    """Return backbone, input, features, samples and cache of a FeatureExtractor."""
    facts = [("backbone", one_line(extractor.label, max_chars=_MAX_CHARS))]
    if hasattr(extractor, "feature_shape_"):
        facts.append(("input", _sides(extractor.space_.input_shape)))
        facts.append(("features", _sides(extractor.feature_shape_)))
    return [*facts, *_samples_facts(extractor), *_state_facts(extractor, extractor)]


def estimator_facts(estimator: Any, extractor: Any) -> list[tuple[str, str]]:
    """Return what :func:`extractor_facts` does, with the head and the classes of an estimator."""
    backbone = [
        fact for fact in extractor_facts(extractor) if fact[0] in ("backbone", "input", "features")
    ]
    facts = [*backbone, ("head", _head_text(estimator.head))]
    classes = getattr(getattr(estimator, "head_", None), "classes_", None)
    if classes is not None:
        facts.append(("classes", _classes_text(classes)))
    return [*facts, *_samples_facts(estimator), *_state_facts(estimator, extractor)]


def _samples_facts(estimator: Any) -> list[tuple[str, str]]:
    report = getattr(estimator, "report_", {})
    n_samples, n_forward, n_hits = map(report.get, ("n_samples", "n_forward", "n_hits"))
    if n_samples is None:
        return []
    counts = f"{n_samples:,} ({n_forward or 0:,} computed, {n_hits or 0:,} from the cache)"
    return [("samples", counts)]


def _state_facts(estimator: Any, extractor: Any) -> list[tuple[str, str]]:
    cache = extractor.resolved_cache()
    return [
        ("cache", "none" if cache is None else one_line(cache.path)),
        ("fitted", "yes" if estimator.__sklearn_is_fitted__() else "no"),
    ]


def _head_text(head: Any) -> str:
    """Return the name of a head, or its parameters without the scaling before it."""
    last = head.steps[-1][1] if hasattr(head, "steps") else head
    return one_line(last, max_chars=_MAX_CHARS)


def _sides(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _classes_text(classes: Any) -> str:
    if isinstance(classes, list):
        return f"of {len(classes)} outputs"
    names = [one_line(name, max_chars=30) for name in classes[:_MAX_CLASSES]]
    more = ["..."] if len(classes) > _MAX_CLASSES else []
    return f"{len(classes)}: {', '.join([*names, *more])}"
