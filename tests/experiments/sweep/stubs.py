"""Sweeps whose trials are `formula`'s, and a driver of one that can be killed.

python -m tests.experiments.sweep.stubs FOLDER [key=value ...]    a sweep in the cluster of RAY_ADDRESS, of which two
trials end
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.run import run_plan
from fourds_dist.experiments.sweep.trial_store import TrialStore
from fourds_dist.launch.ray.cluster import ray
from tests.experiments.sweep.formula import never_over_from_the_third_on
from tests.experiments.sweep.small import small_plan


def run_stub(plan: SweepPlan, trainable: Any) -> TrialStore:
    """A sweep of stubs, in the cluster that this process has joined."""
    trial_store = TrialStore.read(plan.url, plan.config.mode)
    run_plan(plan, trial_store, Console(quiet=True), trainable)
    return trial_store


if __name__ == "__main__":
    ray.init(logging_level="ERROR", log_to_driver=False)  # pyright: ignore
    run_stub(small_plan(Path(sys.argv[1]), *sys.argv[2:]), never_over_from_the_third_on)
