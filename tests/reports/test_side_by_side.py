"""The page of several runs, the best first."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.reports.page import ReportPage, ReportSection
from fourds_dist.reports.side_by_side import MOST_CURVES, comparison
from tests.reports.written_run import epoch, step, write_run


def section(page: ReportPage, name: str) -> ReportSection:
    return next(section for section in page.sections if section.name == name)


def test_runs_are_ordered_by_the_accuracy_of_the_student(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "active", None),
        write_run(tmp_path / "good", {"teacher": 20, "student": 30}),
        write_run(tmp_path / "best", {"teacher": 20, "teacher with adapters": 38, "student": 36}),
    ]
    page = comparison(runs)
    assert page.title == "3 runs side by side"
    assert page.verdict == (
        "Best run: best, with a student accuracy of 90.0% on the target's test split. 1 run is not done."
    )
    (table,) = section(page, "results").tables
    assert [row[0] for row in table.rows] == ["best", "good", "active"]
    assert table.rows[0][1:] == ("90.0%", "76.9% to 96.0%", "-", "-", "50.0%", "95.0%", "2.50 M", "320", "2")
    assert table.rows[1][5:7] == ("50.0%", "-")
    assert table.rows[2] == ("active", "not done", *[""] * 8)
    assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.mark.parametrize("num_done", [0, 1, 2])
def test_runs_that_are_not_done_are_counted(tmp_path: Path, num_done: int) -> None:
    runs = [write_run(tmp_path / f"r{n}", {"student": 20} if n < num_done else None) for n in range(3)]
    verdict = comparison(runs).verdict
    told = ["None of these runs is done yet.", "2 runs are not done.", "1 run is not done."][num_done]
    assert verdict.endswith(told)


def test_only_keys_with_different_values_are_listed(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"student": 30}, [], "method.temperature=2.0")
    other = write_run(tmp_path / "other", {"student": 20}, [], "method.temperature=3.0", "run.seed=4")
    (table,) = section(comparison([other, one]), "differences").tables
    assert table.columns == ("key", "one", "other")
    assert {row[0]: row[1:] for row in table.rows} == {
        "method.temperature": ("2.0", "3.0"),
        "run.seed": ("0", "4"),
    }
    same = [write_run(tmp_path / "elsewhere" / name, None) for name in ("a", "b")]
    assert section(comparison(same), "differences").words == ["All runs have the same configuration."]


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / where / "x", {"student": num}) for where, num in (("a", 10), ("b", 20))]
    (table,) = section(comparison(runs), "results").tables
    assert [row[0] for row in table.rows] == [f"{tmp_path}/b/x", f"{tmp_path}/a/x"]


def test_curves_of_the_best_runs_alone_are_drawn(tmp_path: Path) -> None:
    number = MOST_CURVES + 1
    runs = [
        write_run(tmp_path / f"r{n}", {"student": n}, [step(1, 1.0), epoch(1, student=n / 10)])
        for n in range(number)
    ]
    curves = section(comparison(runs), "curves")
    assert curves.words[0].startswith(
        f"Distillation stage, by epoch. The best {MOST_CURVES} of {number} runs."
    )
    loss, accuracy = curves.charts
    assert (loss.name, accuracy.name) == ("all-student_ce", "all-accuracy-student")
    ends = ", ".join(f"r{n} ends at {n / 10:g}" for n in reversed(range(1, number)))
    assert accuracy.words == f"Student: validation accuracy by epoch: {ends}"
    assert not any(s.name == "curves" for s in comparison([write_run(tmp_path / "new", None)]).sections)
