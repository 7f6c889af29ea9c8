"""Which trials stop early: Ray Tune's schedulers, by epochs of distillation, and what they knew before a sweep went on.

Ray Tune forgets its schedulers when a driver dies. ASHA and median stopping are shown the epochs of earlier trials
again, ASHA those of a trial that goes on as well; HyperBand, whose brackets wait for trials that are gone, begins new
ones.
"""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.trial_store import FINAL, Trial

EPOCH, METRIC = "epoch", "metric"
"""Names, in what trials report, of the epochs that ended and of the sweep's metric."""


def make_scheduler(plan: SweepPlan, known: Collection[Trial] = ()) -> TrialScheduler:
    """As the sweep's `scheduler` says, having seen some trials, by name."""
    config, mode = plan.config, plan.config.mode
    by: dict[str, Any] = {"time_attr": EPOCH, "metric": METRIC, "mode": mode}
    max_epochs, rule = plan.max_epochs(), config.scheduler
    match rule.name:
        case "asha":
            # Trials end by themselves, with their tests; the scheduler only stops what it would not promote.
            scheduler = AsyncHyperBandScheduler(
                **by,
                max_t=max_epochs,
                grace_period=min(rule.grace_epochs, max_epochs),
                reduction_factor=rule.reduction_factor,
                stop_last_trials=False,
            )
            return _show_when_they_go_on(_having_seen(scheduler, known), known)
        case "median":
            scheduler = MedianStoppingRule(
                **by, grace_period=rule.grace_epochs, min_samples_required=rule.min_trials
            )
            return _having_seen(scheduler, known)
        case "hyperband":
            return HyperBandScheduler(
                **by, max_t=max_epochs, reduction_factor=rule.reduction_factor, stop_last_trials=False
            )
        case "none":
            return FIFOScheduler()


def _having_seen(scheduler: TrialScheduler, known: Collection[Trial]) -> TrialScheduler:
    for trial in known:
        if trial.state in FINAL:
            stand_in: Any = _StandIn(trial.name)
            scheduler.on_trial_add(NOBODY, stand_in)
            _show(scheduler, stand_in, trial)
    return scheduler


def _show_when_they_go_on(scheduler: TrialScheduler, known: Collection[Trial]) -> TrialScheduler:
    """Under the identity that Tune gives them now, lest they count twice at a rung."""
    going_on = {trial.name: trial for trial in known if trial.state not in FINAL}
    add = scheduler.on_trial_add

    def on_trial_add(tune_controller: Any, trial: Any) -> None:
        add(tune_controller, trial)
        if (known_trial := going_on.pop(trial.config["trial"], None)) is not None:
            _show(scheduler, trial, known_trial)

    scheduler.on_trial_add = on_trial_add
    return scheduler


def _show(scheduler: TrialScheduler, as_trial: Any, trial: Trial) -> None:
    """Show what a trial came to; whether it was to stop there was decided then."""
    for epoch, value in trial.history:
        scheduler.on_trial_result(NOBODY, as_trial, {EPOCH: epoch, METRIC: value})


NOBODY: Any = SimpleNamespace(get_live_trials=list)
"""In place of Tune's controller, with no trials."""


class _StandIn:
    """In place of a trial of an earlier driver."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
