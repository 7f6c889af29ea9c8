"""What a benchmark cannot do is refused before it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.benchmark.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("ops --json nowhere/x.json", "there is no folder nowhere; make it first"),
        ("ops --json .", "is a folder; give a file in it"),
        ("ops --sizes 64x56", "'64x56' is no size CxHxW"),
        ("ops --sizes 64x0x56", "is no size CxHxW"),
        ("ops --device abacus", "abacus cannot be used"),
        ("ops --batch 0", "0; give 1 to 1000000"),
        ("step --json nowhere/x.json", "there is no folder nowhere"),
        ("step --steps many", "'many' is no whole number"),
        ("profile --top -1", "-1; give 1 to 1000000"),
        ("numerics --batch 0", "0; give 1 to 1000000"),
        ("scaling --workers 0", "0; give 1 to 1000000"),
        ("data --seconds nan", "nan; give 0.01 or more"),
        ("data --json nowhere/x.json", "there is no folder nowhere"),
    ],
)
def test_words(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("scaling --teacher resnet33", "error: architecture 'resnet33' is not a torchvision classifier"),
        ("numerics --student resnet33", "error: architecture 'resnet33' is not a torchvision classifier"),
        ("data --data kept --cores 9999", "error: --cores 9999: this process may run on"),
    ],
)
def test_what_only_the_machine_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(words.split())
    assert not list(tmp_path.iterdir())
