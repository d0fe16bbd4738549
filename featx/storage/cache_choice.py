"""Which cache the `cache` parameter of an extractor stands for."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def path_at_first(
    first: dict[str, tuple[Any, str]],
    name: str,
    given: Any,
    *,
    is_path: Callable[[Any], bool],
) -> Any:
    """Return a parameter, with a relative path as it was first resolved.

    Parameters
    ----------
    first : dict of str to (given, absolute path)
        Relative paths as first resolved, by the name of the parameter; updated.
    name : str
        Name of the parameter.
    given : object
        Value of the parameter.
    is_path : callable
        Check that a value is the path of an existing file.

    Examples
    --------
    >>> first = {"weights": ("w.h5", "/somewhere/w.h5")}
    >>> path_at_first(first, "weights", "w.h5", is_path=os.path.exists)
    '/somewhere/w.h5'
    >>> path_at_first(first, "weights", "/elsewhere/w.h5", is_path=os.path.exists)
    '/elsewhere/w.h5'
    """
    known = first.get(name)
    if known and known[0] == given:
        return known[1]
    is_relative = isinstance(given, (str, os.PathLike)) and not _is_absolute(given)
    if not (is_relative and is_path(given)):
        return given
    first[name] = given, os.path.abspath(given)
    return first[name][1]


def cache_at_first(first: dict[str, tuple[Any, str]], given: Any) -> Any:
    """Return the `cache` parameter as :func:`path_at_first` does; its folder need not exist."""
    if isinstance(given, str) and given == "auto":
        from_environment = os.environ.get("FEATX_CACHE")
        if not from_environment or _is_absolute(from_environment):
            return given
        given = from_environment
    return path_at_first(first, "cache", given, is_path=lambda path: True)


def _is_absolute(path: str | os.PathLike[str]) -> bool:
    return Path(path).expanduser().is_absolute()


_SHARED: dict[str, EmbeddingCache] = {}


def _shared_cache(path: str) -> EmbeddingCache:
    # Indexes that were read once serve every estimator of the process: a grid search makes
    # hundreds of clones, which would each read them again.
    return _SHARED.setdefault(path, EmbeddingCache(path))
