"""TextTable: a table that fits the terminal, or a line for each cell where it would not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from featx._text import one_line

_MAX_CELL_CHARS = 1_000
_LEAST_TEXT_WIDTH = 10  # of a column of names


class TextTable:
    """A table of text and numbers for a terminal.

    Columns whose name begins with ``#`` are aligned right, and never cut; their names are wrapped
    between words. Cells of those that begin with ``~`` are cut, others are wrapped.

    Examples
    --------
    >>> table = TextTable(("class", "#images"), [("sunflowers", 120)])
    >>> table.fits(23), table.fits(22)
    (True, False)
    >>> print(table.within(12))
    class: sunflowers
    images: 120
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        by_column = list(zip(*rows, strict=True)) or [()] * len(columns)
        self._columns = [
            _Column(name, cells) for name, cells in zip(columns, by_column, strict=True)
        ]

    def fits(self, width: int) -> bool:
        """Return True if nothing is cut or wrapped within a width."""
        return self._excess(width) <= 0

    def within(self, width: int) -> Table | Text:
        """Return what fits into a width: the table, or its rows with a line for each cell."""
        widths = self._widths(width)
        if widths is None:
            return self._as_lines()
        table = Table()
        for column, its_width in zip(self._columns, widths, strict=True):
            table.add_column(
                column.name,
                justify="right" if column.is_number else "left",
                overflow="ellipsis" if column.is_cut else "fold",
                width=its_width,
            )
        for row in zip(*(column.cells for column in self._columns), strict=True):
            table.add_row(*row)
        return table

    def _excess(self, width: int) -> int:
        borders = 3 * len(self._columns) + 1
        return sum(column.full_width for column in self._columns) + borders - width

    def _widths(self, width: int) -> list[int] | None:
        """Return the width of each column; None if numbers, or most of a name, would not fit.

        The names of columns of numbers give way first, then text; the widest of them at a time.
        """
        widths = [column.full_width for column in self._columns]
        for _ in range(self._excess(width)):
            shrinkable = [
                (column.is_number, widths[place], place)
                for place, column in enumerate(self._columns)
                if widths[place] > column.least_width
            ]
            if not shrinkable:
                return None
            widths[max(shrinkable)[-1]] -= 1
        return widths

    def _as_lines(self) -> Text:
        """Return rows with a line for each cell that is not empty, after the name of its column."""
        blocks = []
        for row in zip(*(column.cells for column in self._columns), strict=True):
            named = [(column.name, cell) for column, cell in zip(self._columns, row, strict=True)]
            lines = [Text(f"{name}: " if name else "") + cell for name, cell in named if cell]
            blocks.append(Text("\n").join(lines))
        return Text("\n\n").join(blocks)


class _Column:
    """A column of a table: its name, its cells, and the widths between which it can be shown."""

    def __init__(self, name: str, cells: Sequence[Any]) -> None:
        self.is_number, self.is_cut = name.startswith("#"), name.startswith("~")
        self.name = _as_cell(name[1:] if self.is_number or self.is_cut else name)
        self.cells = list(map(_as_cell, cells))
        for cell in self.cells:
            cell.no_wrap = self.is_cut or None
        widest = max((cell.cell_len for cell in self.cells), default=0)
        self.full_width = max(widest, self.name.cell_len)
        self.least_width = min(self.full_width, _LEAST_TEXT_WIDTH)
        if self.is_number:
            words = (Text(word).cell_len for word in self.name.plain.split())
            self.least_width = max(widest, *words, 0)


def _as_cell(value: Any) -> Text:
    return Text(one_line(value, max_chars=_MAX_CELL_CHARS))
