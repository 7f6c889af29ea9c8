"""Several students of one run: each as in a run of its own, exact resume, files by name, loading by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fourds_dist.cli.evaluate import main as evaluate_main
from fourds_dist.config.loading import load
from fourds_dist.inference.loading import load_student
from fourds_dist.launch.run import run
from fourds_dist.reports.report import report
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import run_stage
from fourds_dist.stages.students import latencies_ms
from fourds_dist.training.stop_signals import Stopped
from tests.data.shards import CLASSES, write_dataset
from tests.stages.test_stages import SMALL, rows, store
from tests.training.tiny import tiny_network

EPOCHS = 3
NAMES = ("narrow", "wide")


def narrow(num_classes: int) -> nn.Module:
    assert num_classes == 5
    return tiny_network(4)


def wide(num_classes: int) -> nn.Module:
    assert num_classes == 5
    return tiny_network(12)


def entry(name: str, start: str) -> str:
    return f"{{arch: tests.stages.test_students:{name}, stages: [layer1, layer2], start: {start}}}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    classes = (*CLASSES, "dog", "elk")
    write_dataset(folder / "source", [32], classes=classes)
    write_dataset(folder / "target", [48], classes=classes)
    return folder


def settings(data: Path, runs: Path, name: str, *changes: str) -> Settings:
    kept = [word for word in SMALL if not word.startswith(("student", "distill_stage"))]
    own = (
        f"distill_stage={{epochs: {EPOCHS}, global_batch_size: 16, ema_decay: 0.5, optim: {{lr: 0.05}}}}",
        "method.preset=distillation",
        "step.gradient_accumulation_steps=2",
        f"run.name={name}",
        f"run.dir={runs}",
        f"source.url={data}/source",
        f"target.url={data}/target",
    )
    return load(Settings, None, [*kept, *own, *changes])


def several(start: str) -> str:
    return f"students=[{entry('narrow', start)}, {entry('wide', start)}]"


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose two students start from the source."""
    runs = tmp_path_factory.mktemp("runs")
    run(settings(data, runs, "both", several("source")))
    return runs / "both"


def same(a: Path, b: Path) -> bool:
    one, other = load_file(a), load_file(b)
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_each_student_has_the_weights_of_its_own_run_bit_for_bit(
    data: Path, done: Path, tmp_path: Path
) -> None:
    for name in NAMES:
        run(settings(data, tmp_path, name, f"student={entry(name, 'source')}"))
        assert same(done / f"student-{name}.safetensors", tmp_path / name / "student.safetensors")
        assert same(
            done / f"student_source-{name}.safetensors", tmp_path / name / "student_source.safetensors"
        )
        together = [row for row in rows(done) if row["event"] == "step" and row["stage"] == "distill"]
        alone = [row for row in rows(tmp_path / name) if row["event"] == "step" and row["stage"] == "distill"]
        for term in ("student_ce", "student_kd"):
            expected = [row["losses"][term] for row in alone]
            assert [row["losses"][f"{term}/{name}"] for row in together] == expected
        summary = RunSummary.from_dict(RunFolder(str(tmp_path / name)).read_json("summary.json"))
        line = RunSummary.from_dict(RunFolder(str(done)).read_json("summary.json")).students[name]
        assert line.selected_epoch == summary.selected_epoch
        assert line.validation == summary.validation_accuracy


def test_a_list_of_one_student_is_that_student_bit_for_bit(data: Path, tmp_path: Path) -> None:
    options = ("method.preset=4ds", "distill_stage.epochs=1", "distill_stage.ema_decay=null")
    of_list = settings(data, tmp_path, "list", f"students=[{entry('narrow', 'random')}]", *options)
    single = settings(data, tmp_path, "single", f"student={entry('narrow', 'random')}", *options)
    assert of_list.model_copy(update={"run": single.run}) == single
    run(of_list)
    run(single)
    for file in ("student.safetensors", "adapters.safetensors"):
        assert same(tmp_path / "list" / file, tmp_path / "single" / file)
    losses = [
        [row["losses"] | {"loss": row["loss"]} for row in rows(tmp_path / name) if row["event"] == "step"]
        for name in ("list", "single")
    ]
    assert losses[0] == losses[1]
    assert load_student(tmp_path / "list", "narrow").classes == load_student(tmp_path / "list").classes


class KilledError(Exception):
    """Stands for the death of the process: no checkpoint is written."""


@pytest.mark.parametrize("preset", ["distillation", "4ds"])
def test_a_stopped_and_killed_run_resumes_to_the_weights_of_an_undisturbed_one(
    data: Path, tmp_path: Path, preset: str
) -> None:
    words = (several("random"), f"method.preset={preset}", "distill_stage.checkpoint_every_steps=2")
    whole = settings(data, tmp_path, f"whole-{preset}", *words)
    run(whole)
    cut = settings(data, tmp_path, f"cut-{preset}", *words)
    folder = RunFolder(cut.run_url)
    run_stage("source", cut, store(folder, "source"))
    looks = itertools.count(1)
    with pytest.raises(Stopped):  # after the first step
        run_stage("distill", cut, store(folder, "distill"), stop=lambda _: StopReason(StopKind.SIGTERM))

    def kill(_: float) -> None:
        if (
            next(looks) == 4
        ):  # in step 5: steps 1 to 3 have a best epoch, and the newest checkpoint is that of step 4
            raise KilledError

    with pytest.raises(KilledError):
        run_stage("distill", cut, store(folder, "distill"), stop=kill)
    run_stage("distill", cut, store(folder, "distill"))
    resumed = [row["step"] for row in rows(Path(cut.run_url)) if row["event"] == "start"]
    assert resumed[-3:] == [0, 1, 4]
    for name in NAMES:
        file = f"student-{name}.safetensors"
        assert same(Path(whole.run_url, file), Path(cut.run_url, file))
    assert same(Path(whole.run_url, "adapters.safetensors"), Path(cut.run_url, "adapters.safetensors"))


def test_the_run_ends_in_a_row_a_point_and_files_for_each_student(done: Path) -> None:
    summary = RunSummary.from_dict(RunFolder(str(done)).read_json("summary.json"))
    assert [line.network for line in summary.lines] == [
        "teacher",
        "student narrow before distillation",
        "student wide before distillation",
        "teacher with adapters",
        "student narrow",
        "student wide",
    ]
    assert set(summary.students) == set(NAMES)
    assert summary.students["wide"].num_parameters > summary.students["narrow"].num_parameters
    assert all(line.latency_ms and line.latency_ms > 0 for line in summary.lines)
    best = max(summary.students, key=lambda name: summary.students[name].validation or 0.0)
    value = summary.students[best].validation
    assert summary.students[summary.best_student].validation == value == summary.validation_accuracy
    assert summary.student is summary.students[summary.best_student]
    assert same(done / "student.safetensors", done / f"student-{summary.best_student}.safetensors")
    page = Path(report([Run(str(done))])).read_text()
    assert "<h2>Students</h2>" in page
    assert (done / "report" / "accuracy-over-latency.png").stat().st_size > 1000
    epoch = next(row for row in rows(done) if row["event"] == "epoch" and row["stage"] == "distill")
    assert set(epoch["validation"]) == {"student/narrow", "student/wide", "teacher_adapted"}
    sections = {chart for row in rows(done) if row["event"] == "step" for chart in row["learning_rates"]}
    assert sections == {"teacher", "student/narrow", "student/wide"}


def test_students_are_loaded_by_name(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"narrow": 8, "wide": 24}
    for name, width in sizes.items():
        assert load_student(done, name).network.fc.in_features == width  # pyright: ignore
        step = sorted((done / "distill").iterdir())[-1]
        assert load_student(step, name).network.fc.in_features == width  # pyright: ignore
    best = Run(str(done)).main_student
    assert load_student(done).network.fc.in_features == sizes[best]  # pyright: ignore
    assert load_student(step).network.fc.in_features == sizes[best]  # pyright: ignore
    expected = load_file(done / f"student-{best}.safetensors")
    torch.testing.assert_close(dict(load_student(step).network.cpu().state_dict()), expected)  # pyright: ignore
    with pytest.raises(ValueError, match=r"no student 'broad'; its students are narrow, wide"):
        load_student(done, "broad")
    with pytest.raises(ValueError, match="is one student, so the name 'wide' selects nothing"):
        load_student(done / "student-wide.safetensors", "wide")

    assert evaluate_main([str(done), "--student", "wide", "--json", "-"]) == 0
    captured = capsys.readouterr()
    assert '"num_images"' in captured.out or "accuracy" in captured.out
    assert "the best one" not in captured.err
    assert evaluate_main([str(done), "--json", "-"]) == 0
    assert f"student {best}: the best one of the run" in capsys.readouterr().err


def test_students_without_a_teacher_to_train_have_their_own_best_epochs_on_the_source(
    data: Path, done: Path, tmp_path: Path
) -> None:
    words = (several("source"), f"teacher.checkpoint={done}/teacher.safetensors", "run.until=source")
    run(settings(data, tmp_path, "given", *words, "source_stage.epochs=3"))
    epochs = [row["validation"] for row in rows(tmp_path / "given") if row["event"] == "epoch"]
    for name in NAMES:
        student = load_student(tmp_path / "given" / f"student_source-{name}.safetensors")
        value = float(student.about["validation_accuracy"])
        measured: list[dict[str, Any]] = [epoch[f"student/{name}"] for epoch in epochs]
        assert value in [each["accuracy"] for each in measured]
        assert value + 0.1 >= max(each["accuracy"] for each in measured)  # within a standard error


def test_the_latency_of_a_slower_network_is_larger() -> None:
    def of(num: int) -> Callable[[torch.Tensor], torch.Tensor]:
        weight = torch.randn(200, 200)

        def predict(images: torch.Tensor) -> torch.Tensor:
            assert images.shape == (1, 3, 8, 8)
            for _ in range(num):
                torch.mm(weight, weight)
            return images.flatten(1)

        return predict

    found = latencies_ms({"slow": of(50), "fast": of(1)}, 8, torch.device("cpu"), autocast=False)
    assert found["slow"] > 5 * found["fast"] > 0
