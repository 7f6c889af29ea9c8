"""`python -m fourds_dist.export` as a command: its exit status and what it prints."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fourds_dist.cli.export import DEFAULT, main, parser
from fourds_dist.inference.export.formats import FILES


def test_defaults_are_the_formats_without_loss() -> None:
    options = parser().parse_args(["run", "shipped"])
    assert options.formats.split(",") == [name for name in FILES if name != "int8"]
    assert options.formats == DEFAULT
    assert (options.data, options.max_loss) == (None, 0.01)


def test_one_format_named_twice_is_written_once(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workplace / "runs" / "digits"
    assert main([str(run), f"{tmp_path}/out/", "--formats", "safetensors, safetensors,"]) == 0
    told = capsys.readouterr().out
    assert told.count("student.safetensors") == 1
    assert told.splitlines()[-1] == f"model card: {tmp_path}/out/README.md"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "student.safetensors"}
    assert (
        load_file(tmp_path / "out/student.safetensors").keys()
        == load_file(run / "student.safetensors").keys()
    )


def test_a_run_that_is_not_done_exports_nothing(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(run_folder / "student.safetensors", tmp_path / "elsewhere")
    assert main([str(run_folder), f"{tmp_path}/out", "--formats", "safetensors"]) == 1
    assert f"error: {run_folder} has no student.safetensors yet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
