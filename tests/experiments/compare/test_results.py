"""Tables, differences and costs from cells whose numbers are known."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.compare.plan import Cell, ComparisonPlan
from fourds_dist.experiments.compare.plot import differences_png
from fourds_dist.experiments.compare.results import Result, Results, read_results
from fourds_dist.experiments.compare.tables import as_csv, as_tree, summary, tables
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import Event, StageEnded, StageStarted, StepLogged, TimeShares, encode
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import NetworkResult, RunSummary
from tests.experiments.compare.small import comparison

DOMAINS = {"a": "shards/a", "b": "shards/b"}

# Accuracies by (pair, seed): 4ds - cross_entropy is +.10, +.20, -.05, +.15.
KNOWN = {
    ("a", "b", 0): {"4ds": 0.60, "cross_entropy": 0.50},
    ("a", "b", 1): {"4ds": 0.70, "cross_entropy": 0.50},
    ("b", "a", 0): {"4ds": 0.45, "cross_entropy": 0.50},
    ("b", "a", 1): {"4ds": 0.65, "cross_entropy": 0.50},
}


def result(accuracy: float, train_s: float = 60.0) -> Result:
    return Result(accuracy, 0.5, train_s, 30.0, 100.0, None, "CPU")


@pytest.fixture
def plan(tmp_path: Path) -> ComparisonPlan:
    return comparison(
        tmp_path, DOMAINS, seeds=[0, 1], regimes={"few": {"target.labels_per_class": 2}, "all": {}}
    )


@pytest.fixture
def known(plan: ComparisonPlan) -> Results:
    cells = {
        Cell("few", source, target, seed, method): result(value, 60.0 if method == "4ds" else 120.0)
        for (source, target, seed), by_method in KNOWN.items()
        for method, value in by_method.items()
    }
    return Results(plan, cells)


def test_paired_differences(known: Results) -> None:
    found = known.differences("few", "4ds", "cross_entropy")
    assert sorted(found.values()) == pytest.approx([-0.05, 0.10, 0.15, 0.20])
    by_pair = known.difference_by_pair("few", "4ds", "cross_entropy")
    assert by_pair["a -> b"].value == pytest.approx(0.15)
    assert by_pair["b -> a"].value == pytest.approx(0.05)
    assert known.differences("all", "4ds", "cross_entropy") == {}
    assert known.differences("few", "4ds", "two_stage") == {}


def test_a_mean_over_pairs_takes_whole_seeds(known: Results) -> None:
    mean = known.over_pairs("few", "4ds")
    assert mean is not None
    # Seeds 0 and 1: (.60 + .45) / 2 and (.70 + .65) / 2.
    assert mean.value == pytest.approx((0.525 + 0.675) / 2)
    assert mean.half_width == pytest.approx(12.7062 * 0.075, rel=1e-4)  # t(1), standard error .075
    del known.cells[Cell("few", "b", "a", 1, "4ds")]
    mean = known.over_pairs("few", "4ds")
    assert mean is not None
    assert (mean.value, mean.num, mean.low) == (pytest.approx(0.525), 1, None)


def test_times_are_compared_where_both_are_done(known: Results) -> None:
    assert known.time_ratio("few", "4ds", "cross_entropy") == pytest.approx(0.5)
    del known.cells[Cell("few", "a", "b", 0, "4ds")]
    long = Cell("few", "a", "b", 0, "cross_entropy")
    known.cells[long] = result(0.5, 6000.0)
    assert known.time_ratio("few", "4ds", "cross_entropy") == pytest.approx(0.5)
    assert known.time_ratio("few", "4ds", "two_stage") is None


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


def test_the_plot_is_a_picture(known: Results) -> None:
    png = differences_png(known)
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5000
    assert differences_png(Results(known.plan, {})) is None


def test_costs_are_read_from_what_was_measured(plan: ComparisonPlan) -> None:
    """Steps of 16 images at 32 images/s on two workers: one device-second a step, over a stop too."""
    cell = next(cell for cell in plan.runs if cell.method == "two_stage")
    folder = RunFolder(plan.runs[cell].run_url)
    accuracy = Accuracy(30, 40, 1.0)
    outcome = RunSummary("x", (NetworkResult("student", 1, None, accuracy),), 0.2, 1, 0.8, 32.0, 2)

    def stage(name: StageName, *steps: int, begin: int = 0) -> list[Event]:
        length = {"num_epochs": 1, "num_steps_per_epoch": 20, "global_batch_size": 16}
        start = StageStarted(step=begin, **length, num_workers=2, device="a card")
        end = StageEnded(step=steps[-1], peak_memory_bytes=2**30 if name == "adapt" else 2**20)
        between = [
            StepLogged(step=step, epoch=1.0, loss=1.0, losses={}, images_per_s=32.0, shares=TimeShares(0.0))
            for step in steps
        ]
        return [event.stamped(name, 0) for event in (start, *between, end)]

    def write(folder: RunFolder, *events: Event) -> None:
        folder.write_text("config.yaml", "run: {name: x}\n")
        folder.write_text("metrics.jsonl", "".join(encode(event) + "\n" for event in events))

    write(folder, *stage("adapt", 4, 5), *stage("distill", 10)[:-1], *stage("distill", 15, 20, begin=10))
    folder.write_json("summary.json", outcome.as_dict())
    write(RunFolder(plan.sources[cell].run_url), *stage("source", 3))
    found = read_results(plan).cells[cell]
    assert found.accuracy == 0.75
    assert found.train_s == pytest.approx(5 + 20)
    assert found.source_s == pytest.approx(3)
    assert (found.peak_memory_bytes, found.device) == (2**30, "a card")
