"""Tables of a comparison, as text, CSV and JSON, from cells whose numbers are known."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from fourds_dist.experiments.compare.plan import ComparisonPlan
from fourds_dist.experiments.compare.results import Results
from fourds_dist.experiments.compare.tables import (
    ResultTable,
    as_csv,
    as_tree,
    comparisons,
    headline,
    summary,
    tables,
)
from tests.experiments.compare.known import DOMAINS, result
from tests.experiments.compare.small import comparison


def test_tables_say_it(known: Results) -> None:
    methods, differences = tables(known)
    assert methods.columns == (
        "method",
        "a -> b",
        "b -> a",
        "mean over pairs",
        "cells",
        "CPU time",
        "images/s",
    )
    assert methods.rows[0][:3] == ("4ds", "65.0", "55.0")
    assert methods.rows[1][-2:] == ("2.0 min", "100")
    (row,) = differences.rows
    # Pairs 15 and 5: mean 10, t(1) 12.7062 times standard error 5.
    assert row[:3] == ("4ds - cross entropy", "+10.0 [-53.5, +73.5]", "3 of 4")
    assert row[3].startswith("b -> a +5.0 [")
    assert row[4] == "x 0.50"
    assert "| 4ds - cross entropy | +10.0 [-53.5, +73.5] |" in differences.markdown()
    assert tables(known, most_pairs=1)[0].columns[1] == "mean over pairs"
    for table in (methods, differences):
        console = Console(width=100, record=True, file=io.StringIO())
        table.show(console)
        assert table.rows[0][0] in console.export_text()
    assert "8 of 24 cells done: 3 methods, 2 pairs of domains, 2 seeds, 2 regimes. Device: CPU." in summary(
        known
    )


def test_a_sentence_comes_first(known: Results) -> None:
    assert headline(known).splitlines()[0] == (
        "few: 4ds has 60.0 %, 10.0 points [-53.5, +73.5] above the best baseline, cross entropy with 50.0 %."
    )
    assert headline(Results(known.plan, {})) == ""


def test_without_labels_there_are_estimates(known: Results) -> None:
    cells = {
        cell: replace(r, estimate=(r.accuracy or 0) + 0.1, before=0.25) for cell, r in known.cells.items()
    }
    methods, *_ = tables(Results(known.plan, cells))
    assert methods.columns[-2] == "estimated without labels"
    assert methods.rows[0][-2] == "~70.0, off by 10.0"
    assert methods.rows[-1] == ("before distillation", "25.0", "25.0", "25.0", "-", "-", "-", "-")
    bare = {cell: replace(r, accuracy=None) for cell, r in cells.items()}
    methods, *others = tables(Results(known.plan, bare))
    assert methods.rows[0][1:5] == ("-", "-", "-", "4")
    assert methods.rows[0][-2] == "~70.0"
    assert all(not table.rows for table in others)
    assert as_tree(Results(known.plan, bare), {})["cells"][0]["accuracy"] is None


def test_incomplete_rows_are_marked(known: Results) -> None:
    few = {cell: r for cell, r in known.cells.items() if cell.source == "a" or cell.method == "cross_entropy"}
    some = {cell: r for cell, r in few.items() if cell.seed == 0 or cell.method != "cross_entropy"}
    methods, differences = tables(Results(known.plan, some))
    assert methods.rows[0][3] == "-"
    assert methods.rows[1][3].endswith(", 1 of 2 seeds")
    assert differences.rows[0][1].endswith(", 1 of 2 pairs")


def test_memory_has_a_column_where_any_method_tells_of_it(known: Results) -> None:
    last = max(known.cells, key=lambda cell: cell.method == "4ds")
    known.cells[last] = replace(known.cells[last], peak_memory_bytes=3 * 2**30)
    methods = tables(known)[0]
    assert methods.columns[-1] == "GiB"
    assert [row[-1] for row in methods.rows] == ["3.0", "-"]


def test_as_data(known: Results) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(known))))
    assert len(lines) == 8
    assert (lines[0]["method"], lines[0]["seed"], lines[0]["accuracy"]) == ("4ds", "0", "0.6")
    tree = json.loads(json.dumps(as_tree(known, {"a cell": "why"})))
    (difference,) = tree["differences"]
    assert difference["difference"]["value"] == pytest.approx(0.10)
    assert difference["difference"]["low"] == pytest.approx(-0.5353, abs=1e-4)
    assert difference["num_better"] == 3
    assert tree["failures"] == {"a cell": "why"}


def test_markdown_aligns_all_columns_but_the_first_to_the_right() -> None:
    table = ResultTable("few: accuracy", ("method", "a -> b"), [("4ds", "65.0"), ("fitnets", "-")])
    assert table.markdown() == (
        "### few: accuracy\n\n| method | a -> b |\n| --- | ---: |\n| 4ds | 65.0 |\n| fitnets | - |\n"
    )


def test_the_method_that_is_no_baseline_is_compared_with_each_baseline(known: Results) -> None:
    assert list(comparisons(known)) == [("4ds", "cross_entropy"), ("4ds", "two_stage")]


@pytest.mark.parametrize(
    ("seconds", "text"), [(99.0, "99 s"), (100.0, "1.7 min"), (5970.0, "99.5 min"), (7200.0, "2.0 h")]
)
def test_times_are_shown_in_the_unit_of_their_size(plan: ComparisonPlan, seconds: float, text: str) -> None:
    cell = next(iter(plan.runs))
    table = tables(Results(plan, {cell: result(0.5, seconds)}))[0]
    assert dict(zip(table.columns, table.rows[0], strict=True))["CPU time"] == text


def test_without_a_cell_there_is_no_table(plan: ComparisonPlan) -> None:
    nothing = Results(plan, {})
    assert tables(nothing) == []
    assert as_csv(nothing) == ""
    assert (as_tree(nothing, {})["cells"], as_tree(nothing, {})["differences"]) == ([], [])
    assert "0 of 24 cells done" in summary(nothing)


def test_of_one_pair_and_one_seed_nothing_has_an_interval(tmp_path) -> None:
    plan = comparison(tmp_path, DOMAINS, pairs=[["a", "b"]])
    cells = {cell: result(0.75 if cell.method == "4ds" else 0.5) for cell in plan.runs}
    methods, differences = tables(Results(plan, cells))
    assert [row[1:3] for row in methods.rows] == [("75.0", "75.0"), ("50.0", "50.0"), ("50.0", "50.0")]
    assert differences.columns == ("difference", "points", "better in", "time")
    assert differences.rows[0] == ("4ds - cross entropy", "+25.0", "1 of 1", "x 1.00")
    assert "1 pair of domains, 1 seed, 1 regime." in summary(Results(plan, cells))
