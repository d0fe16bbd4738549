"""Names in Markdown are plain text."""

import re
import sys

import pytest
from markdown_cells import NAMES, cells_of

from featx._text import one_line
from featx.exceptions import MissingExtraError
from featx.reporting import markdown
from featx.reporting.markdown import as_code, escaped, interval, number


@pytest.mark.parametrize("name", NAMES)
def test_name_in_table_is_shown_as_text(name):
    shown, with_tags = cells_of(f"| class | n |\n|---|---|\n| {escaped(name)} | 1 |\n")
    assert with_tags == []
    assert shown == ["class", "n", one_line(name), "1"]


def test_names_make_no_links_or_formulas():
    assert "www." not in escaped("www.evil.example")
    assert escaped("http://evil.example") == r"http\://evil.example"
    assert re.findall(r"(?<!\\)[$@`|]", escaped("$x$ @you `a` | b")) == []


@pytest.mark.parametrize("name", ["", "   "])
def test_empty_name_is_visible(name):
    assert escaped(name) == "(empty)"


def test_long_name_is_shortened():
    assert len(escaped("n" * 10_000)) < 300


def test_code_with_backtick_becomes_text():
    assert as_code("1f35") == "`1f35`"
    assert "`" not in as_code("a`b").replace("\\`", "")


@pytest.mark.parametrize("value", [None, "0.5", float("nan"), float("inf"), True, [0.5], {}])
def test_other_values_are_not_measured(value):
    assert number(value) == "not measured"
    assert interval(value) == interval([0.5, value]) == "not measured"


def test_large_numbers_stay_short():
    assert [number(value) for value in (1234567.8, 12_345, 999.5)] == [
        "1.235e+06",
        "12,345",
        "999.500",
    ]


def test_card_without_jinja_names_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    markdown._environment.cache_clear()
    with pytest.raises(MissingExtraError, match=r"Jinja2.*pip install 'featx\[report\]'"):
        markdown.render("card.md", {})
