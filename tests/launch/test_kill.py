"""The short form of `python -m tests.kill`: a worker of a Ray run is killed, and the run ends as if it had not been.

Slow: of six runs in the whole suite and alone, three found no worker to kill, for a reason that is not known yet.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fourds_dist.train import QUICKSTART, main
from tests.kill import RESULTS, SHORT, _processes, pack, places

FASTER = ("source_stage.epochs=1", "distill.epochs=1", "launch.cpus_per_worker=0.5")


def kill_a_worker(metrics: Path, killed: list[int], over: threading.Event) -> None:
    """kill -9 of one of this test's own training workers, in the middle of the source stage."""
    while not killed and not over.wait(0.01):
        if '"step": 7,' in (metrics.read_text() if metrics.exists() else ""):
            processes = _processes()
            raylets = {pid for pid, parent, name in processes if parent == os.getpid() and "raylet" in name}
            workers = [
                pid for pid, parent, name in processes if parent in raylets and "RayTrainWorker" in name
            ]
            if workers:
                os.kill(workers[0], signal.SIGKILL)
                killed.append(workers[0])


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
        [*torchrun, *given, "run.name=undisturbed", "launch.runner=inline"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    killed: list[int] = []
    over = threading.Event()
    metrics = tmp_path / "disturbed" / "metrics.jsonl"
    killer = threading.Thread(target=kill_a_worker, args=(metrics, killed, over))
    killer.start()
    assert main([*given, "run.name=disturbed"]) == 0
    over.set()
    killer.join()
    assert killed, [process for process in _processes() if "ray" in process[2]]
    assert undisturbed.wait(600) == 0

    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    notes = [row["text"] for row in rows if row["event"] == "note"]
    assert any("was killed" in note for note in notes), notes
    assert any(note.startswith("went on from the checkpoint of step 5") for note in notes), notes
    for file in RESULTS:
        ours, theirs = load_file(tmp_path / "disturbed" / file), load_file(tmp_path / "undisturbed" / file)
        assert [k for k in ours if not torch.equal(ours[k], theirs[k])] == [], file
