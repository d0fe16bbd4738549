"""``facts_html``, ``Record``: results as tables for notebooks, and as text that reads well."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
from sklearn.utils import Bunch

_MAX_ITEMS = 6
_NOT_SHOWN = ("sample_digests",)  # which mean nothing to people
# Colors follow the page, which may be dark.
_STYLE = (
    "<style>.featx-facts{border-collapse:collapse;font-size:90%;margin:.4em 0}"
    ".featx-facts td,.featx-facts th{border:0;border-top:1px solid #8885;padding:.2em .8em;"
    "text-align:left!important;vertical-align:top;background:none;color:inherit}"
    ".featx-facts th{font-weight:normal;opacity:.7;white-space:nowrap}"
    ".featx-facts img{height:56px;margin:0 3px 0 0;display:inline-block}</style>"
)


def facts_html(facts: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values as HTML.

    Examples
    --------
    >>> facts_html([("head", "a < b")]).partition("</style>")[2]
    '<table class="featx-facts"><tr><th>head</th><td>a &lt; b</td></tr></table>'
    """
    return html_table((name, html.escape(value)) for name, value in facts)


def html_table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names, and of values that are HTML already."""
    cells = (f"<tr><th>{html.escape(name)}</th><td>{value}</td></tr>" for name, value in rows)
    return f'{_STYLE}<table class="featx-facts">{"".join(cells)}</table>'


class Record(Bunch):
    """A Bunch that shows a line, or in notebooks a row, for each of its values.

    Examples
    --------
    >>> Record(n_samples=1200, seconds={"forward": 0.123456, "head": 2.0})
    n_samples          1,200
    seconds.forward    0.123
    seconds.head       2
    """

    def __repr__(self) -> str:
        facts = list(_flat_facts(self))
        width = max((len(name) for name, _ in facts), default=0)
        return "\n".join(f"{name:<{width}}    {value}" for name, value in facts)

    def _repr_html_(self) -> str:
        return facts_html(_flat_facts(self))


def shown_items(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items of a report, nested ones included, that mean something to people.

    Examples
    --------
    >>> shown_items({"n_samples": 2, "sample_digests": [97, 98]})
    {'n_samples': 2}
    """
    return {
        name: shown_items(value) if isinstance(value, Mapping) else value
        for name, value in report.items()
        if name not in _NOT_SHOWN
    }


def _flat_facts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in shown_items(values).items():
        if isinstance(value, Mapping) and value:
            yield from _flat_facts(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(value)


def _shown(value: Any) -> str:
    """Return a value as short text; a long list shows its first items and its length."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, bool | np.bool_) or value is None:
        return str(value)
    if isinstance(value, Real):
        return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    if isinstance(value, list | tuple):
        items = [_shown(item) for item in value[:_MAX_ITEMS]]
        more = [f"... ({len(value)} in all)"] if len(value) > _MAX_ITEMS else []
        return f"[{', '.join([*items, *more])}]"
    return str(value)
