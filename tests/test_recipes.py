"""The recipes "Add your own network, loss, data set" run as they are written, on tiny data.

A code block whose first line is a comment with a file's name becomes that file; other Python blocks are run in order.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.config.section import ConfigError
from fourds_dist.data import datasets as sources
from fourds_dist.data.datasets.registry import DATASET_BUILDERS, BuilderArgument, DatasetBuilder
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.launch.run import run
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.preflight import check
from fourds_dist.stages.settings import Settings
from tests.experiments.compare.small import write_domains
from tests.markdown import blocks, section

METHOD, DATA = "fourds_dist/method/README.md", "fourds_dist/data/README.md"
TINY = [
    "source.url=shards/plain",
    "target.url=shards/photos",
    "data.resize_px=16",
    "data.crop_px=16",
    "source_stage.epochs=1",
    "source_stage.global_batch_size=16",
    "distill_stage.epochs=1",
    "distill_stage.global_batch_size=16",
    "step.log_every_steps=1",
    "launch.runner=inline",
    "launch.use_gpu=false",
    "tracking.wandb=disabled",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a user; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if Path(str(getattr(sys.modules[name], "__file__", None))).parent == tmp_path:
            del sys.modules[name]


def write_files(text: str) -> list[str]:
    """Write the blocks that name their file; gives the other Python blocks."""
    rest = []
    for language in ("python", "yaml"):
        for lines in blocks(text, language):
            if lines[0].startswith("# "):
                Path(lines[0].removeprefix("# ")).write_text("\n".join(lines) + "\n")
            else:
                rest.append("\n".join(lines))
    return rest


def test_a_network_of_your_own(folder: Path) -> None:
    assert write_files(section(METHOD, "Add your own network")) == []
    write_domains(folder / "shards", "plain", "photos")
    settings = load(Settings, "own-network.yaml", TINY)
    assert run(settings)
    (student,) = (line for line in Run(settings.run_url).summary.lines if line.network == "student")
    network = import_module("my_networks").SmallNet(5)
    assert student.num_parameters == sum(p.numel() for p in network.parameters())


def test_a_network_whose_stages_do_not_fit_is_refused_without_training(folder: Path) -> None:
    write_files(section(METHOD, "Add your own network"))
    write_domains(folder / "shards", "plain", "photos")
    with pytest.raises((ConfigError, ValueError), match="stage"):
        check(load(Settings, "own-network.yaml", [*TINY, "student.stages=[stage1]"]))
    assert not (folder / "runs").exists()


def test_a_loss_of_your_own(folder: Path) -> None:
    write_files(section(METHOD, "Add your own network"))
    assert write_files(section(METHOD, "Add your own loss")) == []
    write_domains(folder / "shards", "plain", "photos")
    mine = ["student.arch=my_networks:SmallNet", "student.stages=[stage1, stage2]"]
    teacher = [key.replace("student", "teacher") for key in mine]
    settings = load(Settings, "own-loss.yaml", [*TINY, *mine, *teacher])
    assert run(settings)
    losses = [step.losses["extra"] for step in Run(settings.run_url).steps("distill")]
    assert losses
    assert all(0 < loss < 4 for loss in losses)


def test_a_data_set_of_your_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing, entry = write_files(section(DATA, "Add your own data set"))
    exec(compile(packing, DATA, "exec"), {})
    for name in ("squares", "squares-on-noise"):
        manifest = read_manifest(f"shards/{name}")
        assert manifest.classes == ("small", "large")
        counts = {split: sum(numbers) for split, numbers in manifest.class_counts.items()}
        assert sum(counts.values()) == 60
        assert min(counts[split] for split in ("train", "val", "test")) > 0

    monkeypatch.setitem(DATASET_BUILDERS, "squares", DATASET_BUILDERS["digits"])  # is taken out again
    monkeypatch.setitem(sys.modules, f"{sources.__package__}.squares", import_module("squares"))
    exec(
        compile(entry, DATA, "exec"),
        {
            "DATASET_BUILDERS": DATASET_BUILDERS,
            "DatasetBuilder": DatasetBuilder,
            "BuilderArgument": BuilderArgument,
        },
    )
    source = DATASET_BUILDERS["squares"]
    assert [domain.name for domain in source.domains(side=8)] == ["squares", "squares-on-noise"]
    (side,) = inspect.signature(import_module("squares").squares).parameters.values()
    assert [(a.name, a.default) for a in source.arguments] == [(side.name, side.default)]
