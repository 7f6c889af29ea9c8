"""Sweeps of stub trials through Ray Tune: early stops, failures, and a driver that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.experiments.sweep.trial_store import FINAL, TrialStore
from fourds_dist.processes.parent_death import bound
from tests.experiments.sweep.formula import accuracy, quick
from tests.experiments.sweep.small import small_plan

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def test_bad_trials_stop_early_and_failing_ones_end_no_sweep(local_ray: None, tmp_path: Path) -> None:
    from ray import tune

    from tests.experiments.sweep.stubs import run_stub

    def trainable(config: dict[str, Any]) -> None:
        mark = tmp_path / config["trial"]
        number = int(config["trial"].split("-")[1])
        if number == 1 and not mark.exists():  # once
            mark.touch()
            raise RuntimeError("the disk is full")
        if number == 2:  # always
            raise RuntimeError("there is no such device")
        if number == 3:
            tune.report({"epoch": 1, "metric": 0.0, "failed": "the loss is no number"})
            return
        if number == 7:  # begins when others are over, and is worse than all
            tune.report({"epoch": 1, "metric": 0.0})
        quick(config)

    plan = small_plan(
        tmp_path, "scheduler={name: asha, reduction_factor: 2}", "budget.trials=8", "max_concurrent_trials=4"
    )
    trial_store = run_stub(plan, trainable)
    trials = list(trial_store.trials.values())
    assert len(trials) == 8
    assert all(t.state in FINAL for t in trials)
    assert [t.state for t in trials[2:4]] == ["failed", "failed"]
    assert [len(t.failures) for t in trials[:4]] == [0, 1, 2, 1]
    assert "the disk is full" in trials[1].failures[0]
    assert "no such device" in trials[2].failures[1]
    assert (trials[7].state, trials[7].epoch) == ("stopped", 1)
    done = [t for t in trials if t.state == "done"]
    assert done
    assert all(t.epoch == 4 and t.tested == accuracy(t.params) for t in done)
    best = trial_store.ranked()[0]
    assert best.mean == max(t.best("max") or 0 for t in trials)
    assert TrialStore.read(plan.url, "max").trials == trial_store.trials


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["hyperband", "median"])
def test_other_schedulers_come_to_their_end(local_ray: None, tmp_path: Path, scheduler: str) -> None:
    from tests.experiments.sweep.stubs import run_stub

    plan = small_plan(tmp_path, f"scheduler.name={scheduler}", "budget.trials=6", "max_concurrent_trials=3")
    trial_store = run_stub(plan, quick)
    assert len(trial_store.trials) == 6
    assert {t.state for t in trial_store.trials.values()} <= {"done", "stopped"}
    assert any(t.state == "done" for t in trial_store.trials.values())


def test_the_sweep_of_a_killed_driver_resumes(local_ray: None, tmp_path: Path) -> None:
    import ray

    from tests.experiments.sweep.stubs import run_stub

    words = ("budget.trials=6", "max_concurrent_trials=2")
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        bound([sys.executable, "-m", "tests.experiments.sweep.stubs", str(tmp_path), *words]),
        env={**os.environ, "RAY_ADDRESS": address},
        start_new_session=True,
    )
    url = str(tmp_path / "runs" / "small")

    def known(*states: str) -> dict[str, Any]:
        return {t.name: t for t in TrialStore.read(url, "max").trials.values() if t.state in states}

    while not (len(known(*FINAL)) == 2 and known("running")):  # the others wait for the driver's end
        assert driver.poll() is None
        time.sleep(0.2)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    over, cut = known(*FINAL), known("running", "waiting")
    assert over
    assert cut

    trial_store = run_stub(small_plan(tmp_path, *words), quick)
    assert {name: trial_store.trials[name] for name in over} == over
    assert {trial_store.trials[name].params == trial.params for name, trial in cut.items()} == {True}
    assert [t.state for t in trial_store.trials.values()] == ["done"] * 6
