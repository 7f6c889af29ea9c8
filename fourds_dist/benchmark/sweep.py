"""Overhead of a sweep: trials without training, which report a formula through Ray Tune.

    python -m fourds_dist.benchmark sweep --trials 200
    python -m fourds_dist.benchmark sweep --trials 200 --scheduler asha --search optuna

Each trial is an actor, as in a sweep, and reports its epochs at once. `driver` is the CPU time of the driver's process
per trial. `clock` is the wall time per trial with all slots in use, most of which is Ray's start of a process. Costs
that grow with the number of trials appear as a difference of the quarters; the figures for 10,000 trials extrapolate
the driver's time and memory linearly.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from fourds_dist.cli.option_types import MOST, whole
from fourds_dist.experiments.sweep.plan import SweepPlan, read_plan
from fourds_dist.experiments.sweep.run import run_plan
from fourds_dist.experiments.sweep.trial_store import FINAL, Trial, TrialStore
from fourds_dist.launch.ray.cluster import connected

CONFIG = "target: { url: none }\nsource: { url: none }\ndistill: { epochs: 4 }\n"
SWEEP = """\
name: stub
config: run.yaml
space:
  distill_stage.optim.lr: { loguniform: [0.001, 1] }
  method.temperature: { uniform: [1, 8] }
  method.phase_loss: { choice: [circular, squared] }
"""
MANY = 10_000


@dataclass(frozen=True)
class Mark:
    """State of the driver after some trials."""

    trials: int
    clock_s: float
    cpu_s: float
    memory_bytes: int

    @classmethod
    def now(cls, trials: int) -> Mark:
        """Measure after `trials` trials."""
        memory = psutil.Process().memory_info().rss
        return cls(trials, time.perf_counter(), time.process_time(), memory)


class MarkedTrialStore(TrialStore):
    """Trial store that records the driver's state after each quarter of the trials."""

    def __init__(self, plan: SweepPlan, num_trials: int) -> None:
        super().__init__(plan.url, plan.config.mode)
        self._mark_at = [num_trials * quarter // 4 for quarter in (1, 2, 3, 4)]
        self._num_ended = 0
        self.marks: list[Mark] = []

    def write(self, trial: Trial) -> None:
        """Write the trial, and record the driver's state after each quarter of the trials."""
        super().write(trial)
        self._num_ended += trial.state in FINAL
        if trial.state in FINAL and self._num_ended in self._mark_at:
            self.marks.append(Mark.now(self._num_ended))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's options."""
    parser.add_argument("--trials", type=whole(4, MOST), default=200)  # a mark after each quarter
    parser.add_argument("--max-concurrent-trials", type=whole(1, MOST), default=8)
    parser.add_argument("--search", default="random", choices=("random", "optuna"))
    parser.add_argument("--scheduler", default="asha", choices=("asha", "hyperband", "median", "none"))


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="fourds-sweep-") as name:
        folder = Path(name)
        (folder / "run.yaml").write_text(CONFIG)
        (folder / "sweep.yaml").write_text(SWEEP)
        words = [f"budget.trials={options.trials}", f"max_concurrent_trials={options.max_concurrent_trials}"]
        words += [f"search={options.search}", f"scheduler.name={options.scheduler}"]
        plan = read_plan(folder / "sweep.yaml", words, folder=folder)
        trial_store = MarkedTrialStore(plan, options.trials)
        with connected():
            run_plan(plan, trial_store, Console(quiet=True), stub)
    show(trial_store.marks, options)


def stub(config: dict[str, Any]) -> None:
    """A trial without training."""
    from ray import tune

    best = 1 - abs(math.log10(config["distill_stage.optim.lr"]) + 1.5) / 3
    for epoch in range(1, 5):
        tested = {"tested": best} if epoch == 4 else {}
        tune.report({"epoch": epoch, "metric": best * (1 - 0.5**epoch), **tested})


def show(marks: list[Mark], options: argparse.Namespace) -> None:
    """Print a line per quarter without the first, which includes the start of Ray, and one for 10,000 trials."""
    print(f"{options.search}, {options.scheduler}, {options.max_concurrent_trials} at once")
    print(f"{'trials':>12} {'clock, s/trial':>15} {'driver, ms/trial':>17} {'driver, MB':>11}")
    costs: list[float] = []
    for before, after in itertools.pairwise(marks):
        num = after.trials - before.trials
        costs.append(1e3 * (after.cpu_s - before.cpu_s) / num)
        clock_s = (after.clock_s - before.clock_s) / num
        span = f"{before.trials + 1}-{after.trials}"
        print(f"{span:>12} {clock_s:15.2f} {costs[-1]:17.1f} {after.memory_bytes / 1e6:11.0f}")
    first, last = marks[0], marks[-1]
    left = MANY - last.trials
    memory_per_trial = max(0, last.memory_bytes - first.memory_bytes) / (last.trials - first.trials)
    growth_ms = max(0.0, costs[-1] - costs[0]) / (
        last.trials - marks[1].trials
    )  # growth of the cost per trial
    whole_s = (costs[-1] * left + growth_ms * left**2 / 2) / 1e3
    print(
        f"extrapolated to {MANY}: {whole_s / 60:.0f} min more CPU time of the driver, "
        f"{(last.memory_bytes + memory_per_trial * left) / 1e6:.0f} MB ({memory_per_trial / 1e3:.1f} kB per trial)"
    )
