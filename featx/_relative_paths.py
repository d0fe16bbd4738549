"""KeepsRelativePaths: relative paths mean the same files after the working directory changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Self


class KeepsRelativePaths:
    """Estimators whose relative paths mean the same files after a change of folder.

    Each is resolved when it is first used, pickled or passed to another process.
    """

    _path_params: Callable[[], dict[str, Any]]  # resolves the parameters that may be paths

    def _paths_at_first(self) -> dict[str, tuple[Any, str]]:
        """Return, by name, the relative paths that were given, and their absolute paths."""
        return self.__dict__.setdefault("_first_paths", {})

    def __getstate__(self) -> Any:
        self._path_params()
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        # On another machine, relative paths are resolved again.
        self._first_paths = {
            name: (given, path)
            for name, (given, path) in self._paths_at_first().items()
            if os.path.isdir(os.path.dirname(path))
        }

    def __sklearn_clone__(self) -> Self:
        clone = super().__sklearn_clone__()  # type: ignore[misc]
        clone._first_paths = dict(self._paths_at_first())
        return clone


def path_at_first(
    first: dict[str, tuple[Any, str]],
    name: str,
    given: Any,
    *,
    is_path: Callable[[Any], bool],
) -> Any:
    """Return the parameter `name`, with a relative path as it was first resolved.

    `first` holds, by name, the relative paths that were given and their absolute paths; new ones
    are added. `is_path` checks that a value is the path of an existing file.

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
    if not (isinstance(given, (str, os.PathLike)) and _is_relative(given) and is_path(given)):
        return given
    first[name] = given, os.path.abspath(given)
    return first[name][1]


def cache_at_first(first: dict[str, tuple[Any, str]], given: Any) -> Any:
    """Return the `cache` parameter as :func:`path_at_first` does; its folder need not exist.

    An empty path, which would be the working directory, is returned for the checks to refuse.
    """
    if isinstance(given, str) and given == "auto":
        from_environment = os.environ.get("FEATX_CACHE")
        if not from_environment or not _is_relative(from_environment):
            return given
        given = from_environment
    return path_at_first(first, "cache", given, is_path=lambda path: os.fspath(path) != "")


def _is_relative(path: str | os.PathLike[str]) -> bool:
    # Without pathlib, which takes several times as long: each prediction calls this 18 times.
    text = os.fspath(path)
    return not (text.startswith("~") or os.path.isabs(text))
