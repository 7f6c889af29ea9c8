"""Sections of a report that are made from the events and the summary of a run."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from fourds_dist.reports import sections
from fourds_dist.reports.page import ReportPage, ReportSection
from fourds_dist.reports.report import write_report
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import Note, StageStarted, encode
from fourds_dist.stages.finished_run import Run
from tests.reports.written_run import epoch, step, write_run


def test_restarts_are_reported(run_folder: Path) -> None:
    metrics = run_folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text(
        "".join(line for line in lines if '"event": "note"' not in line)
    )  # a busy machine adds notes
    assert "No restarts" in sections.events(Run(str(run_folder))).words[0]
    length = {"num_epochs": 1, "num_steps_per_epoch": 30, "global_batch_size": 32}
    events = [
        Note(step=7, text="worker 1 was lost <&>; went on").stamped("distill", 0),
        StageStarted(step=20, **length, num_workers=1, device="CPU").stamped("distill", 60),
    ]
    with metrics.open("a") as file:
        file.write("".join(encode(event) + "\n" for event in events) + '{"stage": "distill", "ev')
    section = sections.events(Run(str(run_folder)))
    html = ReportPage("run", "verdict", [], [section]).html()
    assert "<td>1970-01-01 00:00:00</td><td>distillation</td>" in html
    assert "worker 1 was lost &lt;&amp;&gt;; went on" in html
    assert "resumed from step 20: 32 images a step" in html
    assert "No restarts" not in html


def test_the_student_ratio_is_drawn_and_is_no_loss(run_folder: Path) -> None:
    assert "student_ratio" not in {chart.name for chart in learning(run_folder).charts}
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if (row["stage"], row["event"]) == ("distill", "step"):
            row["method_values"]["student_ratio"] = row["epoch"] / 3
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "student_ratio" in {chart.name for chart in learning(run_folder).charts}
    losses = {name for step in Run(str(run_folder)).steps("distill") for name in step.losses}
    assert losses
    assert not any("student_ratio" in name for name in losses)


def test_a_run_of_one_epoch_and_one_logged_step_has_charts_without_warnings(run_folder: Path) -> None:
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row.get("epoch", 1) == 1]
    (run_folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert write_report(str(run_folder))
    names = {chart.name for chart in learning(run_folder).charts}
    assert {"distill-losses", "distill-accuracy", "distill-validation-losses", "distill-rates"} <= names


def learning(run_folder: Path) -> ReportSection:
    section = sections.learning(Run(str(run_folder)))
    assert section is not None
    return section


def test_commands_to_repeat_it_are_quoted(run_folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(run_folder, tmp_path / "my runs"))
    code = dict(sections.repeating(Run(str(moved))).code)
    words = shlex.split(code["Repeat the run"])
    assert words[3] == f"{moved}/config.yaml"
    assert shlex.split(code["Use the student"])[3] == str(moved)


def test_results_of_all_networks(tmp_path: Path) -> None:
    (table,) = sections.results(write_run(tmp_path / "x", {"teacher": 30, "student": 36})).tables
    assert table.strong == 1
    assert [row[:2] for row in table.rows] == [("teacher", "2.50 M"), ("student", "2.50 M")]
    # The interval as scipy.stats.binomtest gives it (Wilson).
    assert table.rows[1][2:] == ("-", "90.0%", "76.9% to 96.0%", "-", "-", "100")
    words = sections.results(Run(str(tmp_path / "x"))).words[0]
    assert "Test split of the target: 40 images; chance 20.0%." in words
    assert (
        "epoch 3, selected on the validation split by accuracy and loss (validation accuracy 50.0%)" in words
    )


def test_a_run_that_is_not_done_has_no_results(tmp_path: Path) -> None:
    section = sections.results(write_run(tmp_path / "x", None))
    assert (section.words, section.tables) == (["The run is not done and has no result yet."], ())


@pytest.mark.parametrize(
    ("num_correct", "num", "text"),
    [(0, 10, "0.0% to 27.8%"), (10, 10, "72.2% to 100.0%"), (0, 0, "-")],
)
def test_intervals(num_correct: int, num: int, text: str) -> None:
    assert sections.interval(Accuracy(num_correct, num, 1.0)) == text


def test_curves_without_points_and_charts_without_curves_are_left_out() -> None:
    empty, full = ([], []), ([1.0, 2.0], [0.5, 0.25])
    (drawn,) = sections.line_charts(
        [("a", "A", {"none": empty}, {}), ("b", "B", {"none": empty, "one": full}, {"percent": True})]
    )
    assert (drawn.name, drawn.words) == ("b", "B by epoch: one ends at 0.25")


def test_curves_have_the_displayed_names_of_networks() -> None:
    epochs = [epoch(1, student=0.25), epoch(2, student=0.5, teacher_adapted=0.75)]
    assert sections.accuracies(epochs) == {
        "student": ([1.0, 2.0], [0.25, 0.5]),
        "teacher with adapters": ([2.0], [0.75]),
    }
    steps = [step(1, 1.0), step(2, float("nan")), step(3, 1e13), step(4, 0.5)]
    assert sections.curves(steps, lambda s: {"student_ce": s.losses["ce"]}) == {
        "student ce": ([1.0, 4.0], [1.0, 0.5])
    }


@pytest.mark.parametrize(("wait", "is_told"), [(0.2, False), (0.5, True)])
def test_a_long_wait_for_data_is_told_with_remedies(tmp_path: Path, wait: float, is_told: bool) -> None:
    run = write_run(tmp_path / "x", None, [step(1, 1.0, wait=wait), step(2, 1.0, wait=0.1)])
    section = sections.speed(run)
    assert section is not None
    assert [chart.name for chart in section.charts] == ["throughput", "wait"]
    assert (
        any("Up to 50% of the time was spent waiting for data." in text for text in section.words) == is_told
    )


def test_without_steps_there_are_no_curves(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x", None)
    assert sections.learning(run) is None
    assert sections.speed(run) is None


def test_broken_images_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path / "x", None, [step(1, 1.0, num_bad=2), step(2, 1.0, num_bad=7)])
    section = sections.events(run)
    assert section.words[-1] == "7 broken images were replaced by neighbouring images; the log lists them."
    assert section.tables == []
