"""Types of options: what cannot be is refused by the parser, and nothing is made."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fourds_dist.cli.option_types import output_file, real, whole


def test_whole_numbers() -> None:
    assert [whole(1, 9)(text) for text in ("1", "9", " 3 ")] == [1, 9, 3]
    assert whole(0)("1000000000000") == 10**12
    for text in ("0", "10", "-1", "1.5", "x", "", "nan", "9" * 5000):
        with pytest.raises(argparse.ArgumentTypeError, match=r"give 1 to 9$"):
            whole(1, 9)(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"give 0 or more$"):
        whole(0)("-1")


def test_numbers() -> None:
    assert [real(0, 1)(text) for text in ("0", "0.5", "1e-9")] == [0, 0.5, 1e-9]
    for text in ("1", "-1e-9", "nan", "inf", "-inf", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"is no number|give 0 or more, and less than 1"):
            real(0, 1)(text)


def test_files_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.json").write_text("1")
    assert output_file("new.json") == Path("new.json")
    assert output_file("there.json").read_text() == "1"
    for text, message in {
        str(tmp_path): "is a folder",
        "below/new.json": "there is no folder below; make it first",
        "there.json/new.json": "there is no folder there.json",
        "/proc/new.json": "cannot be written",
    }.items():
        with pytest.raises(argparse.ArgumentTypeError, match=message):
            output_file(text)
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
