"""Cells in processes of this machine: as in one process, after the death of one, and in order after a stop request."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from fourds_dist.cli.compare import main
from fourds_dist.experiments.executor import process_pool as processes
from fourds_dist.experiments.executor.base import RunTask
from fourds_dist.processes.parent_death import bound
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.stages.settings import Settings
from tests.cli.test_compare import write
from tests.experiments.compare.small import CHANGES, METHODS, NETWORK, STAGE, write_domains

TWO = {name: METHODS[name] for name in ("4ds", "cross_entropy")}
CELL = "a-to-b.all.4ds.0"
TIMEOUT_S = 240


def accuracies(folder: Path) -> dict[str, Any]:
    return {
        file.parent.name: [line["target"]["num_correct"] for line in json.loads(file.read_text())["lines"]]
        for file in folder.glob("runs/small/cells/*/summary.json")
    }


@pytest.mark.timeout(900)
def test_the_same_as_in_one_process_and_one_that_dies_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = write_domains(tmp_path, "a", "b")
    (tmp_path / "here").mkdir()
    assert main(write(tmp_path / "here", domains, pairs=[["a", "b"]], methods=TWO, seeds=[0, 1])) == 0
    deadly = {"student": {**NETWORK, "arch": "tests.experiments.compare.small:deadly", "start": "random"}}
    methods = {"deadly": deadly, **TWO}
    given = write(
        tmp_path, domains, pairs=[["a", "b"]], methods=methods, seeds=[0, 1], through="processes", parallel=2
    )
    assert main(given) == 1
    out = capsys.readouterr().out
    assert "4 of 6 cells done" in out
    left_out = [line for line in out.splitlines() if line.startswith("left out:")]
    assert sorted(left_out) == [
        f"left out: a -> b, all, seed {seed}, deadly: its process died" for seed in (0, 1)
    ]
    assert accuracies(tmp_path) == accuracies(tmp_path / "here")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGINT, signal.SIGKILL]
)
def test_a_stopped_or_killed_pool_leaves_checkpoints_and_no_processes(
    tmp_path: Path, number: signal.Signals
) -> None:
    long = CHANGES | {"distill_stage": STAGE | {"epochs": 100_000}}
    domains = write_domains(tmp_path, "a", "b")
    given = write(
        tmp_path, domains, pairs=[["a", "b"]], methods=TWO, changes=long, through="processes", parallel=3
    )
    metrics = tmp_path / "runs" / "small" / "cells" / CELL / "metrics.jsonl"
    command = bound([sys.executable, "-m", "fourds_dist.compare", *given])
    with (tmp_path / "log").open("w") as log:
        environment = {**os.environ, "COMPARISON": str(tmp_path)}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        wait_until(lambda: metrics.exists() and '"event": "step"' in metrics.read_text())
        below = psutil.Process(process.pid).children(recursive=True)
        assert len(below) >= 2
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as Ctrl-C in a terminal
        else:
            process.send_signal(number)
        assert process.wait(timeout=TIMEOUT_S) == (-9 if number == signal.SIGKILL else 130)
    if number == signal.SIGKILL:
        assert psutil.wait_procs(below, timeout=10)[1] == []
    wait_until(lambda: '"event": "stopped"' in metrics.read_text())
    assert list((metrics.parent / "distill").iterdir())
    wait_until(lambda: not running(f"COMPARISON={tmp_path}"), timeout_s=TIMEOUT_S)
    told = (tmp_path / "log").read_text()
    assert "Traceback" not in told
    assert "epoch" not in told  # what the processes print


def test_a_process_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    executor = processes.ProcessPool(LaunchConfig(use_gpu=False), 1)
    (process,) = executor._idle
    for why in ("starts", "starts again"):
        impossible = RunTask(why, Settings(run=RunConfig(dir=str(tmp_path))))
        executor.start(impossible)
        assert executor.wait().outcome.failure not in (None, "its process died")
        idle = process._pool
        idle.submit(os.getpid).result()
        for child in list(idle._processes.values()):
            child.kill()
        wait_until(lambda pool=idle: pool._broken)
    executor.close()


def test_ctrl_c_does_not_reach_a_process_that_is_just_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    held_back = partial(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    (process,) = processes.ProcessPool(LaunchConfig(use_gpu=False), 1)._idle
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        monkeypatch.setattr(process, "_pool", SimpleNamespace(submit=lambda *_: pool.submit(held_back)))
        assert signal.SIGINT in process.do("{}").result()
    assert signal.SIGINT not in held_back()


def test_a_report_is_answered_also_when_ctrl_c_comes_meanwhile() -> None:
    def interrupted(url: str, event: Any) -> None:
        raise KeyboardInterrupt

    executor = processes.ProcessPool(LaunchConfig(use_gpu=False), 1, interrupted)
    process = executor._idle[0]
    ours, theirs = multiprocessing.Pipe()
    process.reports = ours
    executor._running[Future()] = RunTask("a run", Settings()), process
    theirs.send(("a url", None))
    with pytest.raises(KeyboardInterrupt):
        executor.wait(1.0)
    assert theirs.poll(1.0)
    assert theirs.recv() is None
    executor._after_epoch = lambda url, event: StopReason(StopKind.EARLY_STOPPING)
    theirs.send(("a url", None))
    assert executor.wait(0.05) is None
    assert theirs.recv() == StopReason(StopKind.EARLY_STOPPING)


def running(mark: str) -> list[str]:
    """The processes that have `mark` in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                if mark in (folder / "environ").read_text():
                    found.append(folder.name)
            except OSError:
                continue
    return found


def wait_until(true: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_processes_take_turns_on_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "gpus_here", lambda: ["2", "5"])
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    executor = processes.ProcessPool(LaunchConfig(gpus_per_worker=0.25), None)
    assert executor.capacity == 8
    assert [process._surroundings[:2] for process in executor._idle] == [("2", 1), ("5", 1)] * 4
    assert processes.ProcessPool(LaunchConfig(gpus_per_worker=0.25, cpus_per_worker=4), None).capacity == 3
    executor = processes.ProcessPool(LaunchConfig(use_gpu=False), 5)
    assert [process._surroundings[:2] for process in executor._idle] == [(None, 2)] * 5
