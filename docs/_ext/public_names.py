"""Public names of featx for the API pages: members of classes, and what constants are.

``setup`` makes this module a Sphinx extension.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import featx
from featx import readers

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def members_of(cls: type) -> dict[str, list[str]]:
    """Return the names of the methods and properties that featx itself defines.

    What scikit-learn defines (``get_params``, ``set_output``) or generates (``set_fit_request``) is
    left out: its docstrings link to pages of its own site.
    """
    members: dict[str, list[str]] = {"methods": [], "properties": []}
    for name in dir(cls):
        member = getattr(cls, name)
        code = getattr(member, "fget", None) or getattr(member, "func", member)
        if name.startswith("_") or not callable(code) or not code.__module__.startswith("featx"):
            continue
        members["methods" if callable(member) else "properties"].append(name)
    return members


def public_members() -> dict[str, dict[str, list[str]]]:
    """Return the members of each public class of featx."""
    public = {name: getattr(featx, name) for name in featx.__all__}
    public |= {name: getattr(readers, name) for name in readers.__all__}
    return {name: members_of(cls) for name, cls in public.items() if inspect.isclass(cls)}


def describe_constant(_: Sphinx, what: str, name: str, *about: Any) -> None:
    """Describe a constant by the comment above it, of which autodoc knows only where it is set.

    Without it, autodoc repeats the docstring of the constant's type.
    """
    from sphinx.pycode import ModuleAnalyzer

    lines: list[str] = about[-1]
    module, _dot, constant = name.rpartition(".")
    if what == "data" and module == "featx":
        analyzer = ModuleAnalyzer.for_module(f"featx.{featx._HOMES[constant]}")
        lines[:] = analyzer.find_attr_docs()["", constant]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the descriptions with Sphinx, before numpydoc reads them."""
    app.connect("autodoc-process-docstring", describe_constant, priority=400)
    return {"parallel_read_safe": True}
