"""Tables fit the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fourds_dist.io.tables import print_table


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_word_is_cut_on_a_narrow_console(width: int) -> None:
    columns = ("method", "mean over pairs", "estimated without labels", "images/s")
    rows = [
        ("mcc then distil", "66.6 [65.0, 68.2]", "~69.6, off by 3.2", "3574"),
        ("adabn", "60.9", "-", "3287"),
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    print_table(console, "zero: accuracy", columns, rows)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    for cell in (
        *rows[0],
        *rows[1],
        *["estimated", "without", "labels", "mean", "over", "pairs", "images/s"],
    ):
        assert cell in text
    assert text.count("zero: accuracy") == 1


def test_names_from_outside_are_literal_and_long_ones_are_wrapped() -> None:
    console = Console(width=40, record=True, file=io.StringIO())
    name = "[red] a class with a name that is longer than the terminal"
    print_table(console, "by class", ("class", "images"), [(name, "1234")])
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 40
    text = " ".join(" ".join(lines).split())
    assert all(word in text for word in (*name.split(), "1234"))
