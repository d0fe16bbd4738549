r"""Markdown: names as plain text, numbers, and templates that escape what they are given.

Names of classes and files may hold anything. In the cells of a table and in sentences, they are
shown as they are, without links, formulas, HTML or emphasis; see :mod:`featx._text` for control
characters.
"""

from __future__ import annotations

import math
import re
from functools import cache
from numbers import Real
from typing import Any

from featx._text import one_line
from featx.exceptions import MissingExtraError

NOT_MEASURED = "not measured"
_MAX_NAME_CHARS = 200
# A dot after "www" and a colon before other text make links, or emoji of ":warning:". An underscore
# between letters or digits is one.
_SPECIAL = re.compile(
    r"([\\`*\[\]#|~$@]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.|:(?=\S))", re.IGNORECASE
)
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Markdown(str):
    """Text that is Markdown already, and is not escaped again."""

    __slots__ = ()


def escaped(value: object) -> Markdown:
    r"""Return a value as Markdown that shows it as plain text, in one line.

    Examples
    --------
    >>> print(escaped("<b>*$x_1$*</b>"))
    &lt;b&gt;\*\$x_1\$\*&lt;/b&gt;
    >>> escaped("sea lion")
    'sea lion'
    """
    if isinstance(value, Markdown):
        return value
    text = one_line(value, max_chars=_MAX_NAME_CHARS)
    text = re.sub("[&<>]", lambda found: _ENTITIES[found[0]], text)
    return Markdown(_SPECIAL.sub(r"\\\1", text).strip() or "(empty)")


def as_code(value: object) -> Markdown:
    r"""Return a value as code in one line.

    Examples
    --------
    >>> print(as_code("ab12"))
    `ab12`
    >>> print(as_code("a`b"))
    a\`b
    """
    text = one_line(value, max_chars=_MAX_NAME_CHARS)
    return escaped(text) if set(text) & set("`|\\") or not text.strip() else Markdown(f"`{text}`")


def number(value: Any, digits: int = 3) -> Markdown:
    """Return a number, or "not measured" for anything else.

    Examples
    --------
    >>> number(0.91234), number(12), number(None)
    ('0.912', '12', 'not measured')
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return Markdown(NOT_MEASURED)
    if isinstance(value, int):
        return Markdown(f"{value:,}")
    value = float(value)
    return Markdown(f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.4g}")


def interval(ends: Any) -> Markdown:
    """Return the two ends of an interval, or "not measured" for anything else.

    Examples
    --------
    >>> interval([0.5, 0.75])
    '0.500 to 0.750'
    """
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        return Markdown(NOT_MEASURED)
    shown = list(map(number, ends))
    return Markdown(NOT_MEASURED if NOT_MEASURED in shown else " to ".join(shown))


def render(template: str, context: dict[str, Any]) -> str:
    """Return a template of this folder, filled in; values are escaped unless they are Markdown.

    MissingExtraError is raised if Jinja2 is not installed.
    """
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as exc:
        raise MissingExtraError(
            "a model card needs Jinja2, which is not installed: pip install 'featx[report]'"
        ) from exc
    # Jinja2's autoescape is for HTML.
    return Environment(  # noqa: S701
        loader=PackageLoader("featx.reporting"),
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
