"""Errors in jobs of a cluster name the files that the job does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli.train import main


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a job, with a home beside it."""
    here = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    here.mkdir(parents=True)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(here)
    return here


def test_only_the_working_folder_travels(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["../mine.yaml", "launch.runner=inline"]) == 1
    describe_failures = capsys.readouterr().err
    assert "configuration: ../mine.yaml is not here; only the working folder" in describe_failures

    (job / "shards").mkdir()
    given = ["source.url=null", "target.url=shards", "teacher.checkpoint=t.pt", "student.start=random"]
    (job / "mine.yaml").write_text("launch: { runner: inline }\n")
    assert main(["mine.yaml", *given]) == 1
    describe_failures = capsys.readouterr().err
    assert (
        f"target.url: shards was uploaded under {job}/shards, but Ray removes it after the job; put it into"
        in describe_failures
    )
    assert "teacher.checkpoint: t.pt is not here; only the working folder" in describe_failures
    assert "configuration:" not in describe_failures


def test_elsewhere_nothing_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["mine.yaml"]) == 1
    assert "working folder" not in capsys.readouterr().err
