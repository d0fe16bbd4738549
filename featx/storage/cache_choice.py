"""Which cache the `cache` parameter of an extractor stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from featx.storage.cache import EmbeddingCache, default_cache_path


def resolve_cache(cache: Any) -> EmbeddingCache | None:
    """Turn the `cache` parameter of an extractor into a cache, or None for none.

    Parameters
    ----------
    cache : "auto", None, str, Path or EmbeddingCache
    """
    if cache is None or isinstance(cache, EmbeddingCache):
        return cache
    path = default_cache_path() if isinstance(cache, str) and cache == "auto" else Path(cache)
    return _shared_cache(str(path.expanduser().absolute()))


_SHARED: dict[str, EmbeddingCache] = {}


def _shared_cache(path: str) -> EmbeddingCache:
    # Indexes that were read once serve every estimator of the process: a grid search makes
    # hundreds of clones, which would each read them again.
    return _SHARED.setdefault(path, EmbeddingCache(path))
