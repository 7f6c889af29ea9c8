"""`python -m fourds_dist.tune` as a command: the sweep that its words name, and words that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli.tune import main, parser


def test_words_after_the_sweep_are_keys() -> None:
    options = parser().parse_args(["sweep.yaml", "budget.trials=4", "launch.workers=2", "--resume"])
    assert (options.sweep, options.overrides) == ("sweep.yaml", ["budget.trials=4", "launch.workers=2"])
    assert options.resume
    assert "budget.trials (int" in parser().format_help()


def test_a_folder_without_resume_names_the_built_in_sweeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} is not a sweep file (.yaml); built-in sweep files: ")
    assert "sweeps/quickstart.yaml" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("none.yaml", "configuration none.yaml cannot be read: no such file"),
        ("none.yml", "configuration none.yml cannot be read: no such file"),
        ("none --resume", "none holds no sweep (there is no sweep.yaml); give run.dir/NAME of one"),
    ],
)
def test_a_sweep_that_is_not_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
