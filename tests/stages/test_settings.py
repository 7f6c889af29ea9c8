"""The root of the configuration: paths of a run's inputs, and sections that contradict each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.config.loading import dump, load, parsed
from fourds_dist.config.section import ConfigError
from fourds_dist.models.weights.networks import StudentConfig, student_names
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


TWO = "students=[{arch: resnet10}, {arch: timm/vit_tiny.in1k}]"


def test_a_list_of_one_student_is_the_student() -> None:
    listed = load(Settings, None, ["students=[{arch: resnet10, start: random}]"])
    assert listed == load(Settings, None, ["student={arch: resnet10, start: random}"])
    assert list(listed.named_students) == [""]
    assert listed.student_names == ["resnet10"]


def test_several_students_have_names_and_stay_through_the_file_of_a_run() -> None:
    both = load(Settings, None, [TWO])
    assert {name: student.arch for name, student in both.named_students.items()} == {
        "resnet10": "resnet10",
        "vit_tiny-in1k": "timm/vit_tiny.in1k",
    }
    assert both.student == both.students[0]
    assert parsed(dump(both), "config.yaml").build(Settings) == both
    sized = both.with_students(lambda name, student: student.model_copy(update={"image_px": len(name)}))
    assert [student.image_px for student in sized.students] == [8, 13]
    assert sized.student.image_px == 8
    words = [
        "students=[{arch: resnet10, name: a}, {arch: resnet10, stem: small}, {arch: resnet10, start: x}]"
    ]
    assert load(Settings, None, words).student_names == ["a", "resnet10", "resnet10-2"]
    words = ["students=[{arch: resnet10}, {arch: resnet18, name: Resnet10}]"]
    assert load(Settings, None, words).student_names == ["resnet10-2", "Resnet10"]


@given(
    st.lists(st.sampled_from(["a", "b/a", "x.y:a", "A", "-", "a-2", "ä" * 3, "local-dir:/p/a/"]), max_size=8)
)
def test_names_of_students_are_unique_parts_of_file_names(archs: list[str]) -> None:
    names = student_names([StudentConfig(arch=arch) for arch in archs])
    assert len({name.casefold() for name in names}) == len(archs)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) for name in names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([TWO, "student.arch=resnet18"], r"student and students are both given and differ: remove one"),
        (["students=[{arch: resnet10}, {arch: resnet10}]"], r"resnet10-2 equals resnet10 in all keys"),
        (["students=[{arch: a, name: x}, {arch: a, name: y}]"], r"y equals x in all keys but the name"),
        (["students=[{arch: a, name: x}, {arch: b, name: X}]"], r"the name 'x' is given twice"),
        (["students=[{arch: a, name: x/y}, {arch: b}]"], r"students\.0\.name: .*not 'x/y' \(from override"),
        (["students=[{arch: a}, {ach: b}]"], r"students\.1\.ach: "),
        (["students={arch: a}"], r"students: .*valid array"),
        ([f"students=[{', '.join(f'{{arch: a{i}}}' for i in range(17))}]"], r"17 entries; at most 16"),
    ],
)
def test_students_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Settings, None, words)


def test_paths_of_all_students_become_absolute(tmp_path: Path) -> None:
    two = load(Settings, None, ["students=[{start: a.pt}, {arch: resnet10, start: source}]"])
    found = with_absolute_paths(two, tmp_path)
    assert [student.start for student in found.students] == [f"{tmp_path}/a.pt", "source"]
    assert found.student == found.students[0]
