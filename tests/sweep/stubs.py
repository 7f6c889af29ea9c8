"""Sweeps whose trials are `formula`'s, and a driver of one that can be killed.

python -m tests.sweep.stubs FOLDER [key=value ...]    a sweep in the cluster of RAY_ADDRESS, of which two trials end
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from fourds_dist.launch.ray_cluster import ray
from fourds_dist.sweep.ledger import Ledger
from fourds_dist.sweep.plan import Plan
from fourds_dist.sweep.run import run_plan
from tests.sweep.formula import never_over_from_the_third_on
from tests.sweep.small import small_plan


def run_stub(plan: Plan, trainable: Any) -> Ledger:
    """A sweep of stubs, in the cluster that this process has joined."""
    ledger = Ledger.read(plan.url, plan.config.mode)
    run_plan(plan, ledger, Console(quiet=True), trainable)
    return ledger


if __name__ == "__main__":
    ray.init(logging_level="ERROR", log_to_driver=False)  # pyright: ignore
    run_stub(small_plan(Path(sys.argv[1]), *sys.argv[2:]), never_over_from_the_third_on)
