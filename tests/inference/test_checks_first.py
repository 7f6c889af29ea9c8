"""Options that cannot work are refused before the student is read; nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli import evaluate, export, predict
from fourds_dist.inference.export import model_card
from fourds_dist.inference.export.export import check_request
from fourds_dist.inference.export.model_card import MADE_BY

STUDENT = "nowhere.safetensors"
"""Reading this file would fail with another message."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("# My project\n")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (export, "shipped --formats tflite", "unknown format 'tflite'; there are safetensors"),
        (export, "shipped --formats ,", "no format; there are safetensors"),
        (export, "file --formats safetensors", "file cannot be written"),
        (export, "/proc/x --formats safetensors", "/proc/x cannot be written"),
        (export, "http://127.0.0.1:9/x --formats safetensors", "nothing can be written over HTTP"),
        (export, "project --formats safetensors", "project/README.md exists and is no model card"),
        (evaluate, "project --json project", "project is a folder; give a file in it"),
        (evaluate, "project --json file/x.json", "file cannot be written"),
        (evaluate, "project --grey-range 9 0", "--grey-range 9 0: give the lower number first"),
        (evaluate, "project --max-megapixels 0", "--max-megapixels 0: give a finite number above 0"),
        (
            predict,
            "file --grey-range nan 1",
            "--grey-range nan 1: give finite numbers, the lower number first",
        ),
        (predict, "file --max-megapixels inf", "--max-megapixels inf: give a finite number above 0"),
        (predict, "file --top 0", "--top 0: give 1 or more"),
    ],
)
def test_refused(
    here: Path, capsys: pytest.CaptureFixture[str], command: object, words: str, message: str
) -> None:
    before = sorted(here.rglob("*"))
    assert command.main([STUDENT, *words.split()]) == 1  # pyright: ignore[reportAttributeAccessIssue]
    assert message in capsys.readouterr().err
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("number", ["nan", "-0.1", "1", "x"])
def test_a_loss_that_is_none(here: Path, number: str) -> None:
    with pytest.raises(SystemExit) as left:
        export.main([STUDENT, "builtin_config", "--max-loss", number])
    assert left.value.code == 2


def test_a_card_is_written_again(here: Path) -> None:
    (here / "project" / "README.md").write_text(f"# Student\n\n{MADE_BY}\n")
    check_request("project", ["safetensors"])
    assert MADE_BY in (Path(model_card.__file__).parent / "card.md.j2").read_text()
