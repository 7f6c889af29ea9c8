"""`python -m fourds_dist.report` as a command: options that are refused before a run is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli.report import main, parser


def test_the_run_s_folder_is_the_default() -> None:
    options = parser().parse_args(["runs/a", "runs/b"])
    assert (options.runs, options.out, options.images) == (["runs/a", "runs/b"], None, None)


@pytest.mark.parametrize("number", ["0", "-5"])
def test_a_number_of_images_that_is_none(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere", "--images", number]) == 1
    assert capsys.readouterr().err == f"error: --images {number}: give 1 or more\n"


def test_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} has no run and no folder of runs (there is no config.yaml); ")
    assert list(tmp_path.iterdir()) == []
