"""Every command twice, with runs on a disk, behind file://, in memory:// and in an S3 server.

The configurations are stored there too. Networks are tiny and train in this process, except for those that are killed
in the middle of a stage, and for a sweep, which needs Ray.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from torch import nn

from fourds_dist.cli.dispatch import main
from fourds_dist.config.loading import to_yaml
from fourds_dist.io.storage import read_text, write_bytes
from fourds_dist.runs.events import StageStarted
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.finished_run import Run
from tests.experiments.compare.small import CHANGES, METHODS, network, write_domains
from tests.s3_server import S3Server

PLACES = ("local", "file", "memory", "s3")
MORTAL = "tests.test_anywhere:mortal"
DIES_AFTER = "TESTS_DIES_AFTER"
"""Environment variable: number of forward passes in training after which a process kills itself."""


def mortal(num_classes: int) -> nn.Module:
    """A tiny network; it kills its process after DIES_AFTER forward passes in training."""
    built = network(num_classes)
    left = [int(os.environ.get(DIES_AFTER, "-1"))]

    def count(module: nn.Module, inputs: Any) -> None:
        left[0] -= module.training
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    built.register_forward_pre_hook(count)
    return built


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two domains, of 32 images in each split."""
    return write_domains(tmp_path_factory.mktemp("anywhere"), "a", "b")


def in_children(commands: list[list[str]]) -> None:
    """Run commands side by side, each in a child of this process, which imports once for all; print exit statuses."""
    import fourds_dist.experiments.executor.run_tasks
    import fourds_dist.train  # noqa: F401

    children: list[int] = []
    for words in commands:
        child = os.fork()
        if child == 0:
            os._exit(main(words))
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(f"\n{json.dumps(statuses)}")


def where(kind: str, folder: Path, request: pytest.FixtureRequest) -> str:
    """A fresh place of some kind."""
    match kind:
        case "local":
            return str(folder / "local")
        case "file":
            return f"file://{folder}/file"
        case "memory":
            return f"memory://anywhere-{folder.name}"
        case _:
            server: S3Server = request.getfixturevalue("s3_server")
            return server.new_bucket()


def write_configurations(url: str, shards: dict[str, str], **keys: Any) -> None:
    """base.yaml, and conf/run.yaml with this base, in the store."""
    networks = {name: {**CHANGES[name], "arch": MORTAL} for name in ("teacher", "student")}
    tree = {**CHANGES, **networks, "source": {"url": shards["a"]}, "target": {"url": shards["b"]}}
    write_bytes(f"{url}/base.yaml", to_yaml(tree).encode())
    run = {"base": "../base.yaml", "run": {"name": "one", "dir": f"{url}/runs"}, **keys}
    write_bytes(f"{url}/conf/run.yaml", to_yaml(run).encode())


def starts(url: str) -> list[tuple[str, int]]:
    """(stage, step) of every start of a run."""
    return [(event.stage, event.step) for event in Run(url).events if isinstance(event, StageStarted)]


@pytest.mark.parametrize("kind", PLACES)
def test_a_run_and_all_that_is_done_with_it(
    kind: str,
    tmp_path: Path,
    shards: dict[str, str],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = where(kind, tmp_path, request)
    write_configurations(url, shards)
    given, run = ["train", f"{url}/conf/run.yaml"], f"{url}/runs/one"
    assert main(given) == 0
    out = capsys.readouterr().out
    began = starts(run)
    assert began == [("source", 0), ("distill", 0)]
    assert not RunFolder(run).exists("lease.json")

    # Finished and started again: the same table, and nothing is trained.
    assert main(given) == 0
    assert capsys.readouterr().out == out
    assert main([*given, "data.threads=1", "step.max_nonfinite_steps=3", f"run.dir={url}/runs/"]) == 0
    assert starts(run) == began

    # Longer: refused, with a command that starts from its files.
    assert main([*given, "distill_stage.epochs=2"]) == 1
    refused = capsys.readouterr().err
    assert "(distill_stage.epochs: 1 -> 2), with which its distillation has started" in refused
    if kind in ("local", "s3"):
        command = shlex.split(refused.partition(": python -m fourds_dist.")[2])
        assert main(command) == 0
        assert starts(f"{run}-2") == [("distill", 0)]
        for words in (["report", run], ["report", run, f"{run}-2", "--out", f"{url}/side-by-side"]):
            assert main(words) == 0, capsys.readouterr().err

    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    again: Sequence[Sequence[str]] = (
        ["evaluate", run, "--json", f"{url}/scores.json"],
        ["predict", run, str(tmp_path / "red.png")],
        ["export", run, f"{url}/shipped", "--formats", "safetensors"],
        ["evaluate", f"{url}/shipped/student.safetensors", shards["a"]],
        ["predict", f"{run}/distill/{checkpoint_of(run)}", str(tmp_path / "red.png")],
    )
    for words in again:
        assert (main(words), main(words)) == (0, 0), capsys.readouterr().err
    assert json.loads(read_text(f"{url}/scores.json"))["num_images"] == 32
    assert (
        f"python -m fourds_dist.train {RunFolder(run).path('config.yaml')} run.name=one-again"
        in read_text(f"{run}/report.html")
    )


def checkpoint_of(run: str) -> str:
    from fourds_dist.training.checkpoint.checkpoint_store import FolderStore

    return FolderStore(RunFolder(run).path("distill")).newest() or ""


@pytest.mark.parametrize("kind", PLACES)
def test_a_comparison(
    kind: str,
    tmp_path: Path,
    shards: dict[str, str],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = where(kind, tmp_path, request)
    write_configurations(url, shards)
    write_comparison(url, shards)
    given = ["compare", f"{url}/conf/compare.yaml"]
    assert main([*given, "--method", "4ds"]) == 0
    assert "[2/2] a -> b, all, seed 0, 4ds: done" in capsys.readouterr().out
    assert main(given) == 0
    assert "[1/1] a -> b, all, seed 0, cross_entropy: done" in capsys.readouterr().out
    assert main(given) == 0
    out = capsys.readouterr().out
    assert "2 of 2 cells done" in out
    assert "[1/" not in out
    assert main([*given, "--table"]) == 0
    assert main([*given, "distill_stage.epochs=3"]) == 1
    assert "give it another name" in capsys.readouterr().err
    assert not RunFolder(f"{url}/runs/small").exists("lease.json")


def write_comparison(url: str, shards: dict[str, str]) -> None:
    methods = {name: METHODS[name] for name in ("4ds", "cross_entropy")}
    tree = {
        "name": "small",
        "config": "../base.yaml",
        "through": "here",
        "domains": shards,
        "methods": methods,
    }
    more = {"pairs": [["a", "b"]], "changes": {"run.dir": f"{url}/runs"}}
    write_bytes(f"{url}/conf/compare.yaml", to_yaml({**tree, **more}).encode())


def test_killed_in_the_middle_of_a_stage_and_started_again(
    tmp_path: Path,
    shards: dict[str, str],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {kind: where(kind, tmp_path, request) for kind in ("local", "file", "s3")}
    for url in places.values():
        write_configurations(url, shards, source_stage={"epochs": 8, "checkpoint_every_steps": 1})
        write_comparison(url, shards)
    commands = {
        f"{kind} run": ["train", f"{url}/conf/run.yaml", "run.until=source"] for kind, url in places.items()
    }
    commands["s3 comparison"] = ["compare", f"{places['s3']}/conf/compare.yaml", "source_stage.epochs=8"]
    environment = {**os.environ, DIES_AFTER: "12"}
    code = f"from tests.test_anywhere import in_children; in_children({list(commands.values())!r})"
    statuses = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout.splitlines()[-1]
    assert json.loads(statuses) == [-signal.SIGKILL] * len(commands)
    for kind, url in places.items():
        assert RunFolder(f"{url}/runs/one").exists("lease.json"), kind
        assert main(commands[f"{kind} run"]) == 0, capsys.readouterr().err
        (_, first), (_, step) = starts(f"{url}/runs/one")
        assert first == 0
        assert step >= 4
    assert main(commands["s3 comparison"]) == 0
    assert "2 of 2 cells done" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_in_a_store_and_its_best(
    tmp_path: Path, shards: dict[str, str], s3_server: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """In separate processes, whose Ray has the store's environment."""
    url = s3_server.new_bucket()
    write_configurations(url, shards)
    space = {"distill_stage.optim.lr": {"choice": [0.01, 0.1]}}
    tree = {"name": "few", "config": "../base.yaml", "space": space, "budget": {"trials": 2}}
    more = {"scheduler": {"name": "none"}, "changes": {"run.dir": f"{url}/runs", "launch.runner": "ray"}}
    write_bytes(f"{url}/conf/sweep.yaml", to_yaml({**tree, **more}).encode())
    environment = {**os.environ, "RAY_ADDRESS": "local"}

    def tune(*words: str) -> str:
        command = [sys.executable, "-m", "fourds_dist.tune", *words]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    out = tune(f"{url}/conf/sweep.yaml", "budget.trials=1")
    assert "1 trials, 1 done" in out
    out = tune("--resume", f"{url}/runs/few", "budget.trials=2", "data.threads=1")
    assert "2 trials, 2 done" in out
    best = re.search(r"best: python -m fourds_dist\.(.*)", out)
    assert best is not None
    for _ in range(2):
        assert main([*best[1].split(), "launch.runner=inline"]) == 0, capsys.readouterr().err
    assert starts(f"{url}/runs/few-best") == [("source", 0), ("distill", 0)]
