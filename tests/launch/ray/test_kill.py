"""The short form of `python -m tests.harness.kill`: a worker of a Ray run is killed, and the run ends as if it had not
been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from fourds_dist.cli.train import main
from fourds_dist.launch.ray.ray_private import training_workers
from fourds_dist.launch.run import QUICKSTART
from fourds_dist.processes.parent_death import bound
from fourds_dist.runs.events import StageStarted, decode_lines
from tests.harness.kill import RESULTS, SHORT, pack, places

FASTER = ("source_stage.epochs=3", "distill_stage.epochs=1", "launch.cpus_per_worker=0.5")
WENT_ON = "resumed from the checkpoint of step "
MARGIN_STEPS = 2
"""Largest allowed distance, in steps, of the ranks and of the logged lines."""


def kill_a_worker(metrics: Path, killed: list[int], over: threading.Event) -> None:
    """kill -9 of one of this test's own training workers, in the middle of the source stage.

    The worker is stopped first: the others wait for it in a collective, so that the log then has the current step.
    """
    while not killed and not over.wait(0.05):
        if not (metrics.parent / "source" / "checkpoint-00000005" / "state.pt").exists():
            continue
        for worker in training_workers(os.getpid())[:1]:
            with suppress(psutil.NoSuchProcess):
                worker.suspend()
                if is_in_the_middle(metrics):
                    worker.kill()
                    killed.append(worker.pid)
                else:
                    worker.resume()


def is_in_the_middle(metrics: Path) -> bool:
    """Whether the source stage has begun its steps and has some before it."""
    events = list(decode_lines(metrics.read_text().splitlines()))
    starts = [event for event in events if isinstance(event, StageStarted)]
    if not starts:
        return False
    step = max(event.step for event in events if event.stage == "source")
    return 5 <= step < starts[0].num_epochs * starts[0].num_steps_per_epoch - MARGIN_STEPS


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_worker_changes_nothing(local_ray: None, tmp_path: Path) -> None:
    shards = pack(tmp_path / "shards")
    given = [str(QUICKSTART), *SHORT, *FASTER, *places(shards, tmp_path)]
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--local-addr",  # a machine's own name need not resolve
        "127.0.0.1",
        "--nproc-per-node",
        "2",
        "-m",
        "fourds_dist.train",
    ]
    undisturbed = subprocess.Popen(
        bound([*torchrun, *given, "run.name=undisturbed", "launch.runner=inline"]),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    killed: list[int] = []
    over = threading.Event()
    metrics = tmp_path / "disturbed" / "metrics.jsonl"
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill_a_worker, metrics, killed, over)
        try:
            assert main([*given, "run.name=disturbed"]) == 0
        finally:
            over.set()
        killer.result()  # raises what ended the killer
    assert killed
    assert undisturbed.wait(600) == 0

    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    notes = [row["text"] for row in rows if row["event"] == "note"]
    assert any("was killed" in note for note in notes), notes
    (step,) = [int(note[len(WENT_ON) :].split()[0]) for note in notes if note.startswith(WENT_ON)]
    assert step >= 5
    assert step % 5 == 0
    for file in RESULTS:
        ours, theirs = load_file(tmp_path / "disturbed" / file), load_file(tmp_path / "undisturbed" / file)
        assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == [], file
