"""The root of the configuration: paths of a run's inputs, and sections that contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.stages.settings import Settings, relative_inputs, with_absolute_paths


def test_inputs_are_what_a_run_reads() -> None:
    words = ["source.url=s", "target.url=/t", "teacher.checkpoint=s3://b/t", "data.cache_dir=c", "run.dir=r"]
    assert relative_inputs(load(Settings, None, words)) == {"source.url": "s"}
    assert relative_inputs(load(Settings, None, [*words, "prepare=digits"])) == {}


def test_the_folder_of_a_run() -> None:
    assert load(Settings, None, ["run.dir=runs/", "run.name=a"]).run_url == "runs/a"
    assert load(Settings, None, ["run.dir=s3://bucket/runs", "run.name=a"]).run_url == "s3://bucket/runs/a"


def test_local_paths_become_absolute_and_names_and_urls_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = [
        "source.url=shards/photos",
        "target.url=s3://bucket/sketches",
        "run.dir=~/runs",
        "teacher.checkpoint=file:///weights/t.pt",
        "teacher.start=torchvision",
        "student.start=random",
        "launch.strategy=deepspeed",
    ]
    found = with_absolute_paths(load(Settings, None, words), tmp_path)
    assert found.source.url == f"{tmp_path}/shards/photos"
    assert found.target.url == "s3://bucket/sketches"
    assert found.run.dir == "/home/me/runs"
    assert found.teacher.checkpoint == "/weights/t.pt"
    assert (found.teacher.start, found.student.start, found.data.cache_dir) == ("torchvision", "random", None)
    assert found.launch.deepspeed == "zero1"  # a built-in configuration
    own = with_absolute_paths(load(Settings, None, ["launch.deepspeed=mine.json"]), tmp_path)
    assert own.launch.deepspeed == f"{tmp_path}/mine.json"


@pytest.mark.parametrize(
    "name",
    [
        "pretrained",
        "torchvision://IMAGENET1K_V2",
        "hf-hub:owner/name",
        "hf://owner/name@v1",
        "hf-hub:timm/a.b",
    ],
)
def test_names_of_published_weights_are_no_paths(name: str, tmp_path: Path) -> None:
    words = [f"teacher.start={name}", f"student.start={name}", f"teacher.checkpoint={name}"]
    given = load(Settings, None, words)
    found = with_absolute_paths(given, tmp_path)
    assert (found.teacher.start, found.student.start, found.teacher.checkpoint) == (name, name, name)
    assert relative_inputs(given) == {}


def test_a_url_that_lacks_a_slash_is_refused(tmp_path: Path) -> None:
    given = load(Settings, None, ["target.url=s3:/bucket/x"])
    with pytest.raises(
        ConfigError, match=r"s3:/bucket/x is neither a path nor a URL; did you mean s3://bucket/x\?"
    ):
        with_absolute_paths(given, tmp_path)
    odd = load(Settings, None, ["target.url=a:/b"])
    assert with_absolute_paths(odd, tmp_path).target.url == f"{tmp_path}/a:/b"


def test_sections_that_need_each_other() -> None:
    with pytest.raises(ConfigError, match=r"data\.source_fraction > 0 needs source\.url"):
        load(Settings, None, ["data.source_fraction=0.5"])
    with pytest.raises(
        ConfigError, match=r"adapt\.method=mcc needs labels: target\.labels_per_class above 0"
    ):
        load(Settings, None, ["adapt.method=mcc", "target.labels_per_class=0"])
    load(
        Settings,
        None,
        ["adapt.method=mcc", "target.labels_per_class=0", "data.source_fraction=0.5", "source.url=s"],
    )
