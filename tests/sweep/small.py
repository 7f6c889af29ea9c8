"""A small sweep without data, and what its trials might have come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fourds_dist.sweep.ledger import Ledger, Trial
from fourds_dist.sweep.plan import Plan, read_plan
from fourds_dist.sweep.space import Point
from tests.sweep.formula import accuracy

FILE = """\
name: small
config: run.yaml
changes: { distill.epochs: 4 }
space:
  distill.optim.lr: { loguniform: [0.001, 1] }
  method.phase_loss: { choice: [circular, squared] }
  method.gate_reduction: { choice: [8, 16], when: { method.phase_loss: squared } }
budget: { trials: 8 }
scheduler: { name: none }
"""


def small_plan(folder: Path, *overrides: str) -> Plan:
    (folder / "run.yaml").write_text("run: { seed: 5 }\nsource: { url: a }\ntarget: { url: b }\n")
    (folder / "sweep.yaml").write_text(FILE)
    return read_plan(folder / "sweep.yaml", overrides, folder=folder)


def finished(trial: Trial, *, epochs: int = 4, state: str = "done") -> Trial:
    """The trial as it might have gone."""
    trial.history = [(epoch, accuracy(trial.point, epoch)) for epoch in range(1, epochs + 1)]
    trial.state = state  # pyright: ignore[reportAttributeAccessIssue]
    trial.tested = accuracy(trial.point) - 0.02 if state == "done" else None
    return trial


def ledger_of(plan: Plan, points: Sequence[Point], *, seeds: int = 1) -> Ledger:
    ledger = Ledger(plan.url, plan.config.mode)
    for number, point in enumerate(points):
        for seed in range(seeds):
            name = f"small-{number:04d}-s{seed}"
            ledger.write(finished(Trial(name, number, seed, point, 4)))
    return ledger
