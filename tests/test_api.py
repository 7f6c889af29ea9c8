"""What `fit` takes for a configuration; the runs themselves are in its doctest and in tests of the stages."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fourds_dist import api
from fourds_dist.config.loading import dump
from fourds_dist.config.section import ConfigError
from fourds_dist.data import StreamConfig
from fourds_dist.models.weights.networks import StudentConfig
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.stages.settings import Settings

INLINE = LaunchConfig(runner="inline")


class Split(StrEnum):
    HERE = "shards/here"


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch):
    """The settings that `fit` would train by; nothing is trained."""

    class Trained(Exception):
        pass

    def trained(settings: Settings) -> None:
        raise Trained(settings)

    monkeypatch.setattr(api, "train", trained)

    def of(*config: Any, **sections: Any) -> Settings:
        with pytest.raises(Trained) as caught:
            api.fit(*config, **sections)
        return caught.value.args[0]

    return of


def test_paths_numbers_and_sections_as_programs_have_them(settings_of) -> None:
    settings = settings_of(
        source=Path("shards/src"),
        target=StreamConfig(url="shards/tgt"),
        teacher={"checkpoint": Path("/t.safetensors")},
        run={"dir": Path("runs"), "seed": np.uint8(3), "name": np.str_("a")},
        distill_stage={"epochs": np.int64(3), "optim": {"lr": np.float32(0.5)}},
        source_stage={"epochs": torch.tensor(2)},
        data={"mean": np.array([0.0, 0.25, 0.5]), "std": (np.float64(0.5),) * 3, "crop_px": np.array(16)},
        step={"cuda_graph": np.bool_(False)},
        launch=INLINE,
    )
    here = os.getcwd()  # noqa: PTH109
    assert (settings.source.url, settings.target.url) == (f"{here}/shards/src", f"{here}/shards/tgt")
    assert settings.teacher.checkpoint == "/t.safetensors"
    assert (settings.run.dir, settings.run.seed, settings.run.name) == (f"{here}/runs", 3, "a")
    assert (settings.distill_stage.epochs, settings.distill_stage.optim.lr, settings.source_stage.epochs) == (
        3,
        0.5,
        2,
    )
    assert (settings.data.mean, settings.data.std) == ((0.0, 0.25, 0.5), (0.5, 0.5, 0.5))
    assert (settings.data.crop_px, settings.step.cuda_graph, settings.launch) == (16, False, INLINE)
    assert settings_of(target=Split.HERE, launch=INLINE).target.url == f"{here}/shards/here"


def test_several_students_are_a_list_of_sections(settings_of) -> None:
    students = [{"arch": "resnet10", "mean": np.array([0.0, 0.25, 0.5])}, StudentConfig(stem="small")]
    settings = settings_of(source="s", target="t", students=students, launch=INLINE)
    assert settings.student_names == ["resnet10", "resnet18"]
    assert (settings.students[0].mean, settings.students[1].stem) == ((0.0, 0.25, 0.5), "small")


def test_whatever_holds_a_configuration_is_one(settings_of, tmp_path: Path) -> None:
    settings = settings_of(source=Path("s"), target="t", run={"dir": tmp_path, "name": "one"}, launch=INLINE)
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(settings))
    given = (settings, api.Run(str(folder)), folder / "config.yaml", str(folder / "config.yaml"))
    for config in (*given, settings.model_dump(), {"source": Path("s"), "target": "t", "run.dir": tmp_path}):
        more = {"run": {"name": "two"}, "launch": INLINE}
        changed = settings_of(config, **more)
        assert changed == settings.model_copy(update={"run": settings.run.model_copy(update={"name": "two"})})


@pytest.mark.parametrize(
    ("config", "sections", "message"),
    [
        (3, {}, "config is a int; give the path of a YAML file, a mapping, Settings or a Run"),
        (
            None,
            {"distill_stage": {"epochs": {1, 2}}},
            r"distill_stage\.epochs: a set cannot be a value of a configuration",
        ),
        (
            None,
            {"distill_stage": {"optim": {"lr": 1j}}},
            r"distill_stage\.optim\.lr: a complex cannot be a value",
        ),
        (None, {"teacher": {"arch": torch.nn.Linear(1, 1)}}, r"teacher\.arch: a Linear cannot be a value"),
        (
            None,
            {"distill_stage": {"epochs": np.float64(3.5)}},
            r"distill_stage\.epochs: .*valid integer, not 3\.5",
        ),
        (None, {"distil": {"epochs": 3}}, "unknown key 'distil'.* did you mean 'distill_stage'"),
    ],
)
def test_what_is_none_is_refused_by_its_key(config: Any, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        api.fit(config, **sections)
