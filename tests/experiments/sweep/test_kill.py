"""kill -9 of a trial's worker, a node and the driver in one sweep, and of a driver whose sweep is in a store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fourds_dist.experiments.epochs import epochs_of
from fourds_dist.experiments.sweep.trial_store import TrialStore
from fourds_dist.processes.parent_death import bound
from fourds_dist.runs.layout import Network
from fourds_dist.runs.run_folder import RunFolder
from tests.harness.kill import SHORT, LocalCluster, pack, places
from tests.s3_server import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]
TRIALS, EPOCHS = 4, 3


class Sweep:
    """A sweep of short trainings in a cluster of two nodes, one trial on each."""

    def __init__(self, folder: Path, runs: str, cluster: LocalCluster) -> None:
        self.url, self._log = f"{runs}/quickstart-sweep", folder / "driver.log"
        shards = pack(folder / "shards")
        given = [word for word in SHORT if not word.startswith(("launch.", "distill_stage.epochs"))]
        given += [
            f"distill_stage.epochs={EPOCHS}",
            f"budget.trials={TRIALS}",
            "scheduler.name=none",
            "max_concurrent_trials=2",
        ]
        self._begin = ["configs/sweeps/quickstart.yaml", *given, *places(shards, runs)]
        self._environment = os.environ | {"RAY_ADDRESS": str(cluster.address)}

    def start(self, *, resume: bool = False) -> None:
        words = ["--resume", self.url] if resume else self._begin
        with self._log.open("a") as log:
            self._driver = subprocess.Popen(
                bound([sys.executable, "-m", "fourds_dist.tune", *words]),
                env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill_driver(self) -> None:
        self._driver.send_signal(signal.SIGKILL)
        self._driver.wait()

    def finish(self) -> str:
        code = self._driver.wait(900)
        log = self._log.read_text()
        print(log)
        assert code == 0
        return log

    def num_epochs(self) -> int:
        """Epochs of distillation that all trials have trained."""
        folders = [RunFolder(f"{self.url}/trials/quickstart-sweep-{n:04d}-s0") for n in range(TRIALS)]
        return sum(len(list(epochs_of(folder, Network.STUDENT))) for folder in folders)

    def wait_for(self, what: Callable[[], bool]) -> None:
        until = time.monotonic() + 600
        while not what():
            assert self._driver.poll() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            time.sleep(0.1)

    def assert_all_accounted_for(self) -> None:
        trials = list(TrialStore.read(self.url, "max").trials.values())
        assert [(t.state, [e for e, _ in t.history]) for t in trials] == [("done", [1, 2, 3])] * TRIALS
        assert RunFolder(self.url).exists("best.yaml")


def test_a_worker_a_node_and_the_driver(tmp_path: Path) -> None:
    cluster, rng = LocalCluster(2), random.Random(0)
    try:
        sweep = Sweep(tmp_path, str(tmp_path), cluster)
        sweep.start()
        sweep.wait_for(lambda: sweep.num_epochs() >= 1)
        sweep.wait_for(lambda: cluster.kill_worker(rng))
        now = sweep.num_epochs()
        sweep.wait_for(lambda: sweep.num_epochs() > now)
        cluster.lose_node(rng)
        cluster.add_node()
        now = sweep.num_epochs()
        sweep.wait_for(lambda: sweep.num_epochs() > now)
        sweep.kill_driver()
        assert sweep.num_epochs() < TRIALS * EPOCHS
        sweep.start(resume=True)
        sweep.finish()
        sweep.assert_all_accounted_for()
    finally:
        cluster.close()


def test_the_driver_of_a_sweep_in_an_object_store(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.new_bucket()
    cluster = LocalCluster(2)
    try:
        sweep = Sweep(tmp_path, f"{bucket}/runs", cluster)
        sweep.start()
        sweep.wait_for(lambda: sweep.num_epochs() >= 2)
        sweep.kill_driver()
        sweep.start(resume=True)
        assert "to go on with" in sweep.finish()
        sweep.assert_all_accounted_for()
    finally:
        cluster.close()
