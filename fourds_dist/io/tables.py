"""Tables on a terminal of any width: no word is cut."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from fourds_dist.io.terminal import harmless, words

GAP, EDGES = 2, 2
"""Spaces between columns, and at both edges together."""


def print_table(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table whose first column names the row; columns for which the console is too narrow follow below.

    Args:
        columns: headings, wrapped at spaces where that makes the table narrower.
        rows: as many cells as columns.
    """
    widths = [
        max((cell_len(harmless(text)) for text in (*heading.split(), *(row[k] for row in rows))), default=0)
        for k, heading in enumerate(columns)
    ]
    for number, part in enumerate(_parts(widths, console.width)):
        table = Table(
            title=words(title) if number == 0 else None,
            title_justify="left",
            box=SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        for column in part:
            width = widths[column]
            if column == 0:  # a long name is wrapped where it leaves no room for the second column
                others = sum(GAP + widths[other] for other in part[1:])
                width = max(1, min(width, console.width - EDGES - others))
            table.add_column(words(columns[column]), justify="right" if column else "left", width=width)
        for row in rows:
            table.add_row(*(words(row[column]) for column in part))
        console.print(table)


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """Return the columns of each table that is at most `width` wide; each begins with the first column."""
    parts = [[0]]
    for column in range(1, len(widths)):
        needed = EDGES - GAP + sum(GAP + widths[each] for each in (*parts[-1], column))
        if needed > width and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(column)
    return parts
