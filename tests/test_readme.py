"""The README's snippets, word for word: its ten lines of Python, and its tutorial in an empty folder (`--slow`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.shards import image_of
from tests.experiments.compare.small import write_domains
from tests.markdown import ROOT, blocks, section, text_of

TUTORIAL = "Your own pictures"
NETWORK = '"arch": "tests.experiments.compare.small:network", "stages": ["layer1", "layer2"]'


def test_the_first_two_commands_are_those_that_the_gate_runs() -> None:
    first, second = (
        line.split("#")[0].strip() for line in blocks(section("README.md", "Two commands"), "sh")[0]
    )
    assert first == "pip install uv && uv run python -m fourds_dist.train"
    assert second == "pip install uv && uv run --extra dev pytest"
    assert second.removeprefix("pip install uv && ") in text_of(".ci/run")


def test_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= 135


def test_the_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On smaller images and networks than they name, one epoch long."""
    (code,) = blocks(section("README.md", "From Python"), "python")
    shorter = {
        '"resize_px": 36, "crop_px": 32': '"resize_px": 8, "crop_px": 8',
        '"arch": "resnet18", "stem": "small"': NETWORK,
        '"arch": "resnet10", "stem": "small"': NETWORK,
        '"epochs": 4': '"epochs": 1, "global_batch_size": 8',
        '"runner": "inline"': '"runner": "inline", "use_gpu": False',
    }
    text = "\n".join(code)
    for whole, short in shorter.items():
        assert whole in text, whole
        text = text.replace(whole, short)
    write_domains(tmp_path / "shards", "plain", "photos")
    (tmp_path / "seven.png").write_bytes(image_of(7))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    names: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), names)
    assert len(names["student"].classes) == 5  # pyright: ignore[reportAttributeAccessIssue]
    assert (tmp_path / "runs/run/summary.json").exists()


def test_every_command_of_the_tutorial_exists() -> None:
    from fourds_dist.cli.dispatch import available

    (commands,) = blocks(section("README.md", TUTORIAL), "sh")
    called = {line.split()[1] for line in commands if line.startswith("fourds ")}
    assert called == {"doctor", "pack", "train", "evaluate", "predict", "export", "report"}
    assert called <= set(available())


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_as_it_is_written(tmp_path: Path) -> None:
    (pictures,) = blocks(section("fourds_dist/data/README.md", "Pictures to try"), "sh")
    tutorial = section("README.md", TUTORIAL)
    ((yaml,), (commands,)) = blocks(tutorial, "yaml"), blocks(tutorial, "sh")
    (tmp_path / "tutorial.yaml").write_text("\n".join(yaml))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join([*pictures, *commands])],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"},
        check=True,
    )
    for file in (
        "runs/tutorial/report.html",
        "shipped/student.onnx",
        "shipped/README.md",
        "compared/report.html",
    ):
        assert (tmp_path / file).stat().st_size > 1000, file
