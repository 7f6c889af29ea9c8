"""Runs without a single target label: training, stop and resume, summary, report, export; and hidden labels."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.torch import load_file

from fourds_dist.cli.export import main as export
from fourds_dist.data.datasets.domain import Domain
from fourds_dist.data.datasets.example import Example
from fourds_dist.data.pack.writer import pack_domain
from fourds_dist.launch.run import run
from fourds_dist.reports.report import report
from fourds_dist.runs.accuracy import LABEL_FREE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.stages import run_stage
from tests.data.shards import CLASSES, image_of, write_dataset
from tests.stages.test_stages import assert_equal_weights, notes, rows, settings, store, trained

ALL_CLASSES = (*CLASSES, "dog", "elk")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "source", [32], classes=ALL_CLASSES)
    write_dataset(folder / "labelled", [48], classes=ALL_CLASSES)
    examples = [Example(f"u{n}", image_of(n), "png", None) for n in range(120)]
    pack_domain(Domain("target", ALL_CLASSES, lambda: examples), str(folder / "target"))
    return folder


def summary(runs: Path, name: str) -> RunSummary:
    return RunSummary.from_dict(RunFolder(str(runs / name)).read_json("summary.json"))


def shown(outcome: RunSummary) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    outcome.show(console)
    return console.export_text()


def test_a_run_without_any_target_label(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path, "run.name=free", "distill_stage.epochs=2", "adapt.method=mcc"))
    outcome = summary(tmp_path, "free")
    events = [row for row in rows(tmp_path / "free") if row["event"] == "epoch"]
    for epoch in (row for row in events if row["stage"] == "distill"):
        student = epoch["validation"]["student"]
        assert student["accuracy"] is None
        assert set(student["criteria"]) == set(LABEL_FREE)
        assert student["selection"] == student["criteria"][outcome.selected_by]
        assert epoch["num_evaluated"] == 12
    assert outcome.validation_accuracy == max(
        row["validation"]["student"]["selection"] for row in events if row["stage"] == "distill"
    )
    adapting = [row["validation"] for row in events if row["stage"] == "adapt"]
    assert all(set(of) == {"teacher", "teacher_source"} for of in adapting)
    assert all(of["teacher"]["criteria"]["agreement"] <= 1 for of in adapting)
    target = outcome.lines[-1].target
    assert (target.value, target.num_evaluated) == (None, 24)
    assert outcome.estimate is not None
    assert (outcome.estimate.num_images, outcome.estimate.num_source_images) == (24, 32)
    assert 0 <= outcome.estimate.low <= outcome.estimate.value <= outcome.estimate.high <= 1
    assert RunSummary.from_dict(json.loads(json.dumps(outcome.as_dict()))) == outcome
    assert f"{outcome.estimate}" in shown(outcome)
    told = notes(tmp_path / "free")
    assert sum("labels of its 'val' split are missing" in text for text in told) == 2  # of both stages
    assert sum("data.source_fraction=0.5: no training label" in text for text in told) == 2
    assert sum("so method.domain_batch_norm=true, method.infomax_weight=1" in text for text in told) == 1
    steps = [row for row in rows(tmp_path / "free") if row["event"] == "step" and row["stage"] == "distill"]
    assert all({"student_infomax", "teacher_infomax"} <= set(row["losses"]) for row in steps)
    page = Path(report([Run(str(tmp_path / "free"))])).read_text()
    assert f"is estimated at {outcome.estimate} without labels" in page
    assert "The test images were not analysed: the test split has no labels." in page
    assert str(outcome.estimate) in repr(Run(str(tmp_path / "free")))
    assert export([str(tmp_path / "free"), str(tmp_path / "exported"), "--format", "safetensors"]) == 0


def test_a_run_without_labels_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    def weights(name: str, stop_at: int | None):
        words = (f"run.name={name}", "distill_stage.epochs=3", "run.select_by=entropy")
        return trained("distill", settings(data, tmp_path, *words), stop_at)

    assert_equal_weights(weights("whole", None), weights("stopped", 13))
    one, other = summary(tmp_path, "whole"), summary(tmp_path, "stopped")
    assert (one.selected_by, one.selected_epoch) == (other.selected_by, other.selected_epoch)
    assert one.validation_accuracy == other.validation_accuracy
    assert one.validation_accuracy is not None
    assert one.validation_accuracy < -1  # no accuracy: an entropy in nats


def test_hidden_labels_select_nothing_and_judge_the_estimate(data: Path, tmp_path: Path) -> None:
    def student(target: str, *words: str):
        given = settings(
            data, tmp_path, f"target.url={data}/labelled", f"run.name={target}", "distill_stage.epochs=2",
            "student.start=random", "target.labels_per_class=0", *words,
        )  # fmt: skip
        run(given)
        return load_file(tmp_path / target / "student.safetensors")

    student("hidden", "target.validation_labels=ignore")
    outcome = summary(tmp_path, "hidden")
    assert outcome.selected_by in LABEL_FREE
    assert outcome.lines[-1].target.value is not None
    assert outcome.estimate is not None
    text = shown(outcome)
    assert "measured" in text
    epoch = next(
        row for row in rows(tmp_path / "hidden") if row["event"] == "epoch" and row["stage"] == "distill"
    )
    assert epoch["validation"]["student"]["accuracy"] is not None  # logged for later comparisons
    ratios = [
        row["method_values"]["student_ratio"]
        for row in rows(tmp_path / "hidden")
        if row["event"] == "step" and row["stage"] == "distill"
    ]
    agreed = epoch["validation"]["student"]["criteria"]["agreement"]
    assert ratios[-1] == pytest.approx(agreed**16, rel=1e-4)  # the warm-up uses no label either


def test_without_a_source_there_is_no_estimate(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path, "run.name=teacher", "run.until=source")
    run_stage("source", given, store(RunFolder(given.run_url), "source"))
    words = (
        f"teacher.checkpoint={tmp_path}/teacher/teacher.safetensors",
        "source.url=null",
        "run.name=alone",
    )
    run(settings(data, tmp_path, *words))
    outcome = summary(tmp_path, "alone")
    assert outcome.estimate is None
    assert outcome.selected_by in LABEL_FREE
    criteria = outcome.lines[-1].target.criteria
    assert criteria is not None
    assert set(criteria) == {"entropy", "infomax", "snd", "bnm", "agreement"}
    page = Path(report([Run(str(tmp_path / "alone"))])).read_text()
    assert "without a source there is no estimate" in page
    assert not math.isnan(outcome.validation_accuracy or math.nan)
