"""The images of both networks: from the keys, the weights, or `data`; told where they differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from fourds_dist.data import DataConfig
from fourds_dist.data.stream.network_input import InputConversion, NetworkInput
from fourds_dist.inference.images import FileImages, ShardImages, open_labelled
from fourds_dist.inference.loading import load_student
from fourds_dist.inference.student import Student
from fourds_dist.launch.run import run
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.network_inputs import (
    conversions,
    described,
    network_inputs,
    predictor,
    with_network_inputs,
)
from fourds_dist.stages.run_identity import AnotherRunError, changes, held_settings
from fourds_dist.stages.settings import Settings
from tests.data.shards import CLASSES
from tests.stages.test_stages import assert_equal_weights, notes, trained
from tests.stages.test_stages import data as data  # a fixture
from tests.stages.test_stages import settings as run_settings

HALF, QUARTER = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def settings(**sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"data": {"resize_px": 36, "crop_px": 32}, **sections})


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A file of weights that names its normalisation."""
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {"a": torch.ones(2)}, "mean": HALF, "std": QUARTER}, path)
    return str(path)


def test_null_is_the_value_of_the_data() -> None:
    run = settings(student={"image_px": 24}, teacher={"mean": HALF})
    inputs, data = network_inputs(run), run.data
    assert inputs["student"] == NetworkInput(24, data.mean, data.std)
    assert inputs["teacher"] == NetworkInput(32, HALF, data.std)
    assert conversions(settings()) == {}
    assert conversions(run) == {
        role: InputConversion(NetworkInput.of_data(data), inputs[role]) for role in inputs
    }


def test_weights_fill_keys_that_are_null(weights: str) -> None:
    run = with_network_inputs(
        settings(teacher={"checkpoint": weights}, student={"start": weights, "std": HALF})
    )
    assert (run.teacher.mean, run.teacher.std, run.teacher.image_px) == (HALF, QUARTER, None)
    assert (run.student.mean, run.student.std) == (HALF, HALF)  # a given key stays
    assert with_network_inputs(run) == run


def test_values_of_the_data_stay_null(weights: str) -> None:
    """A run whose weights have the normalisation of the data has the configuration of earlier versions."""
    data = {"mean": (0.5001, 0.5, 0.5), "std": QUARTER}  # authors round
    run = settings(data=data, student={"start": weights})
    assert with_network_inputs(run) == run
    published = settings(student={"start": "pretrained"}, teacher={"start": "pretrained"})
    assert with_network_inputs(published) == published


def test_networks_of_one_size_take_the_size_of_their_weights() -> None:
    run = with_network_inputs(settings(teacher={"arch": "vit_b_16", "start": "pretrained"}))
    assert (run.teacher.image_px, run.teacher.mean) == (224, None)
    run = with_network_inputs(settings(teacher={"arch": "vit_b_16", "start": "pretrained", "image_px": 64}))
    assert run.teacher.image_px == 64


def test_ignored_and_unreadable_weights_change_nothing(weights: str, tmp_path: Path) -> None:
    for student in (
        {"start": weights, "metadata": "ignore"},
        {"start": str(tmp_path / "missing.pt")},
        {"start": "torchvision://NONE"},
        {"start": "pretrained", "arch": "no_such_package:network"},
        {"start": weights, "arch": "no_such_package:network"},
    ):
        run = settings(student=student)
        assert with_network_inputs(run).student.mean in (None, HALF if "no_such" in str(student) else None)


def test_a_started_run_keeps_its_values_for_the_same_weights(weights: str, tmp_path: Path) -> None:
    given = settings(student={"start": weights})
    former = with_network_inputs(given)
    Path(weights).unlink()
    assert with_network_inputs(given, former) == former
    assert with_network_inputs(given).student.mean is None
    other = settings(student={"start": "pretrained"})
    assert with_network_inputs(other, former).student.mean is None
    earlier = settings(student={"start": "pretrained", "arch": "vit_b_16"})  # of a version without these keys
    assert with_network_inputs(earlier, earlier) == earlier


def test_one_line_tells_what_differs() -> None:
    batches = NetworkInput(32, HALF, QUARTER)
    assert described({"teacher": batches, "student": batches}, batches) is None
    smaller = {"teacher": batches, "student": NetworkInput(24, HALF, HALF)}
    assert described(smaller, batches) == (
        "the student takes images of image_px 24, std [0.5, 0.5, 0.5] (batches: data.crop_px 32, data.mean "
        "[0.5, 0.5, 0.5], data.std [0.25, 0.25, 0.25])"
    )
    larger = described({"teacher": NetworkInput(48, HALF, QUARTER)}, batches)
    assert larger is not None
    assert larger.endswith("crops of 32 px are enlarged, and a larger data.crop_px gives more detail")


def test_a_predictor_takes_images_of_batches() -> None:
    network = nn.Flatten()
    assert predictor(network, None) is network
    conversion = InputConversion(
        NetworkInput(2, HALF, HALF), NetworkInput(2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    )
    found = predictor(network, conversion)
    torch.testing.assert_close(found(torch.ones(1, 3, 2, 2)), torch.ones(1, 12))  # white
    torch.testing.assert_close(found(-torch.ones(1, 3, 2, 2)), torch.zeros(1, 12))  # black


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_px", 0), ("image_px", -1), ("image_px", 8193), ("image_px", 2.5), ("image_px", True),
        ("std", (1.0, 0.0, 1.0)), ("std", (1.0, -1.0, 1.0)), ("std", (1.0, 1.0)), ("std", (1.0, 1.0, float("inf"))),
        ("std", 0.5), ("mean", (0.5,) * 4), ("mean", (0.5, 0.5, float("nan"))), ("mean", ("0.5",) * 3),
    ],
)  # fmt: skip
def test_values_that_are_no_size_or_normalisation_are_refused(role: str, key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=rf"{role}\.{key}"):
        settings(**{role: {key: value}})


OWN = (
    "teacher.image_px=12",
    "teacher.mean=[0.5, 0.5, 0.5]",
    "teacher.std=[0.25, 0.25, 0.25]",
    "student.image_px=6",
    "student.std=[0.5, 0.5, 0.5]",
    "student.start=source",
    "adapt.method=fine_tune",
    "adapt_stage.epochs=1",
)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of all stages whose networks have images of their own."""
    folder = tmp_path_factory.mktemp("runs")
    run(run_settings(data, folder, "run.name=own", *OWN))
    return folder


def losses(folder: Path) -> dict[str, float | None]:
    """Cross-entropy on the target's test split by network, measured in the run."""
    lines = RunSummary.from_dict(json.loads((folder / "summary.json").read_text())).lines
    return {line.network: line.target.loss for line in lines}


def loss_of(student: Student, images: ShardImages | FileImages) -> float:
    """Cross-entropy of a loaded network."""
    batches = student.probabilities_of(images)
    values = [-np.log(p[np.arange(len(p)), batch.labels.numpy()]) for batch, p in batches]
    return float(np.concatenate(values).mean())


def test_every_file_of_a_run_names_the_images_of_its_network(data: Path, runs: Path) -> None:
    teacher = NetworkInput(12, HALF, QUARTER)
    student = NetworkInput(6, DataConfig().mean, HALF)
    files = {"teacher": teacher, "teacher_adapted": teacher, "student_source": student, "student": student}
    target = open_labelled(f"{data}/target", (*CLASSES, "dog", "elk"))
    scores = {}
    for name, own in files.items():
        loaded = load_student(runs / "own" / f"{name}.safetensors")
        prepared = loaded.preprocessing
        assert (prepared.resize_px, prepared.crop_px) == (8, 8)
        assert NetworkInput(prepared.network_px, prepared.mean, prepared.std) == own
        scores[name] = loss_of(loaded, target)
    assert len(set(scores.values())) == len(files)
    measured = losses(runs / "own")  # evaluated in the run, from the same crops
    assert measured["teacher before adapting"] == pytest.approx(scores["teacher"])
    assert measured["teacher"] == pytest.approx(scores["teacher_adapted"])
    assert measured["student"] == pytest.approx(scores["student"])
    assert measured["student before distillation"] == pytest.approx(scores["student_source"])
    (told,) = {text for text in notes(runs / "own") if "takes images of" in text}
    assert told.startswith("the teacher takes images of image_px 12, mean [0.5, 0.5, 0.5]")


def test_a_run_is_identified_by_the_images_of_its_networks(data: Path, runs: Path) -> None:
    run(run_settings(data, runs, "run.name=own", *OWN))  # nothing is left to do
    for change in ("student.image_px=7", "teacher.std=[0.5,0.5,0.5]", "student.mean=[0.5,0.5,0.5]"):
        with pytest.raises(AnotherRunError, match=change.partition("=")[0].replace(".", r"\.")):
            run(run_settings(data, runs, "run.name=own", *OWN, change))


def test_weights_of_a_run_bring_their_images_to_the_next(data: Path, runs: Path) -> None:
    own = runs / "own"
    words = (f"teacher.checkpoint={own}/teacher.safetensors", f"student.start={own}/student.safetensors")
    run(run_settings(data, runs, "run.name=next", *words))
    held = held_settings(RunFolder(f"{runs}/next"))
    assert (held.teacher.image_px, held.teacher.mean, held.teacher.std) == (12, HALF, QUARTER)
    assert (held.student.image_px, held.student.mean, held.student.std) == (6, None, HALF)
    assert losses(runs / "next")["teacher"] == losses(own)["teacher before adapting"]
    assert losses(runs / "next")["student before distillation"] == losses(own)["student"]
    again = run_settings(data, runs, "run.name=next", *words)  # as a comparison that goes on asks
    assert changes(RunFolder(f"{runs}/next"), again, strict=True) == []
    other = run_settings(data, runs, "run.name=other", *words, "teacher.mean=[0.1,0.1,0.1]")
    with pytest.raises(
        ValueError, match=r"teacher\.mean is \[0\.5.* in the file and \[0\.1.*teacher\.metadata=ig"
    ):
        run(other)


def test_a_stopped_run_resumes_bit_for_bit(data: Path, tmp_path: Path) -> None:
    words = [*OWN[:6], "data.augment.mixup_alpha=0.4", "step.gradient_accumulation_steps=2"]
    weights = [
        trained("distill", run_settings(data, tmp_path, f"run.name={name}", *words), stop_at)
        for name, stop_at in (("whole", None), ("stopped", 2))
    ]
    assert_equal_weights(*weights)
