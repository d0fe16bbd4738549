"""NamedPackages: installed packages that code uses, each of which counts by its version.

The code of an installed package is not followed (see ``code.py``), since it is large and holds
locks, caches and loggers. Its name and version stand for it. A package that is not installed in
``site-packages``, such as a project of the user, has no version that can be trusted: its code is
followed.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import sysconfig
import types
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from featx.digests.code import is_library, object_named


class NamedPackages:
    """The installed packages that :func:`featx.digests.code.code_digest` met, with versions.

    Examples
    --------
    >>> packages = NamedPackages()
    >>> packages.can_import("xxhash.version"), packages.can_import("no_such_package")
    (True, False)
    >>> list(packages.versions)
    ['xxhash']
    """

    def __init__(self) -> None:
        self.versions: dict[str, str] = {}

    def can_import(self, module: str) -> bool:
        """Return True, and note the version, if a module belongs to an installed package."""
        package = module.partition(".")[0]
        found = _version_in_site_packages(package)
        if found is None:
            return False
        self.versions[package] = found
        return True

    def known(self, value: Any) -> str | None:
        """Return the name of a module, function or class of an installed package, else None."""
        if isinstance(value, types.ModuleType):
            module: Any = value.__name__
            name: Any = ""
        else:
            module = getattr(value, "__module__", None)
            name = getattr(value, "__qualname__", None)
            are_names = isinstance(module, str) and isinstance(name, str)
            if not are_names or object_named(module, name) is not value:
                return None
        return f"{module}:{name}" if not is_library(module) and self.can_import(module) else None


def installed_version(package: str) -> str | None:
    """Return the version of a package by the name that code imports; None without one.

    Examples
    --------
    >>> installed_version("no_such_package")
    """
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        names = packages_distributions().get(package, ())
        return ", ".join(f"{name} {version(name)}" for name in names) or None


@functools.cache
def _version_in_site_packages(package: str) -> str | None:
    """Return the version of a package that is installed in ``site-packages``; None for others."""
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):  # relative imports have an empty name
            return None
        file = spec.origin if spec else None
    if file is None:
        return None
    folders = {sysconfig.get_paths()[name] for name in ("purelib", "platlib")}
    is_installed = any(Path(file).is_relative_to(folder) for folder in folders)
    return installed_version(package) if is_installed else None
