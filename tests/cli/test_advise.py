"""`python -m fourds_dist.advise` as a command: the run that its words name, and words that are refused."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fourds_dist.cli.advise import duration, main, parser, plan_of
from fourds_dist.config.loading import to_yaml
from tests.data.shards import write_dataset


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("30m", 1800), ("1.5h", 5400), (" 2 h", 7200)])
def test_times(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "0s", "-3m", "1d", "1h30m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is no time; give 45s, 30m or 2h"):
        duration(text)


@pytest.fixture
def shards(tmp_path: Path) -> tuple[str, str]:
    return write_dataset(tmp_path / "studio", [24]), write_dataset(tmp_path / "street", [24])


def test_two_data_sets_and_options(tmp_path: Path, shards: tuple[str, str]) -> None:
    words = [*shards, "--budget", "10m", "--gpus", "2", "--price", "2.5", "--student", "resnet10"]
    words += [
        "--teacher",
        "s3://bucket/teacher.safetensors",
        "target.labels_per_class=3",
        f"run.dir={tmp_path}",
    ]
    plan = plan_of(parser().parse_intermixed_args(words))
    assert plan.config.name == "advice-studio-to-street"
    assert plan.url == f"{tmp_path}/advice-studio-to-street"
    assert (plan.config.budget_s, plan.config.gpus, plan.config.price) == (600, 2, 2.5)
    assert plan.config.through == "processes"
    assert (plan.run.source.url, plan.run.target.url) == shards
    assert plan.run.teacher.checkpoint == "s3://bucket/teacher.safetensors"
    assert (plan.run.student.arch, plan.run.target.labels_per_class) == ("resnet10", 3)


def test_a_teacher_by_name_and_the_file_of_a_run(
    tmp_path: Path, shards: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    file = tmp_path / "mine.yaml"
    file.write_text(to_yaml({"source": {"url": shards[0]}, "target": {"url": shards[1]}, "run": {"seed": 3}}))
    plan = plan_of(parser().parse_intermixed_args([str(file), "--teacher", "resnet50", "data.threads=2"]))
    assert (plan.config.name, plan.config.through) == ("advice-mine", "here")
    assert (plan.run.teacher.arch, plan.run.teacher.checkpoint) == ("resnet50", None)
    assert (plan.run.run.seed, plan.run.data.threads) == (3, 2)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert plan_of(parser().parse_intermixed_args([str(file)])).config.through == "ray"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["only-one"], "give SOURCE and TARGET, or the file of a run, not 'only-one'"),
        (["a", "b", "c"], "give SOURCE and TARGET, or the file of a run, not 'a b c'"),
        (["none.yaml"], "configuration none.yaml cannot be read: no such file"),
        (["no-a", "no-b"], "no-a"),
        (["no-a", "no-b", "taget.url=x"], "unknown key 'taget'"),
    ],
)
def test_words_that_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "runs").exists()
