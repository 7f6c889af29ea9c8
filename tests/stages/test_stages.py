"""Stages: those of a run, the files of each, and the teacher adaptation of two-stage methods, also when interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fourds_dist.cli import command
from fourds_dist.cli.train import main
from fourds_dist.config.loading import dump, load
from fourds_dist.config.section import ConfigError
from fourds_dist.config.stage_names import StageName
from fourds_dist.inference.loading import load_student
from fourds_dist.inference.student import network_of
from fourds_dist.launch.run import run, train
from fourds_dist.models.weights.loading import encode_weights
from fourds_dist.runs import run_folder
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import drop_checkpoints, run_stage, stages_to_run
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from fourds_dist.training.checkpoint.learning_state import FORMAT
from fourds_dist.training.stop_signals import Stopped
from tests.data.shards import CLASSES, write_dataset
from tests.training.tiny import NUM_CLASSES, tiny_network

SMALL = (
    "data={resize_px: 8, crop_px: 8}",
    "teacher={arch: tests.stages.test_stages:network, stages: [layer1, layer2]}",
    "student={arch: tests.stages.test_stages:network, stages: [layer1, layer2], start: random}",
    "source_stage={epochs: 1, global_batch_size: 16}",
    "adapt_stage={epochs: 2, global_batch_size: 16}",
    "distill_stage={epochs: 1, global_batch_size: 16}",
    "step.log_every_steps=1",
    "launch.runner=inline",
    "tracking.wandb=disabled",
)


def notes(run: Path) -> list[str]:
    """What the run noted, but for what it was bound by: that depends on the machine."""
    texts = (row["text"] for row in rows(run) if row["event"] == "note")
    return [text for text in texts if not text.startswith("bound by ")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    classes = (*CLASSES, "dog", "elk")
    write_dataset(folder / "source", [32], classes=classes)
    write_dataset(folder / "target", [48], classes=classes)
    return folder


def network(num_classes: int) -> nn.Module:
    """The smallest network there is, of two stages."""
    assert num_classes == NUM_CLASSES
    return tiny_network(8)


def settings(data: Path, runs: Path, *changes: str) -> Settings:
    places = (f"source.url={data}/source", f"target.url={data}/target", f"run.dir={runs}")
    return load(Settings, None, [*SMALL, *places, *changes])


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def store(folder: RunFolder, stage: str):
    return lambda note: FolderStore(folder.path(stage), note=note)


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ((), ("source", "distill")),
        (("adapt.method=mcc",), ("source", "adapt", "distill")),
        (("adapt.method=mcc", "run.until=adapt"), ("source", "adapt")),
        (("run.until=source",), ("source",)),
        (("teacher.checkpoint=t.pt", "adapt.method=fine_tune"), ("adapt", "distill")),
        (("teacher.checkpoint=t.pt", "student.start=source"), ("source", "distill")),
        (("teacher.checkpoint=t.pt",), ("distill",)),
    ],
)
def test_stages_of_a_run(tmp_path: Path, changes: tuple[str, ...], stages: tuple[str, ...]) -> None:
    assert stages_to_run(settings(tmp_path, tmp_path, *changes)) == stages


def test_two_stages_distil_the_adapted_teacher(data: Path, tmp_path: Path) -> None:
    given = settings(
        data, tmp_path, "run.name=two", "adapt.method=mcc", "target.labels_per_class=4",
        "method.preset=distillation", "method.teacher_batch_norm=frozen",
    )  # fmt: skip
    run(given)
    outcome = RunSummary.from_dict(RunFolder(given.run_url).read_json("summary.json"))
    networks = [line.network for line in outcome.lines]
    assert {"teacher", "teacher before adapting", "student"} <= set(networks)
    events = rows(tmp_path / "two")
    assert [row["stage"] for row in events if row["event"] == "end"] == ["source", "adapt", "distill"]
    adapting = next(row for row in events if row["stage"] == "adapt" and row["event"] == "step")
    assert {"teacher_ce", "teacher_mcc"} <= adapting["losses"].keys()
    before, after = (
        load_file(tmp_path / "two" / f"{name}.safetensors") for name in ("teacher", "teacher_adapted")
    )
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    kept = load_file(
        tmp_path / "two" / "adapters.safetensors"
    )  # the statistics of the teacher that was distilled
    torch.testing.assert_close(kept["teacher.layer1.1.running_mean"], after["layer1.1.running_mean"])

    # What is done is not done again: only the last stage runs where its result is gone.
    (tmp_path / "two" / "summary.json").unlink()
    count = len(rows(tmp_path / "two"))
    run(given)
    assert (tmp_path / "two" / "summary.json").exists()
    assert [row["stage"] for row in rows(tmp_path / "two")[count:]].count("adapt") == 0


@pytest.mark.parametrize(("start", "warms_up"), [("random", True), ("source", False)])
def test_a_student_that_does_not_know_the_classes_warms_up(
    data: Path, tmp_path: Path, start: str, warms_up: bool
) -> None:
    run(
        settings(
            data, tmp_path, "run.name=student_untrained", f"student.start={start}", "distill_stage.epochs=2"
        )
    )
    steps = [
        row
        for row in rows(tmp_path / "student_untrained")
        if row["stage"] == "distill" and row["event"] == "step"
    ]
    assert ["student_ratio" in row["method_values"] for row in steps] == [warms_up] * len(steps)
    if warms_up:
        epoch = next(
            row
            for row in rows(tmp_path / "student_untrained")
            if row["event"] == "epoch" and row["stage"] == "distill"
        )
        accuracy = {name: measured["accuracy"] for name, measured in epoch["validation"].items()}
        reached = min(1.0, accuracy["student"] / accuracy["teacher_adapted"])
        ratios = [row["method_values"]["student_ratio"] for row in steps]
        assert ratios == pytest.approx([0.0] * 3 + [reached**16] * 3)


RESULTS = {
    "adapt": ("adapt.json", "teacher_adapted.safetensors"),
    "distill": ("summary.json", "student.safetensors"),
}
"""The last file and the weights of a stage."""


def trained(stage: StageName, given: Settings, stop_at: int | None) -> dict[str, torch.Tensor]:
    """Train the source stage and then `stage`, stopped and resumed at a look for stop requests; return its weights."""
    folder, (last_file, weights) = RunFolder(given.run_url), RESULTS[stage]
    run_stage("source", given, store(folder, "source"))
    looks = iter(range(1, 100))
    if stop_at is not None:
        with pytest.raises(Stopped, match="SIGTERM"):
            run_stage(
                stage, given, store(folder, stage),
                stop=lambda run_s: StopReason(StopKind.SIGTERM) if next(looks) == stop_at else None,
            )  # fmt: skip
        assert not folder.exists(last_file)
    run_stage(stage, given, store(folder, stage))
    return load_file(folder.path(weights))


def assert_equal_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0, atol=0, msg=name)


def test_teacher_adaptation_resumes(data: Path, tmp_path: Path) -> None:
    def adapted(name: str, stop_at: int | None) -> dict[str, torch.Tensor]:
        given = settings(data, tmp_path, f"run.name={name}", "adapt.method=fine_tune", "run.until=adapt")
        return trained("adapt", given, stop_at)

    assert_equal_weights(adapted("whole", None), adapted("stopped", 4))
    assert sum(row["event"] == "start" for row in rows(tmp_path / "stopped")) == 3


AUGMENTED = (
    "data.train_crop=random_resized",
    "data.resize_mode=shortest_side",
    "data.augment={brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, policy: rand_augment, "
    "erasing_probability: 0.5, mixup_alpha: 0.4, cutmix_alpha: 1.0}",
    "target.labels_per_class=4",
    "distill_stage={epochs: 2, global_batch_size: 16, ema_decay: 0.9, checkpoint_every_steps: 2}",
)


def test_a_run_with_every_augmentation_and_an_average_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    def student(name: str, stop_at: int | None) -> dict[str, torch.Tensor]:
        return trained("distill", settings(data, tmp_path, f"run.name={name}", *AUGMENTED), stop_at)

    whole = student("whole", None)
    assert_equal_weights(whole, student("stopped", 4))
    losses = [
        [row["loss"] for row in rows(tmp_path / name) if row["event"] == "step" and row["stage"] == "distill"]
        for name in ("whole", "stopped")
    ]
    assert losses[0] == losses[1]
    loaded = load_student(tmp_path / "stopped" / "student.safetensors")
    assert loaded.preprocessing.resize_mode == "shortest_side"
    RunFolder(str(tmp_path / "whole")).write_bytes(
        "config.yaml", dump(settings(data, tmp_path, "run.name=whole", *AUGMENTED)).encode()
    )
    checkpoint = load_student(max((tmp_path / "whole" / "distill").glob("checkpoint-*")))
    assert all(torch.equal(p.cpu(), whole[n]) for n, p in network_of(checkpoint).state_dict().items())


def test_until_the_source_needs_no_target_and_its_teacher_warms_up_others(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path, "run.name=source", "run.until=source", "target.url=null")
    assert train(given) is None
    assert not (tmp_path / "source" / "summary.json").exists()
    teacher = tmp_path / "source" / "teacher.safetensors"
    assert run(settings(data, tmp_path, "run.name=next", f"teacher.checkpoint={teacher}"))
    assert {row["stage"] for row in rows(tmp_path / "next")} == {"distill"}


def test_a_store_that_is_away_as_a_stage_ends_is_waited_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, write = set(), run_folder.write_bytes

    def once_away(url: str, content: bytes) -> None:
        if url not in failed and not url.endswith("metrics.jsonl"):
            failed.add(url)
            raise ConnectionError("nobody there")
        write(url, content)

    given = settings(data, tmp_path, "run.name=away", "run.until=source")
    monkeypatch.setattr(run_folder, "write_bytes", once_away)
    run_stage("source", given, store(RunFolder(given.run_url), "source"))
    assert {Path(url).name for url in failed} == {"teacher.safetensors", "source.json"}
    assert failed <= {str(path) for path in (tmp_path / "away").iterdir()}


def test_a_teacher_s_classes_are_taken_by_name_and_said_once(data: Path, tmp_path: Path) -> None:
    """A given teacher's file has the classes in another order; without metadata the order is checked by validation."""
    classes = (*CLASSES, "dog", "elk")
    torch.manual_seed(0)
    state = tiny_network(8).state_dict()
    about = {"classes": "\n".join(reversed(classes)), "mean": "", "format": "pt"}
    (tmp_path / "named.safetensors").write_bytes(encode_weights(state, about))
    (tmp_path / "bare.safetensors").write_bytes(encode_weights(state, {}))
    told = {}
    for name in ("named", "bare"):
        given = settings(
            data, tmp_path, f"teacher.checkpoint={tmp_path}/{name}.safetensors", f"run.name={name}"
        )
        run(given)
        told[name] = notes(tmp_path / name)
    (reordered,) = [text for text in told["named"] if "another order than the data's; " in text]
    assert reordered.endswith("reordered fc.weight, fc.bias by class name")
    (judged,) = [text for text in told["bare"] if "chance is 20.0%" in text]
    assert "bare.safetensors has an accuracy of " in judged
    assert "source's validation split (mean over classes)" in judged


@pytest.mark.parametrize(
    ("words", "measure", "key"),
    [
        (["run.select_by=mean_per_class"], "balanced_accuracy", "mean_per_class"),
        (
            [
                "distill_stage.select_by=macro_f1",
                "source.class_weights=balanced",
                "target.class_weights=balanced",
            ],
            "macro_f1",
            "macro_f1",
        ),
    ],
)
def test_the_epoch_may_be_chosen_by_other_measures(
    data: Path, tmp_path: Path, words: list[str], measure: str, key: str
) -> None:
    given = settings(data, tmp_path, "run.name=mean", "distill_stage.epochs=2", *words)
    run(given)
    outcome = RunSummary.from_dict(RunFolder(given.run_url).read_json("summary.json"))
    epochs = [row for row in rows(tmp_path / "mean") if row["event"] == "epoch" and row["stage"] == "distill"]
    chosen = epochs[outcome.selected_epoch - 1]
    assert outcome.validation_accuracy == chosen["validation"]["student"][key]
    assert all(chosen["validation"][name]["loss"] is not None for name in ("student", "teacher_adapted"))
    assert outcome.selected_by == measure
    student = outcome.lines[-1].target
    assert student.mean_per_class is not None
    assert RunSummary.from_dict(json.loads(json.dumps(outcome.as_dict()))) == outcome


def test_nonfinite_numbers_are_reported_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = settings(data, tmp_path, "run.until=source", "source_stage.optim.lr=1e30")
    (tmp_path / "given.yaml").write_text(dump(given))
    assert main([str(tmp_path / "given.yaml")]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: ")
    assert "not finite" in told
    assert "a fault in" not in command.format_error(FloatingPointError("the loss is not finite"))


def test_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapt\.method=fine_tune needs labels"):
        settings(data, tmp_path, "adapt.method=fine_tune", "target.labels_per_class=0", "source.url=null")
    with pytest.raises(ConfigError, match=r"adapt\.method=mcc needs labels"):
        settings(data, tmp_path, "adapt.method=mcc", "target.labels_per_class=0", "data.source_fraction=0")
    settings(data, tmp_path, "adapt.method=mcc", "target.labels_per_class=0")  # source images are added
    settings(data, tmp_path, "adapt.method=mcc", "target.labels_per_class=0", "data.source_fraction=0.5")
    with pytest.raises(ValueError, match=r"run\.until=source leaves nothing to run"):
        run(settings(data, tmp_path, "teacher.checkpoint=t.pt", "run.until=source"))
    with pytest.raises(ValueError, match=r"adapt_stage\.global_batch_size=64: .* 48 train images"):
        run(settings(data, tmp_path, "adapt.method=fine_tune", "adapt_stage.global_batch_size=64"))


def test_checkpoints_of_a_run_that_is_over_go_and_its_results_stay(tmp_path: Path) -> None:
    for stage in ("source", "distill"):
        FolderStore(f"{tmp_path}/{stage}", keep=None).write({"format": FORMAT}, "checkpoint-00000010")
    (tmp_path / "student.safetensors").write_bytes(b"x")
    for _ in range(2):
        drop_checkpoints(RunFolder(str(tmp_path)))
        assert [path.name for path in tmp_path.iterdir()] == ["student.safetensors"]
