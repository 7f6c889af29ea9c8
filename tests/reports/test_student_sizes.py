"""The section about several students: a row and a point for each, and none for runs with one."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from fourds_dist.reports.report import verdict
from fourds_dist.reports.sections import learning, results
from fourds_dist.reports.side_by_side import comparison
from fourds_dist.reports.student_sizes import students
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.finished_run import Run
from tests.reports.written_run import epoch, step, write_run

WORDS = ("students=[{arch: resnet10}, {arch: resnet18, name: large}]",)


def several(folder: Path) -> Run:
    correct = {
        "teacher": 20,
        "student resnet10 before distillation": 10,
        "student large before distillation": 11,
        "teacher with adapters": 37,
        "student resnet10": 30,
        "student large": 36,
    }
    own = {"student/resnet10": 0.7, "student/large": 0.8, "teacher_adapted": 0.9}
    run = write_run(folder, correct, [step(1, 1.0), epoch(1, **own)], *WORDS)
    assert run.summary is not None
    latency = {"teacher with adapters": 9.0, "student resnet10": 1.25, "student large": 4.0}
    lines = tuple(
        replace(
            line,
            latency_ms=latency.get(line.network),
            **({"selected_epoch": 2, "validation": 0.75} if line.network.startswith("student l") else {}),
            **({"selected_epoch": 1, "validation": 0.7} if line.network.startswith("student r") else {}),
        )
        for line in run.summary.lines
    )
    lines = tuple(
        replace(line, selected_epoch=None) if line.network.endswith("distillation") else line
        for line in lines
    )
    summary = replace(run.summary, lines=lines, best_student="large")
    (folder / RunFile.SUMMARY).write_text(json.dumps(summary.as_dict()))
    return Run(str(folder))


def test_a_row_and_a_point_for_each_student(tmp_path: Path) -> None:
    section = students(several(tmp_path / "sizes"))
    assert section is not None
    (table,), (chart,) = section.tables, section.charts
    assert table.columns[:5] == ("student", "parameters", "latency", "images/s", "epoch")
    assert [row[0] for row in table.rows] == ["resnet10", "large"]  # the fastest first
    assert table.rows[0][2:7] == ("1.25 ms", "100", "1", "70.0%", "75.0%")
    assert table.strong == 1
    expected = "resnet10 0.75 at 1.25, large 0.9 at 4, teacher with adapters 0.925 at 9"
    assert chart.words == f"Accuracy over latency: {expected}"


def test_the_page_speaks_of_the_best_student(tmp_path: Path) -> None:
    run = several(tmp_path / "sizes")
    assert verdict(run).startswith("The best student's (large) accuracy on the target's test split is 90.0%")
    section = results(run)
    assert section.tables[0].strong == 5
    assert "The best student, large, has the weights" in section.words[0]
    assert repr(run).endswith("student 90.0% on target)")
    one = write_run(tmp_path / "one", {"teacher": 20, "student": 30}, [step(1, 1.0), epoch(1, student=0.5)])
    page = comparison([one, run])
    assert page.verdict == "Best run: sizes, with a student accuracy of 90.0% on the target's test split."
    charts = {chart.name: chart.words for section in page.sections for chart in section.charts}
    assert "sizes ends at 0.8" in charts["all-accuracy-student"]
    assert students(one) is None


def test_the_losses_of_each_student_have_a_chart(tmp_path: Path) -> None:
    losses = {"student_ce/resnet10": 2.0, "student_ce/large": 1.0, "teacher_ce": 3.0}
    steps = [replace(step(number, 6.0), losses=losses) for number in (1, 2)]
    section = learning(write_run(tmp_path / "sizes", None, steps, *WORDS))
    assert section is not None
    found = {chart.name: chart.words for chart in section.charts}
    assert found["distill-losses"].endswith("loss ends at 6, teacher ce ends at 3")
    assert found["distill-losses-resnet10"].endswith("student resnet10 by epoch: student ce ends at 2")
    assert found["distill-losses-large"].endswith("student large by epoch: student ce ends at 1")


def test_the_table_of_a_run_ends_in_its_students(tmp_path: Path) -> None:
    summary = several(tmp_path / "sizes").summary
    assert summary is not None
    assert RunSummary.from_dict(json.loads(json.dumps(summary.as_dict()))) == summary
    out = io.StringIO()
    summary.show(Console(file=out, width=120))
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert ["resnet10", "2.50", "M", "1.25", "ms", "1", "70.0%", "75.0%"] in lines
    assert ["large", "2.50", "M", "4.00", "ms", "2", "75.0%", "90.0%"] in lines
    assert "Best student: large of epoch 3" in out.getvalue()
