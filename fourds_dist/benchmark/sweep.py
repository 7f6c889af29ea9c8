"""What a sweep costs besides its training: trials that report a formula go the whole way through Ray Tune.

    python -m fourds_dist.benchmark sweep --trials 200
    python -m fourds_dist.benchmark sweep --trials 200 --scheduler asha --search optuna

Each trial is an actor of its own, as in a sweep, and reports its epochs at once. `driver` is the CPU time of the
driver's process for each trial, `clock` what passes between two trials with all slots in use, most of it Ray's start of
a process. What grows with the number of trials shows in the second half against the first; the figures for 10,000 let
the driver's cost of a trial and its memory grow on as they did.
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

from fourds_dist.launch.ray_cluster import connected
from fourds_dist.option_types import MOST, whole
from fourds_dist.sweep.ledger import FINAL, Ledger, Trial
from fourds_dist.sweep.plan import Plan, read_plan
from fourds_dist.sweep.run import run_plan, tune

CONFIG = "target: { url: none }\nsource: { url: none }\ndistill: { epochs: 4 }\n"
SWEEP = """\
name: stub
config: run.yaml
space:
  distill.optim.lr: { loguniform: [0.001, 1] }
  method.temperature: { uniform: [1, 8] }
  method.phase_loss: { choice: [circular, squared] }
"""
MANY = 10_000


@dataclass(frozen=True)
class Mark:
    """The driver at an instant."""

    trials: int
    clock_s: float
    cpu_s: float
    memory_bytes: int

    @classmethod
    def now(cls, trials: int) -> Mark:
        """With so many trials over."""
        memory = psutil.Process().memory_info().rss
        return cls(trials, time.perf_counter(), time.process_time(), memory)


class MarkedLedger(Ledger):
    """Notes the driver's state when a quarter of the trials, the half, ... are over."""

    def __init__(self, plan: Plan, num_trials: int) -> None:
        super().__init__(plan.url, plan.config.mode)
        self._places = [num_trials * quarter // 4 for quarter in (1, 2, 3, 4)]
        self._over = 0
        self.marks: list[Mark] = []

    def write(self, trial: Trial) -> None:
        """Also count."""
        super().write(trial)
        self._over += trial.state in FINAL
        if trial.state in FINAL and self._over in self._places:
            self.marks.append(Mark.now(self._over))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's options."""
    parser.add_argument("--trials", type=whole(1, MOST), default=200)
    parser.add_argument("--concurrency", type=whole(1, MOST), default=8)
    parser.add_argument("--search", default="random", choices=("random", "optuna"))
    parser.add_argument("--scheduler", default="asha", choices=("asha", "hyperband", "median", "none"))


def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="fourds-sweep-") as name:
        folder = Path(name)
        (folder / "run.yaml").write_text(CONFIG)
        (folder / "sweep.yaml").write_text(SWEEP)
        words = [f"budget.trials={options.trials}", f"concurrency={options.concurrency}"]
        words += [f"search={options.search}", f"scheduler.name={options.scheduler}"]
        plan = read_plan(folder / "sweep.yaml", words, folder=folder)
        ledger = MarkedLedger(plan, options.trials)
        with connected():
            run_plan(plan, ledger, Console(quiet=True), stub)
    show(ledger.marks, options)


def stub(config: dict[str, Any]) -> None:
    """A trial that is over at once."""
    best = 1 - abs(math.log10(config["distill.optim.lr"]) + 1.5) / 3
    for epoch in range(1, 5):
        tested = {"tested": best} if epoch == 4 else {}
        tune.report({"epoch": epoch, "metric": best * (1 - 0.5**epoch), **tested})


def show(marks: list[Mark], options: argparse.Namespace) -> None:
    """A line for each quarter after the first, which starts everything, and one for 10,000 trials."""
    print(f"{options.search}, {options.scheduler}, {options.concurrency} at once")
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
    )  # each trial more costs so much more
    whole_s = (costs[-1] * left + growth_ms * left**2 / 2) / 1e3
    print(
        f"to {MANY}: the driver works {whole_s / 60:.0f} min more and comes to "
        f"{(last.memory_bytes + memory_per_trial * left) / 1e6:.0f} MB ({memory_per_trial / 1e3:.1f} kB a trial)"
    )
