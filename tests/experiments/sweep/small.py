"""A small sweep without data, and what its trials might have come to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fourds_dist.experiments.sweep.plan import SweepPlan, read_plan
from fourds_dist.experiments.sweep.space import Params
from fourds_dist.experiments.sweep.trial_store import Trial, TrialStore
from tests.experiments.sweep.formula import accuracy

FILE = """\
name: small
config: run.yaml
changes: { distill_stage.epochs: 4 }
space:
  distill_stage.optim.lr: { loguniform: [0.001, 1] }
  method.phase_loss: { choice: [circular, squared] }
  method.gate_reduction: { choice: [8, 16], when: { method.phase_loss: squared } }
budget: { trials: 8 }
scheduler: { name: none }
"""


def small_plan(folder: Path, *overrides: str) -> SweepPlan:
    (folder / "run.yaml").write_text("run: { seed: 5 }\nsource: { url: a }\ntarget: { url: b }\n")
    (folder / "sweep.yaml").write_text(FILE)
    return read_plan(folder / "sweep.yaml", overrides, folder=folder)


def finished(trial: Trial, *, epochs: int = 4, state: str = "done") -> Trial:
    """The trial as it might have gone."""
    trial.history = [(epoch, accuracy(trial.params, epoch)) for epoch in range(1, epochs + 1)]
    trial.state = state  # pyright: ignore[reportAttributeAccessIssue]
    trial.tested = accuracy(trial.params) - 0.02 if state == "done" else None
    return trial


def ledger_of(plan: SweepPlan, points: Sequence[Params], *, seeds: int = 1) -> TrialStore:
    trial_store = TrialStore(plan.url, plan.config.mode)
    for number, params in enumerate(points):
        for seed in range(seeds):
            name = f"small-{number:04d}-s{seed}"
            trial_store.write(finished(Trial(name, number, seed, params, 4)))
    return trial_store
