"""Tables in terminals of any width: numbers and names are never cut."""

import pytest
from rich.console import Console

from featx.cli.tables import TextTable


def printed(table, width):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(table.within(width))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [40, 60])
def test_text_table_names_of_numbers_wrap_first(width):
    table = TextTable(("class", "#largest difference"), [("sunflowers of June", 0.25)])
    lines = printed(table, width)
    assert any("│ sunflowers of June │" in line for line in lines)
    assert any("difference" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_text_table_too_narrow_becomes_lines():
    table = TextTable(
        ("", "class", "#images", "#1"), [("*", "sunflowers", 1200, 7), ("", "tulips", 3, 8)]
    )
    assert printed(table, 30) == [
        *("*", "class: sunflowers", "images: 1200", "1: 7", ""),
        *("class: tulips", "images: 3", "1: 8"),
    ]


def test_text_table_without_rows_shows_names():
    assert "class" in printed(TextTable(("class", "#images"), []), 30)[1]


def test_text_table_cut_column_ends_with_ellipsis():
    lines = printed(TextTable(("#n", "~made by"), [(1, "mobilenet_v2, layer 'out'")]), 24)
    assert lines[3] == "│ 1 │ mobilenet_v2, l… │"
