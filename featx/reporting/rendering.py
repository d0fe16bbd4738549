"""``html_template``, ``text_of``: templates of pages, in which all text is escaped."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from featx._text import one_line

_PACKAGE = "featx.reporting"


def html_template(name: str) -> Any:
    """Return a template of this package; what it shows becomes one line of escaped text."""
    return _environment().get_template(name)


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        finalize=_without_control_characters,
        undefined=StrictUndefined,
        trim_blocks=True,
    )


def _without_control_characters(value: Any) -> Any:
    """Return text, such as a name, on one line; HTML of our own, marked as safe, is unchanged."""
    return one_line(value) if type(value) is str else value


def text_of(name: str) -> str:
    """Return the text of a file beside the templates, such as a style sheet."""
    return (resources.files(_PACKAGE) / "templates" / name).read_text(encoding="utf-8")
