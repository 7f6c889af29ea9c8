"""Which trials stop early: Ray Tune's schedulers, by epochs of distillation, and what they knew before a sweep went on.

Ray Tune forgets its schedulers when a driver dies. ASHA and median stopping are shown the epochs of earlier trials
again; HyperBand, whose brackets wait for trials that are gone, begins new ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from fourds_dist.sweep.ledger import Trial
from fourds_dist.sweep.plan import Plan
from fourds_dist.sweep.population import Population

EPOCH, METRIC = "epoch", "metric"
"""Names, in what trials report, of the epochs that ended and of the sweep's metric."""


def make_scheduler(plan: Plan, known: Iterable[Trial] = ()) -> TrialScheduler:
    """As the sweep's `scheduler` says (search=pbt: as `population` does), having seen some trials."""
    config, mode = plan.config, plan.config.mode
    by: dict[str, Any] = {"time_attr": EPOCH, "metric": METRIC, "mode": mode}
    if config.search == "pbt":
        return Population(plan, **by)
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
            return _having_seen(scheduler, known)
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


def _having_seen(scheduler: TrialScheduler, known: Iterable[Trial]) -> TrialScheduler:
    controller: Any = SimpleNamespace(get_live_trials=list)
    for trial in known:
        stand_in: Any = _StandIn(trial.name)
        scheduler.on_trial_add(controller, stand_in)
        results = [{EPOCH: epoch, METRIC: value} for epoch, value in trial.history]
        for result in results:
            scheduler.on_trial_result(controller, stand_in, result)
    return scheduler


class _StandIn:
    """In place of a trial of an earlier driver."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
