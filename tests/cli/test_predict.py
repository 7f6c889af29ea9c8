"""`python -m fourds_dist.predict` and `evaluate` as commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fourds_dist.cli.predict import main as predict


def test_files_and_folders(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "seven.png").write_bytes((workplace / "seven.png").read_bytes())
    assert predict([str(workplace / "runs" / "digits"), str(tmp_path), "--json", "--top", "2"]) == 1
    told = capsys.readouterr()
    (line,) = told.out.splitlines()
    answer = json.loads(line)
    assert answer["file"] == str(tmp_path / "seven.png")
    assert len(answer["ranking"]) == 2
    assert answer["ranking"][0]["class"] == answer["label"]
    assert "broken.png: not read" in told.err


def test_a_name_with_an_end_of_line_takes_one_line(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "se\nven.png").write_bytes((workplace / "seven.png").read_bytes())
    assert predict([str(workplace / "runs" / "digits"), str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}/se\\nven.png  ")
