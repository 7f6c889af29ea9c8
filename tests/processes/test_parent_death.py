"""Nothing outlives the process that started it: a SIGKILL takes all processes below along, within ten seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fourds_dist.config.loading import to_yaml
from fourds_dist.processes.parent_death import bound
from tests.experiments.compare.small import CHANGES, write_domains

LIMIT_S = 10
BOUND = """
import subprocess, sys, time
from fourds_dist.config.loading import to_yaml
from fourds_dist.processes.leftovers import marked
from fourds_dist.processes.parent_death import bound
subprocess.Popen(bound(["sleep", "1000"]), start_new_session=True)
print("ready", flush=True)
time.sleep(1000)
"""
WATCHED = """
import multiprocessing, os, threading, time
from fourds_dist.processes.parent_death import die_with_parent, leave_with_parent

def in_order(left_s):
    with open("order", "w") as file:
        file.write(str(left_s))

def deaf(ready):
    "Hears no SIGTERM, and is never done."
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_with_parent(os.getppid(), time.sleep)
    ready.release()
    time.sleep(1000)

def writing(ready):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_with_parent(os.getppid(), in_order)
    ready.release()
    time.sleep(1000)

def killed(ready):
    die_with_parent(os.getppid())
    ready.release()
    time.sleep(1000)

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    ready = fork.Semaphore(0)
    for work in (deaf, writing, killed):
        fork.Process(target=work, args=(ready,)).start()
    for _ in range(3):
        ready.acquire()
    print("ready", flush=True)
    time.sleep(1000)
"""
RAY = """
import os, time
from fourds_dist.launch.ray.cluster import connected, ray

@ray.remote(num_cpus=0)
class Sleeper:
    def start(self):
        return os.getpid()
    def sleep(self):
        time.sleep(1000)

with connected() as is_ours:
    assert is_ours
    sleeper = Sleeper.remote()
    ray.get(sleeper.start.remote())
    sleeper.sleep.remote()
    print("ready", flush=True)
    time.sleep(1000)
"""


def killed(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Kill a process that has printed `ready`, and give those that were below it and are alive after ten seconds."""
    assert process.stdout is not None
    assert next(line for line in process.stdout if line == "ready\n")
    below = psutil.Process(process.pid).children(recursive=True)
    assert below
    process.kill()
    process.wait()
    process.stdout.close()
    return psutil.wait_procs(below, timeout=LIMIT_S)[1]


def started(code: str, folder: Path) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "RAY_ADDRESS": "local"}
    return subprocess.Popen(
        bound([sys.executable, str(script)]), stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
    )


def test_a_bound_command_goes_with_the_process_that_started_it(tmp_path: Path) -> None:
    assert killed(started(BOUND, tmp_path)) == []
    process = subprocess.Popen(bound(["sh", "-c", "exit 3"]))
    assert process.wait() == 3
    late = subprocess.run(
        [*bound(["true"])[:4], "1", "true"], check=False
    )  # its parent is another one already
    assert late.returncode == 1


def test_a_watching_process_has_time_for_its_work_and_no_more(tmp_path: Path) -> None:
    assert killed(started(WATCHED, tmp_path)) == []
    assert float((tmp_path / "order").read_text()) > 0


@pytest.mark.ray
def test_a_local_cluster_goes_with_its_driver(tmp_path: Path) -> None:
    assert killed(started(RAY, tmp_path)) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ranks_go_with_torchrun_and_leave_a_checkpoint(tmp_path: Path) -> None:
    source = write_domains(tmp_path, "source")["source"]
    words = [f"source.url={source}", f"run.dir={tmp_path}", "source_stage.epochs=100000", "run.until=source"]
    (tmp_path / "run.yaml").write_text(to_yaml(CHANGES))
    torchrun = ["-m", "torch.distributed.run", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            bound([sys.executable, *torchrun, "-m", "fourds_dist.train", str(tmp_path / "run.yaml"), *words]),
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    metrics = tmp_path / "run" / "metrics.jsonl"
    while not (metrics.exists() and '"event": "step"' in metrics.read_text()):
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 2
    process.kill()
    process.wait()
    assert psutil.wait_procs(below, timeout=LIMIT_S)[1] == []
    assert '"event": "stopped"' in metrics.read_text()
