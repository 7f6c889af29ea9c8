"""Trials that report a formula instead of training, and a driver that can be killed.

python -m tests.sweep.stubs FOLDER [key=value ...]    a sweep of slow stubs in the cluster of RAY_ADDRESS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from fourds_dist.launch.ray_train import ray
from fourds_dist.sweep.ledger import Ledger
from fourds_dist.sweep.plan import Plan
from fourds_dist.sweep.run import run_plan, tune
from tests.sweep.small import accuracy, small_plan

NUM_EPOCHS = 4


def quick(config: dict[str, Any], *, pause_s: float = 0.0) -> None:
    """Four epochs at once; the failures that its folder asks for come first."""
    for epoch in range(1, NUM_EPOCHS + 1):
        time.sleep(pause_s)
        value = accuracy(config, epoch)
        tune.report({"epoch": epoch, "metric": value, **({"tested": value} if epoch == NUM_EPOCHS else {})})


def slow(config: dict[str, Any]) -> None:
    """Half a second an epoch."""
    quick(config, pause_s=0.5)


def run_stub(plan: Plan, trainable: Any) -> Ledger:
    """A sweep of stubs, in the cluster that this process has joined."""
    ledger = Ledger.read(plan.url, plan.config.mode)
    run_plan(plan, ledger, Console(quiet=True), trainable)
    return ledger


if __name__ == "__main__":
    ray.init(logging_level="ERROR", log_to_driver=False)  # pyright: ignore
    run_stub(small_plan(Path(sys.argv[1]), *sys.argv[2:]), slow)
