"""TensorFlow imported without its greetings.

Its libraries write half a dozen lines about processors and drivers straight to standard error when
they are loaded, before any setting of theirs is read. For a command whose standard error is for
progress and faults, the file descriptor is turned away while the import lasts.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_NOISY = "tensorflow"


class _QuietLoader(importlib.abc.Loader):
    """Loads what another loader would, while nothing is written to standard error."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with _without_standard_error():
            self._loader.exec_module(module)
        # It also warns of each network beyond the fifth, as if one had been traced again and again.
        logging.getLogger(_NOISY).setLevel(logging.ERROR)


class _QuietFinder(importlib.abc.MetaPathFinder):
    """Finds TensorFlow, once, as the other finders would."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NOISY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


@contextlib.contextmanager
def _without_standard_error() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def keep_imports_quiet() -> None:
    """Make the first import of TensorFlow in this process a quiet one; it need never come."""
    if _NOISY not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder())
