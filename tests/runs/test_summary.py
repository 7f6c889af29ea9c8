"""The final table of a run: what it shows, and its way through JSON."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.summary import NetworkResult, RunSummary

TEACHER = NetworkResult("teacher", 2_345_678, Accuracy(90, 120, 10.0), Accuracy(30, 50, 99.6, 0.4, 0.55))
STUDENT = NetworkResult("student", 12_345, None, Accuracy(40, 50, 1000.0))
SUMMARY = RunSummary("a run", (TEACHER, STUDENT), 0.1, 7, 0.625, 1234.4, 2, "balanced_accuracy")


def shown(summary: RunSummary) -> list[str]:
    out = io.StringIO()
    summary.show(Console(file=out, width=200))
    return out.getvalue().splitlines()


def cells(line: str) -> list[str]:
    return re.split(r" {2,}", line.strip())


def test_the_table_has_a_line_for_each_network() -> None:
    title, _, _, _, teacher, student, _, *text = shown(SUMMARY)
    assert title.strip() == "a run: accuracy on test splits"
    assert cells(teacher) == ["teacher", "2.35 M", "75.0%", "60.0%", "55.0%", "-", "100"]
    assert cells(student) == ["student", "0.01 M", "-", "80.0%", "-", "-", "1000"]
    assert text == [
        "50 target and 120 source images tested, each once; chance 10.0%; balanced (accuracy) and F1 (macro): of the "
        "target; img/s: inference, per worker.",
        "Student of epoch 7, chosen on the validation split by balanced accuracy and loss (62.5%); distilled at "
        "1234 images/s on 2 workers.",
    ]
    alone = shown(RunSummary("r", (STUDENT,), 0.1, 1, 0.5, 1.0, 1))
    assert alone[-2].startswith("50 target images tested")
    assert alone[-1].endswith("by accuracy and loss (50.0%); distilled at 1 images/s on 1 worker.")


def test_few_classes_have_a_table() -> None:
    counted = Accuracy(3, 5, 1.0, by_class=((2, 2, 4), (1, 3, 1), (0, 0, 0)))
    summary = RunSummary(
        "r", (NetworkResult("student", 1, None, counted),), 0.3, 1, 0.5, 1.0, 1, classes=("a", "[b]", "c")
    )
    lines = [cells(line) for line in shown(summary)]
    begin = lines.index(["class", "images", "recall", "precision", "F1"]) + 2
    assert lines[begin : begin + 3] == [
        ["a", "2", "100.0%", "50.0%", "66.7%"],
        ["[b]", "3", "33.3%", "100.0%", "50.0%"],
        ["c", "0", "-", "-", "-"],
    ]
    assert RunSummary.from_dict(json.loads(json.dumps(summary.as_dict()))) == summary


def test_a_former_name_of_a_measure() -> None:
    values = {**SUMMARY.as_dict(), "selected_by": "mean_per_class"}
    assert RunSummary.from_dict(values).selected_by == "balanced_accuracy"


def test_a_summary_comes_back_from_json() -> None:
    values = json.loads(json.dumps(SUMMARY.as_dict()))
    assert RunSummary.from_dict(values) == SUMMARY
    del values["selected_by"], values["lines"][0]["target"]["mean_per_class"]  # as earlier versions wrote it
    old = RunSummary.from_dict(values)
    assert old.selected_by == "accuracy"
    assert old.lines[0].target.mean_per_class is None


@pytest.mark.parametrize(
    "changes",
    [
        {"lines": None},
        {"lines": [{}]},
        {"lines": ["teacher"]},
        {"new": 1},
        {"lines": [{**vars(STUDENT), "target": 1}]},
    ],
)
def test_another_table_is_refused_with_a_remedy(changes: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"summary\.json is not the table of a run: .*; remove it, and the run's"
    ):
        RunSummary.from_dict({**SUMMARY.as_dict(), **changes})
    with pytest.raises(ValueError, match=r"summary\.json is not the table of a run"):
        RunSummary.from_dict({})
