"""The README's tutorial, word for word, in an empty folder (`--slow`)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tutorial() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition("## From photographs to a shipped student")[2].partition("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", tutorial(), re.DOTALL)


def test_every_command_of_the_tutorial_is_one_of_ours() -> None:
    from fourds_dist.cli import available

    (_, commands) = blocks("sh")
    called = re.findall(r"^fourds (\w+)", commands, re.MULTILINE)
    assert {"doctor", "pack", "train", "evaluate", "predict", "export", "report"} == set(called)
    assert set(called) <= set(available())


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    pictures, commands = blocks("sh")
    (tmp_path / "tutorial.yaml").write_text(*blocks("yaml"))
    pictures = "\n".join(line for line in pictures.splitlines() if not line.startswith("uv sync"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{pictures}\n{commands}"],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "WANDB_MODE": "offline"},
        check=True,
    )
    for file in (
        "runs/tutorial/report.html",
        "shipped/student.onnx",
        "shipped/README.md",
        "compared/report.html",
    ):
        assert (tmp_path / file).stat().st_size > 1000, file
