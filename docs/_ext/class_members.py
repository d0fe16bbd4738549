"""Public members of the classes of featx, for the template of an API page."""

from __future__ import annotations

import inspect

import featx


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
    return {name: members_of(cls) for name, cls in public.items() if inspect.isclass(cls)}
