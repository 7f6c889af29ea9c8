"""`fourds`: one command for all, errors in one screen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fourds_dist.cli import dispatch as cli
from fourds_dist.cli.dispatch import main


def test_help_names_every_command_and_imports_none() -> None:
    code = "import sys; from fourds_dist.cli.dispatch import main; main(['--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in cli.available():
        assert f"\n  {command} " in done.stdout
    assert {"train", "pack", "report", "evaluate", "predict", "export", "benchmark", "doctor"} <= set(
        cli.available()
    )


def test_commands_get_their_words_and_give_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(
        main=lambda words: given.append([name, *words]) or 3))  # fmt: skip
    assert main(["train", "a.yaml", "launch.workers=2"]) == 3
    assert given == [["fourds_dist.cli.train", "a.yaml", "launch.workers=2"]]


def test_words_not_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--version"]) == 0
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate"])
    assert stopped.value.code == 2


def test_errors_are_one_screen_and_whole_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    with pytest.raises(ValueError, match="has no run"):
        main(["evaluate", str(tmp_path), "--traceback"])


def test_an_internal_error_is_reported_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise KeyError("lost")

    monkeypatch.setattr(cli.importlib, "import_module", lambda name: SimpleNamespace(main=fail))
    assert main(["report", "x"]) == 1
    assert "unexpected KeyError: 'lost'" in capsys.readouterr().err


def test_networks_in_the_working_folder_are_found_as_by_python_m(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["/usr/bin", *sys.path, str(tmp_path)])
    for _ in range(2):
        with pytest.raises(SystemExit):
            main(["train", "--help"])
    assert sys.path[:2] == [str(tmp_path), "/usr/bin"]
    capsys.readouterr()
