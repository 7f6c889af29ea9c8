"""Cells that are clearly worse than others stop early, and no mean and no difference contains them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.cli.compare import main
from fourds_dist.experiments.compare.config import EarlyStoppingConfig
from fourds_dist.experiments.compare.early_stopping import (
    FILE,
    EarlyStop,
    EarlyStopping,
    read_stop,
)
from fourds_dist.experiments.compare.pending import pending_tasks
from fourds_dist.experiments.compare.plan import ComparisonPlan
from fourds_dist.experiments.compare.results import Result, Results
from fourds_dist.experiments.compare.tables import as_tree, summary, tables
from fourds_dist.runs.events import EpochEnded, Validation, encode
from fourds_dist.runs.failures import StopKind
from fourds_dist.runs.run_folder import RunFolder
from tests.cli.test_compare import write
from tests.experiments.compare.small import CHANGES, STAGE, comparison, write_domains

DOMAINS = {"a": "shards/a", "b": "shards/b"}
RULE = EarlyStoppingConfig(after_epochs=2, margin_points=10)
FOUR = {"distill_stage": STAGE | {"epochs": 4}}


def epoch(number: int, accuracy: float, stage: str = "distill") -> EpochEnded:
    return EpochEnded(
        step=number, epoch=number, loss=1.0, images_per_s=1.0, validation={"student": Validation(accuracy)},
        num_evaluated=1000, is_best=True, left_s=0.0,
    ).stamped(stage, 0)  # pyright: ignore[reportArgumentType]  # fmt: skip


@pytest.mark.parametrize(
    ("stop", "is_justified"),
    [
        (EarlyStop(2, 0.5, "m", 0.7, 1000), True),
        (EarlyStop(1, 0.5, "m", 0.7, 1000), False),  # too early
        (EarlyStop(2, 0.61, "m", 0.7, 1000), False),  # within the margin
        (EarlyStop(2, 0.5, "m", 0.7, 20), False),  # within two standard errors of 15 points
        (EarlyStop(2, 0.0, "m", 1.0, 1), True),
        (EarlyStop(2, 0.0, "m", 0.2, 0), False),
    ],
)
def test_what_is_clearly_worse(stop: EarlyStop, is_justified: bool) -> None:
    assert stop.is_justified(RULE) == is_justified


def rule_of(folder: Path, **keys: Any) -> tuple[ComparisonPlan, EarlyStopping, dict[str, str]]:
    """A plan, its rule, and the URL of each method's run on the first pair."""
    keys = {"changes": FOUR, "early_stopping": {"after_epochs": 2, "margin_points": 10.0}} | keys
    plan = comparison(folder, DOMAINS, **keys)
    rule = plan.early_stopping()
    assert rule is not None
    urls = {cell.method: run.run_url for cell, run in reversed(plan.runs.items()) if cell.source == "a"}
    return plan, rule, urls


def test_a_cell_is_held_against_the_best_accuracy_up_to_the_same_epoch(tmp_path: Path) -> None:
    _, rule, urls = rule_of(tmp_path)
    good, bad = urls["4ds"], urls["cross_entropy"]
    for number, accuracy in enumerate((0.3, 0.5, 0.4, 0.9), start=1):
        assert rule(good, epoch(number, accuracy)) is None
    assert rule(bad, epoch(1, 0.1)) is None  # every cell gets two epochs
    assert rule(bad, epoch(2, 0.41)) is None
    assert rule(bad, epoch(3, 0.2)) is None  # its best, 0.41, is within the margin of 0.5
    assert rule(bad, epoch(4, 0.2)) is None  # nothing is left to save
    assert rule(bad, epoch(2, 0.3, stage="adapt")) is None
    stop = rule(bad, epoch(2, 0.2))  # trained again after a failure; what came later does not count any more
    assert stop is not None
    assert stop.kind == StopKind.EARLY_STOPPING
    record = RunFolder(bad).read_json(FILE)
    assert record == {
        "epoch": 2,
        "accuracy": 0.2,
        "best_method": "4ds",
        "best_accuracy": 0.5,
        "num_images": 1000,
    }
    assert rule(f"{tmp_path}/elsewhere", epoch(3, 0.0)) is None


def test_a_cell_whose_record_cannot_be_written_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, rule, urls = rule_of(tmp_path)
    rule(urls["4ds"], epoch(2, 0.9))
    bad = Path(urls["cross_entropy"])
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_text("a file in place of a folder")
    assert rule(str(bad), epoch(2, 0.1)) is None
    assert "is not stopped early" in "".join(capsys.readouterr())
    bad.unlink()
    assert rule(str(bad), epoch(3, 0.1)) is not None


def test_only_cells_of_the_same_conditions_and_length_are_compared(tmp_path: Path) -> None:
    methods = {"long": {"distill_stage.epochs": 8}, "4ds": {}, "other": {}}
    plan, rule, urls = rule_of(tmp_path, methods=methods, seeds=[0, 1])
    assert rule(urls["4ds"], epoch(2, 0.9)) is None
    assert rule(urls["long"], epoch(2, 0.1)) is None
    others = [run for cell, run in plan.runs.items() if cell.method == "other"]
    stopped = {run.run_url for run in others if rule(run.run_url, epoch(2, 0.1))}
    assert stopped == {urls["other"]}  # of two seeds and two pairs


def test_epochs_of_earlier_starts_count(tmp_path: Path) -> None:
    plan, rule, urls = rule_of(tmp_path)
    lines = [encode(epoch(number, 0.9)) for number in (1, 2, 3)]
    RunFolder(urls["4ds"]).write_text("metrics.jsonl", "\n".join(lines) + "\n")
    rule.read([urls["two_stage"]])
    again: EarlyStopping = pickle.loads(pickle.dumps(rule))  # as for an actor of Ray
    assert again(urls["cross_entropy"], epoch(2, 0.1)) is not None
    names = {task.settings.run_url for task in pending_tasks(plan)}
    assert urls["cross_entropy"] not in names
    assert urls["4ds"] in names


def test_a_stopped_cell_runs_again_where_the_rule_no_longer_stops_it(tmp_path: Path) -> None:
    plan, rule, urls = rule_of(tmp_path)
    rule(urls["4ds"], epoch(2, 0.5))
    rule(urls["two_stage"], epoch(2, 0.3))
    run = next(run for run in plan.runs.values() if run.run_url == urls["two_stage"])
    assert read_stop(run, RULE) is not None
    assert read_stop(run, EarlyStoppingConfig(after_epochs=2, margin_points=30)) is None
    assert read_stop(run, EarlyStoppingConfig(after_epochs=3, margin_points=10)) is None
    assert read_stop(run, None) is None
    RunFolder(run.run_url).write_json("summary.json", {})
    assert read_stop(run, RULE) is None
    RunFolder(urls["4ds"]).write_json(FILE, {"epoch": 2})
    other = next(run for run in plan.runs.values() if run.run_url == urls["4ds"])
    with pytest.raises(ValueError, match=r"early_stop\.json is no record of an early stop; remove it"):
        read_stop(other, RULE)


def test_tables_list_stopped_cells_and_leave_them_out_of_means(tmp_path: Path) -> None:
    plan, _, _ = rule_of(tmp_path)
    cells = {cell: Result(0.6, 0.5, 60.0, 30.0, 100.0, None, "CPU") for cell in plan.runs}
    stop = EarlyStop(2, 0.2, "4ds", 0.6, 1000)
    stopped = {
        cell: stop
        for cell in plan.runs
        if cell.method == "two_stage" or cell.name.startswith("a-to-b.all.cross")
    }
    known = Results(plan, {cell: r for cell, r in cells.items() if cell not in stopped}, stopped)
    methods, differences = tables(known)
    rows = {row[0]: row for row in methods.rows}
    assert rows["two stage"][1:] == ("-", "-", "-", "0, 2 stopped", "-", "-")
    assert rows["cross entropy"][1:5] == ("-", "60.0", "-", "1, 1 stopped")
    (row,) = differences.rows
    assert row[0] == "4ds - cross entropy"
    assert row[1].endswith("1 of 2 pairs")
    assert "3 cells were stopped early, more than 10 points of validation accuracy below" in summary(known)
    assert {entry["method"] for entry in as_tree(known, {})["stopped"]} == {"two_stage", "cross_entropy"}
    assert tables(Results(plan, {}, stopped))[0].rows


def write_two_methods(folder: Path, through: str) -> list[str]:
    """The words of a comparison of two methods, one of which is done with an accuracy that the other will not reach."""
    keys: dict[str, Any] = {"early_stopping": {"after_epochs": 1, "margin_points": 1.0}, "through": through}
    keys |= {"pairs": [["a", "b"]], "changes": CHANGES | FOUR}
    methods = {"4ds": {"method.preset": "4ds"}, "other": {"method.preset": "cross_entropy"}}
    words = write(folder, write_domains(folder, "a", "b"), methods=methods, **keys)
    assert main([*words, "through=here", "early_stopping=null", "--method", "4ds"]) == 0
    metrics = folder / "runs" / "small" / "cells" / "a-to-b.all.4ds.0" / "metrics.jsonl"
    events = [json.loads(line) for line in metrics.read_text().splitlines()]
    for event in events:
        event.get("validation", {}).get("student", {})["accuracy"] = 0.95
    metrics.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    return words


@pytest.mark.parametrize(
    "through",
    [
        "here",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray]),
    ],
)
@pytest.mark.timeout(900)
def test_a_cell_that_is_clearly_worse_stops(
    through: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if through == "ray":
        request.getfixturevalue("local_ray")
    given = write_two_methods(tmp_path, through)
    words = [] if through == "here" else ["parallel=1"]
    assert main([*given, *words]) == 0
    out = capsys.readouterr().out
    assert "other: stopped early after epoch" in out
    assert "1 of 2 cells done" in out
    folder = tmp_path / "runs" / "small"
    cell = folder / "cells" / "a-to-b.all.other.0"
    assert not (cell / "summary.json").exists()
    assert not (cell / "distill").exists()  # checkpoints of what will not be resumed
    assert "other" not in (folder / "cells.csv").read_text()
    (entry,) = json.loads((folder / "results.json").read_text())["stopped"]
    assert entry["method"] == "other"
    assert "other: stopped early after epoch" in (folder / "table.md").read_text()
    events = [json.loads(line)["event"] for line in (cell / "metrics.jsonl").read_text().splitlines()]
    assert events.count("epoch") < 4

    if through == "here":
        assert main([*given, *words]) == 0  # nothing is left to run
        assert "[1/" not in capsys.readouterr().out
        assert main([*given, *words, "early_stopping=null"]) == 0
        assert "2 of 2 cells done" in capsys.readouterr().out
