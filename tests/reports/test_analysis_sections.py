"""Sections of a report that are made from an analysis whose numbers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fourds_dist.reports import analysis_sections as sections
from fourds_dist.reports.analysis import ADAPTED, STUDENT, TEACHER, PredictionAnalysis
from fourds_dist.runs.events import StepLogged
from tests.reports.known_analysis import known_analysis
from tests.reports.written_run import step, write_run


def test_recall_gain_and_calibration_of_the_known_predictions() -> None:
    section = sections.classes(known_analysis())
    (table,) = section.tables
    assert table.columns == ("recall", STUDENT, TEACHER, ADAPTED)
    assert table.rows == [
        ("ant", "100.0%", "50.0%", "50.0%"),
        ("bee", "75.0%", "25.0%", "50.0%"),
        ("cat", "-", "-", "-"),
    ]
    assert section.words[0] == "Evaluated on 6 of the 12 images of shards/b (test), evenly spaced."
    assert section.words[1].startswith(
        "Accuracy gain of the student over the teacher without adapters: +50.0 points"
    )
    # One bin of confidence 75 %, and accuracies of 5/6, 2/6 and 3/6.
    assert section.words[2] == (
        f"Expected calibration error (ECE): {STUDENT} 8.3%, {TEACHER} 41.7%, {ADAPTED} 25.0%."
    )
    confusion, calibration = section.charts
    assert "most frequent error: bee predicted as cat, 1 times" in confusion.words
    assert "student ends at 0.833" in calibration.words


def test_which_images_were_analysed() -> None:
    for num, text in (
        (12, "all 12 images of shards/b (test), without 6 unlabelled images"),
        (7, "7 of the 12 images of shards/b (test), evenly spaced, without 1 unlabelled image"),
    ):
        assert sections._images_text(known_analysis(num_analysed=num)) == text


def many_classes() -> PredictionAnalysis:
    """32 classes of one image each: the student is wrong about the first two, the teacher about the last."""
    labels = np.arange(32)
    student, teacher = labels.copy(), labels.copy()
    student[:2], teacher[31] = (1, 0), 0
    given = {
        name: np.eye(32, dtype=np.float32)[predicted]
        for name, predicted in ((STUDENT, student), (TEACHER, teacher))
    }
    names = tuple(f"c{n}" for n in labels)
    return replace(known_analysis(), labels=labels, classes=names, probabilities=given)


def test_of_many_classes_those_that_changed_most_and_those_with_most_errors_are_shown() -> None:
    section = sections.classes(many_classes())
    assert section.words[-1] == (
        "Recall of the 30 of 32 classes whose recall differs most from the teacher's."
    )
    shown = [row[0] for row in section.tables[0].rows]
    assert shown == [*(f"c{n}" for n in range(29)), "c31"]
    assert section.charts[0].title == "Confusion matrix of the student, most confused classes"
    assert "c0 predicted as c1" in section.charts[0].words


def test_mistakes_are_captioned() -> None:
    (chart,) = sections.mistakes(known_analysis()).charts
    assert chart.words == "true: bee, predicted: cat, confidence: 75%, teacher: cat"
    section = sections.mistakes(replace(known_analysis(num_analysed=12), mistakes=[]))
    assert section.charts == ()
    assert section.words[0].startswith(
        "The student misclassifies no image. Evaluated on all 12 images of shards/b (test)"
    )


def mixed(number: int, weight: float) -> StepLogged:
    return replace(step(number, 1.0), method_values={"mix/layer1": weight, "student_ratio": 0.5})


@pytest.mark.parametrize("has_analysis", [True, False])
def test_adapters_by_stage(tmp_path: Path, has_analysis: bool) -> None:
    run = write_run(tmp_path / "x", None, [mixed(1, 0.5), mixed(2, 0.75)])
    section = sections.adapters(run, known_analysis() if has_analysis else None)
    assert section is not None
    assert section.charts[0].words == "Weight of the learnt amplitude by epoch: after stage 1 ends at 0.75"
    names = ["mix", "amplitude", "feature-maps"] if has_analysis else ["mix"]
    assert [chart.name for chart in section.charts] == names
    if has_analysis:
        assert section.charts[1].words.endswith("after stage 1 ends at 2")  # two to the power of the gain
        assert section.words[1].endswith("feature maps): 99.50%.")


def test_without_adapters_there_is_no_section(tmp_path: Path) -> None:
    assert sections.adapters(write_run(tmp_path / "x", None, [step(1, 1.0)]), known_analysis()) is None
