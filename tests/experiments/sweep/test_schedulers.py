"""State of schedulers after a sweep resumes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from fourds_dist.experiments.sweep.schedulers import make_scheduler
from fourds_dist.experiments.sweep.trial_store import Trial
from tests.experiments.sweep.small import small_plan


def test_a_resumed_trial_counts_once_at_every_rung(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "scheduler={name: asha, reduction_factor: 2}")
    over = Trial("small-0000-s5", 0, 5, {}, 4, state="stopped", history=[(1, 0.2)])
    cut = Trial("small-0001-s5", 1, 5, {}, 4, history=[(1, 0.6), (2, 0.7)])
    scheduler = make_scheduler(plan, [over, cut])
    nobody: Any = None

    def goes_on(name: str, epoch: int, value: float) -> bool:
        """Whether a trial that Tune has just begun may go on after an epoch."""
        trial: Any = SimpleNamespace(trial_id=f"tune-{name}", config={"trial": name})
        scheduler.on_trial_add(nobody, trial)
        decision = scheduler.on_trial_result(nobody, trial, {"epoch": epoch, "metric": value})
        return decision != TrialScheduler.STOP

    assert goes_on(cut.name, 3, 0.8)
    # The rung of epoch 1 holds 0.2 and 0.6; later trials have to be in the better half.
    assert not goes_on("small-0002-s5", 1, 0.39)
    assert goes_on(
        "small-0003-s5", 1, 0.4
    )  # of 0.2, 0.39 and 0.6; were 0.6 there twice, 0.495 would be asked for
    # At the rung of epoch 2 is the 0.7 that the trial had when it was cut.
    assert not goes_on("small-0004-s5", 2, 0.69)
