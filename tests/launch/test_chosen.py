"""Values that follow from the images: only for keys that are not given, printed, and stable for a run that started."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fourds_dist.config.loading import draft, dump
from fourds_dist.launch.chosen import with_images
from fourds_dist.runs.layout import DONE
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from tests.data.shards import write_dataset
from tests.launch.test_image_inputs import folder_of


def chosen(place: Path, *words: str) -> Settings:
    urls = (f"source.url={place}/studio", f"target.url={place}/street", f"run.dir={place}/runs")
    given = draft(None, [*urls, *words])
    return with_images(given.build(Settings), given)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder_of(tmp_path / "studio", side=100)
    folder_of(tmp_path / "street", num=300, side=70)
    return tmp_path


def test_all_that_follows_is_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = chosen(place)
    assert (run.data.resize_px, run.data.crop_px) == (
        73,
        64,
    )  # most of the images whose headers are read are of 70 px
    assert (run.teacher.arch, run.teacher.stem, run.student.arch) == ("resnet18", "small", "resnet10")
    assert (run.source_stage.epochs, run.source_stage.global_batch_size) == (60, 8)
    assert (run.distill_stage.epochs, run.distill_stage.global_batch_size) == (60, 16)
    assert run.distill_stage.optim.schedule == "cosine"
    out = capsys.readouterr().err
    assert f"source: 20 images of 2 classes in {place}/studio" in out
    for word in (
        "data.crop_px=64",
        "teacher.arch=resnet18",
        "distill_stage.epochs=60",
        "run.name=studio-to-street",
    ):
        assert word in out


def test_given_keys_stay(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("data.crop_px=128", "student={arch: mobilenet_v2}", "distill_stage.epochs=3", "run.name=mine")
    run = chosen(place, *words, "teacher.start=torchvision")
    assert (run.data.resize_px, run.data.crop_px) == (146, 128)
    assert (run.teacher.arch, run.teacher.stem) == ("resnet34", "imagenet")
    assert (run.student.arch, run.student.stem) == ("mobilenet_v2", "imagenet")
    assert (run.distill_stage.epochs, run.run.name) == (3, "mine")
    assert run.source_stage.optim.lr == 0.01
    assert "student.arch" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "variable", "has_gpu", "runner"),
    [
        ((), None, False, "inline"),
        (("launch.cpus_per_worker=2",), None, False, "ray"),
        ((), "RAY_ADDRESS", False, "ray"),
        ((), "RAY_JOB_CONFIG_JSON_ENV_VAR", False, "ray"),
        ((), None, True, "ray"),
    ],
)
def test_a_machine_without_gpu_and_cluster_trains_in_this_process(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    variable: str | None,
    has_gpu: bool,
    runner: str,
) -> None:
    for name in ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "http://127.0.0.1:8265")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert chosen(place, *words).launch.runner == runner


def test_data_sets_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("studio", "street"):
        write_dataset(tmp_path / name, [3])
    run = chosen(tmp_path)
    assert (run.distill_stage.epochs, run.data.crop_px, run.run.name) == (120, 224, "run")
    assert capsys.readouterr().err == ""


def test_a_run_that_has_started_keeps_its_values(place: Path) -> None:
    run = chosen(place)
    folder = RunFolder(run.run_url)
    folder.write_text("config.yaml", dump(run).replace("epochs: 60", "epochs: 77"))
    assert chosen(place) == run
    folder.write_json(DONE["source"], {})
    assert chosen(place).source_stage.epochs == 77
    assert chosen(place, "source_stage.epochs=5").source_stage.epochs == 5
