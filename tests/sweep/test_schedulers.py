"""What schedulers know again when a sweep goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fourds_dist.sweep.ledger import Trial
from fourds_dist.sweep.schedulers import make_scheduler
from tests.sweep.small import small_plan


def test_a_trial_that_goes_on_counts_once_at_every_rung(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "scheduler={name: asha, reduction_factor: 2}")
    over = Trial("small-0000-s5", 0, 5, {}, 4, state="stopped", history=[(1, 0.2)])
    cut = Trial("small-0001-s5", 1, 5, {}, 4, history=[(1, 0.6), (2, 0.7)])
    scheduler = make_scheduler(plan, [over, cut])
    nobody: Any = None
    for name in (cut.name, "small-0002-s5"):
        trial: Any = SimpleNamespace(trial_id=f"tune-{name}", config={"trial": name})
        scheduler.on_trial_add(nobody, trial)
        scheduler.on_trial_result(nobody, trial, {"epoch": 3, "metric": 0.8})
    rungs = dict(scheduler._brackets[0]._rungs)  # pyright: ignore[reportAttributeAccessIssue]
    assert rungs[1] == {over.name: 0.2, f"tune-{cut.name}": 0.6}
    assert rungs[2] == {f"tune-{cut.name}": 0.7, "tune-small-0002-s5": 0.8}
