"""The base folder of relative paths: the working folder, or the home folder in a Ray job."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.launch.base_folder import base_folder


def test_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert base_folder() == tmp_path
    assert capsys.readouterr().err == ""


def test_the_home_folder_in_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    job.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(job)
    assert base_folder() == tmp_path / "home"
    assert f"relative paths are relative to {tmp_path}/home" in capsys.readouterr().err
