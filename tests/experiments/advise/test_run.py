"""A question from its data to its answer."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fourds_dist.config.loading import draft
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.advise import advisor
from fourds_dist.experiments.advise.advice import Advice
from fourds_dist.experiments.advise.costs import Costs
from fourds_dist.experiments.advise.race import RacePlan
from fourds_dist.experiments.advise.run import advise
from fourds_dist.runs.layout import RunFile
from fourds_dist.stages.preflight import check
from fourds_dist.stages.settings import Settings
from tests.data.shards import write_dataset
from tests.experiments.advise.small import CLASSES, question

TWO = {"4ds": {"method.preset": "4ds"}, "cross_entropy": {"method.preset": "cross_entropy"}}


@pytest.fixture
def race_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice ends after the race of methods."""
    for part in ("try_settings", "measure_help"):
        monkeypatch.setattr(advisor, part, lambda trainings, best: None)


def answer(*args: Any, **keys: Any) -> Advice:
    return advise(question(*args, **keys), Console(quiet=True))


def test_an_answer_with_few_labels(tmp_path: Path, domains: dict[str, str]) -> None:
    few = {"target__labels_per_class": 4, "target__labelled_fraction": 0.25}
    advice = answer(tmp_path, domains, methods=TWO, **few)
    folder = tmp_path / "runs" / "question"
    assert {row.name for row in advice.ranking} == set(TWO)
    assert advice.ranking[0].name == advice.best
    assert advice.expected is not None
    assert 0.5 < advice.expected.low <= advice.expected.value <= advice.expected.high <= 1
    assert advice.chance == pytest.approx(1 / 3)
    assert 0.5 <= advice.ahead <= 1
    assert advice.spent_s < advice.budget_s
    assert advice.cost == pytest.approx(2.0 * advice.hours)
    assert {effect.what for effect in advice.effects} == {
        "half of the labels",
        "half of the images",
        "half of the teacher's training",
    }
    assert len(advice.tried) == 3
    assert (advice.target.labels, advice.target.val_labels) == (12, 18)
    assert (advice.left_out, advice.failures) == ((), {})
    gap = advice.gap
    assert gap is not None
    assert gap.on_source == 1.0
    assert gap.amplitude_db is not None
    assert gap.amplitude_within_db is not None
    assert gap.amplitude_db > 5 > gap.amplitude_within_db  # 0.4 of the light is -8 dB

    assert json.loads((folder / "advice.json").read_text())["best"] == advice.best
    page = (folder / RunFile.REPORT).read_text()
    assert all(sentence.split("(")[0] in page.replace("&#39;", "'") for sentence in advice.sentences())
    advised = draft(folder / "advised.yaml").build(Settings)
    check(advised)
    assert advised.distill_stage.epochs == 3
    assert advised.target.train_images is None
    assert advised.run.name == "question-advised"
    assert not list(folder.glob("runs/*/*/checkpoint-*"))


@pytest.mark.usefixtures("race_only")
def test_an_answer_without_labels_of_the_target(tmp_path: Path, domains: dict[str, str]) -> None:
    hidden = {"target__labels_per_class": 0, "target__validation_labels": "ignore"}
    methods = {**TWO, "mcc_then_distil": {"method.preset": "distillation", "adapt.method": "mcc"}}
    advice = answer(tmp_path, domains, methods=methods, **hidden)
    assert advice.is_estimated
    assert "estimated without labels" in " ".join(advice.sentences())
    assert advice.gap is not None
    assert advice.gap.on_target is None
    assert advice.gap.estimate is not None


@pytest.mark.usefixtures("race_only")
def test_the_test_split_has_no_part_in_the_answer(tmp_path: Path, domains: dict[str, str]) -> None:
    methods = {"cross_entropy": TWO["cross_entropy"]}
    first = answer(tmp_path / "a", domains, methods=methods)
    other = answer(tmp_path / "b", domains, methods=methods, target__test_images=1, source__test_images=1)
    assert first.ranking[0].accuracies[0] == other.ranking[0].accuracies[0]


@pytest.mark.usefixtures("race_only")
def test_a_method_that_cannot_run_is_listed_and_left_out(tmp_path: Path, domains: dict[str, str]) -> None:
    broken = {
        "method.preset": "distillation",
        "method.extra_loss": "tests.experiments.advise.test_run:breaks",
    }
    advice = answer(tmp_path, domains, methods={**TWO, "broken": broken})
    assert {row.name for row in advice.ranking} == set(TWO)
    assert any("broken" in title for title in advice.failures)


def breaks(**given: Any) -> Any:
    """A loss that fails."""
    raise RuntimeError("this loss fails")


@pytest.mark.usefixtures("race_only")
def test_a_question_goes_on_after_a_kill(tmp_path: Path, domains: dict[str, str]) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_ask, args=(str(tmp_path), domains))
    process.start()
    runs = tmp_path / "runs" / "question" / "runs"
    while len(list(runs.glob(f"*/{RunFile.SUMMARY}"))) < 2:
        assert process.is_alive()
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = {file: file.stat().st_mtime_ns for file in runs.glob(f"*/{RunFile.SUMMARY}")}
    spent_s = json.loads((runs.parent / "spent.json").read_text())["seconds"]
    lengths = json.loads((runs.parent / "lengths.json").read_text())
    advice = answer(tmp_path, domains, methods=TWO)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert advice.spent_s > spent_s > 0
    assert lengths.items() <= json.loads((runs.parent / "lengths.json").read_text()).items()


def _ask(folder: str, domains: dict[str, str]) -> None:
    answer(Path(folder), domains, methods=TWO)


@pytest.mark.usefixtures("race_only")
def test_trainings_at_chance_keep_all_methods_and_are_told_as_such(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_rounds = RacePlan((0.5, 1.0), 0.0)
    monkeypatch.setattr(advisor, "plan_race", lambda *args, **keys: two_rounds)
    three = {**TWO, "distillation": {"method.preset": "distillation"}}
    untrained = {"student__start": "random", "distill_stage__optim__lr": 1e-9}
    advice = answer(tmp_path, domains, methods=three, **untrained)
    assert advice.is_blind
    assert [len(row.accuracies) for row in advice.ranking] == [2, 2, 2]
    (sentence,) = advice.sentences()
    assert sentence.startswith("No method is above chance (33.3%) after 100% of the full length")
    assert sentence.endswith("4ds is the method of our own tables for these labels.")


def test_a_budget_that_is_too_small_names_one_that_would_do(
    tmp_path: Path, domains: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Costs, "seconds", lambda self, method, lengths: 100.0)  # a slow machine
    with pytest.raises(
        ValueError, match=r"--budget 2m is too small for a race of 2 methods .*; give at least --budget 7m"
    ):
        answer(tmp_path, domains, methods=TWO)
    assert (tmp_path / "runs" / "question" / "runs" / "trial" / RunFile.SUMMARY).exists()


def test_a_budget_that_ends_in_the_trial(tmp_path: Path, domains: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="--budget 0s is too small: it ended before any method was trained"):
        answer(tmp_path, domains, methods=TWO, budget_s=0.2)


def test_the_folder_of_another_question_is_refused(tmp_path: Path, domains: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="too small"):
        answer(tmp_path, domains, methods=TWO, budget_s=0.2)
    with pytest.raises(
        ConfigError, match=r"holds advice on another run \(distill_stage.epochs: 3 -> 7\); give --name"
    ):
        answer(tmp_path, domains, methods=TWO, distill_stage__epochs=7)


def test_a_teacher_that_is_no_better_than_chance(tmp_path: Path) -> None:
    noise = {name: write_dataset(tmp_path / name, [60], classes=CLASSES) for name in ("a", "b")}
    message = (
        r"on the source's validation split, and chance is 33.3%; its training .* lower source_stage.optim.lr"
    )
    with pytest.raises(ValueError, match=message):
        answer(tmp_path, noise, methods=TWO, source_stage__optim__lr=1e-9)


def test_one_class_is_refused(tmp_path: Path) -> None:
    one = {name: write_dataset(tmp_path / name, [60], labels=[0] * 60, classes=("a",)) for name in ("a", "b")}
    with pytest.raises(ValueError, match="one class; a classifier needs at least two"):
        answer(tmp_path, one)


@pytest.mark.parametrize(
    ("labels", "num", "message"),
    [
        ([-1] * 60, 60, "source.url=.* has no training label"),
        (
            [0, 1, 2] * 4,
            12,
            "source: 12 training images cannot tell methods apart .at least 20.; add images, or train",
        ),
    ],
)
def test_data_on_which_there_is_no_answer(tmp_path: Path, labels: list[int], num: int, message: str) -> None:
    few = {name: write_dataset(tmp_path / name, [num], labels=labels, classes=CLASSES) for name in ("a", "b")}
    with pytest.raises(ValueError, match=message):
        answer(tmp_path, few)
    assert not (tmp_path / "runs" / "question" / "runs").exists()
