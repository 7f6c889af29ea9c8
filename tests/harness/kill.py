"""Kills workers, nodes and drivers of the quickstart (in short form) at random instants, and compares what comes out.

    python -m tests.harness.kill --runs 20                # on a local Ray cluster of several nodes, started here
    python -m tests.harness.kill --runs 2 --kinds worker  # only some kinds
    python -m tests.harness.kill --runs 4 --folder kills  # in pieces: `--runs 8` with the same folder continues
    with the fifth run

Every run is to end with the weights of an undisturbed run, bit for bit; the table lists what was killed, when, and how
many steps were repeated. Only processes of the cluster started here are killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from fourds_dist.processes.parent_death import bound
from fourds_dist.processes.signals import sigterm_as_ctrl_c

KINDS = ("worker", "node", "driver")
PHASES = ("step", "evaluation", "upload")
SHORT = (
    "prepare=null",
    "teacher.arch=resnet10",
    "data.resize_px=18",
    "data.crop_px=16",
    "source_stage.epochs=2",
    "source_stage.checkpoint_every_steps=5",
    "distill_stage.epochs=2",
    "distill_stage.checkpoint_every_steps=5",
    "target.labels_per_class=100",
    "target.unlabelled=drop",
    "step.log_every_steps=1",
    "launch.workers=2",
    "tracking.wandb=disabled",
)
OUTCOMES = "outcomes.jsonl"
RESULTS = ("student.safetensors", "adapters.safetensors", "teacher.safetensors")


@dataclass
class RunSummary:
    """What became of one run."""

    kind: str
    phase: str
    at: str
    redone_steps: int
    same_weights: bool
    seconds: float


class LocalCluster:
    """A head without CPUs and nodes with one CPU each, all on this machine."""

    def __init__(self, num_nodes: int) -> None:
        from ray.cluster_utils import Cluster

        # The head is where the driver lives; workers go to the nodes.
        self._cluster = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self._nodes = [self._cluster.add_node(num_cpus=1) for _ in range(num_nodes)]
        self.address = str(self._cluster.address)

    def worker_pids(self) -> list[int]:
        """Training workers of this cluster, and of no other on the machine."""
        from fourds_dist.launch.ray.ray_private import WORKER_TITLE

        raylets = {info.process.pid for node in self._nodes for info in node.all_processes.get("raylet", ())}
        return [pid for pid, parent, name in _processes() if parent in raylets and WORKER_TITLE in name]

    def kill_worker(self, rng: random.Random) -> bool:
        """kill -9 of one; False if there is none at the moment."""
        pids = self.worker_pids()
        if not pids:
            return False
        os.kill(rng.choice(sorted(pids)), signal.SIGKILL)
        return True

    def lose_node(self, rng: random.Random, notice_s: int | None = None) -> None:
        """Take one away, with or without notice."""
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        if notice_s is not None:
            whose = ("--address", self.address, "--node-id", node.node_id)
            why = ("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot")
            command = ("drain-node", *whose, *why, "--deadline-remaining-seconds", str(notice_s))
            subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *command], check=True)
            time.sleep(notice_s)
        self._cluster.remove_node(node, allow_graceful=False)

    def add_node(self) -> None:
        """One more."""
        self._nodes.append(self._cluster.add_node(num_cpus=1))

    def close(self) -> None:
        """Stop all of it."""
        self._cluster.shutdown()


class Run:
    """One run of the command over `folder`'s shards, in a process of its own.

    Args:
        keys: of the configuration, besides those of the short form.
    """

    def __init__(self, folder: Path, name: str, *keys: str) -> None:
        self.folder = folder / name
        self._command = [
            sys.executable,
            "-m",
            "fourds_dist.train",
            *SHORT,
            *places(folder / "shards", folder),
            f"run.name={name}",
            *keys,
        ]
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start, or go on."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                bound(self._command), stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9 of the driver, and the same command again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.start()

    def rows(self) -> list[dict[str, Any]]:
        """What the run has logged."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def is_over(self) -> bool:
        """Whether the command has ended."""
        assert self._process is not None
        return self._process.poll() is not None

    def finish(self, timeout_s: float) -> None:
        """Wait for the end.

        Raises:
            RuntimeError: it failed.
        """
        assert self._process is not None
        if self._process.wait(timeout_s):
            raise RuntimeError(f"{self.folder.name} failed:\n{self._log.read_text()[-3000:]}")

    def weights(self) -> dict[str, torch.Tensor]:
        """All results, by file and name."""
        return {
            f"{file}:{name}": value
            for file in RESULTS
            for name, value in load_file(self.folder / file).items()
        }

    def wait_for(self, phase: str, rng: random.Random) -> tuple[str, int, str]:
        """Wait for a random instant of a phase; gives the stage and step it is in, and where that is in words."""
        stage = rng.choice(("source", "distill"))
        epoch, pause_s = rng.choice((1, 2)), rng.uniform(0, 1.5)
        while not self.is_over():
            rows = [row for row in self.rows() if row.get("stage") == stage]
            step = max((row["step"] for row in rows), default=0)
            per_epoch = next((r["num_steps_per_epoch"] for r in rows if r["event"] == "start"), 10**9)
            if phase == "step" and step > (epoch - 1) * per_epoch:
                time.sleep(pause_s)
                return (
                    stage,
                    max(step, self._last_step(stage)),
                    f"{stage}, after step {step} + {pause_s:.1f} s",
                )
            if phase == "evaluation" and step >= epoch * per_epoch:
                return stage, step, f"{stage}, end of epoch {epoch}"
            partial = next((self.folder / stage).glob("checkpoint-*/*.partial"), None)
            if phase == "upload" and partial is not None:
                return stage, step, f"{stage}, writing {partial.parent.name}"
            time.sleep(0.002)
        return stage, 0, "too late"

    def _last_step(self, stage: str) -> int:
        return max((row["step"] for row in self.rows() if row.get("stage") == stage), default=0)


def disturbed(
    run: Run, cluster: LocalCluster, kind: str, phase: str, whole: dict[str, torch.Tensor], rng: random.Random
) -> RunSummary:
    """One run with one kill."""
    began = time.monotonic()
    run.start()
    stage, step, at = run.wait_for(phase, rng)
    if kind == "driver":
        run.kill()
    elif kind == "node":
        cluster.lose_node(rng)
        cluster.add_node()
    elif not cluster.kill_worker(rng):
        at = "nobody there"
    run.finish(timeout_s=1800)
    starts = [r["step"] for r in run.rows() if r.get("stage") == stage and r["event"] == "start"]
    # A stage that was killed has started again; its last start has the step from which it resumed.
    redone = max(0, step - starts[-1]) if len(starts) > 1 or (starts and starts[-1] > 0) else 0
    mine = run.weights()
    same = mine.keys() == whole.keys() and all(torch.equal(mine[k], whole[k]) for k in whole)
    return RunSummary(kind, phase, at, redone, same, time.monotonic() - began)


def pack(folder: Path) -> Path:
    """The quickstart's two domains, small; packed whole, or there already."""
    if folder.exists():
        return folder
    from fourds_dist.data.datasets.digits import digits
    from fourds_dist.data.pack.writer import pack_domain

    for name, domain in zip(("source", "target"), digits(crops_per_digit=1), strict=True):
        pack_domain(domain, f"{folder}.partial/{name}")
    return Path(f"{folder}.partial").rename(folder)


def places(shards: Path, runs: Path | str) -> tuple[str, ...]:
    """Keys of a run over packed shards, in a folder of `runs`."""
    return (f"source.url={shards}/source", f"target.url={shards}/target", f"run.dir={runs}")


def _processes() -> list[tuple[int, int, str]]:
    """(pid, parent's pid, command line) of all processes."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                name = (folder / "cmdline").read_bytes().decode(errors="replace")
            except (OSError, ValueError, IndexError):  # gone meanwhile
                continue
            found.append((int(folder.name), parent, name))
    return found


def disturb(folder: Path, options: argparse.Namespace) -> None:
    """The runs without a result in `folder`, each with a kill at its own instant."""
    undisturbed = Run(folder, "undisturbed")
    pack(folder / "shards")
    cluster = LocalCluster(options.nodes)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        undisturbed.start()  # again: it is over at once
        undisturbed.finish(timeout_s=1800)
        whole = undisturbed.weights()
        for number in range(len(told(folder)), options.runs):
            rng = random.Random(f"{options.seed} {number}")
            kind = options.kinds[number % len(options.kinds)]
            phase = options.phases[number // len(options.kinds) % len(options.phases)]
            shutil.rmtree(folder / f"run{number}", ignore_errors=True)
            outcome = disturbed(Run(folder, f"run{number}"), cluster, kind, phase, whole, rng)
            print(outcome, flush=True)
            with (folder / OUTCOMES).open("a") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
    finally:
        cluster.close()


def main(arguments: list[str] | None = None) -> int:
    """Run all and print the table; gives 0 if every run ended with the undisturbed run's weights."""
    parser = argparse.ArgumentParser(prog="python -m tests.harness.kill", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep runs and outcomes here, and go on with them")
    options = parser.parse_args(arguments)
    sigterm_as_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        folder: Path = options.folder.resolve() if options.folder else Path(name)
        disturb(folder, options)
        outcomes = told(folder)
    table = Table(title="one kill in every run", title_justify="left")
    for column in ("killed", "during", "at", "steps done again", "weights", "seconds"):
        table.add_column(column)
    for o in outcomes:
        same = "the undisturbed run's" if o.same_weights else "OTHERS"
        table.add_row(o.kind, o.phase, o.at, str(o.redone_steps), same, f"{o.seconds:.0f}")
    Console(width=140).print(table)
    return 0 if all(o.same_weights for o in outcomes) else 1


def told(folder: Path) -> list[RunSummary]:
    """What became of the runs of earlier pieces."""
    file = folder / OUTCOMES
    return [RunSummary(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
