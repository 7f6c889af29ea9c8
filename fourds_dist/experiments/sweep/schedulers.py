"""Which trials stop early: the schedulers of Ray Tune, by epochs of distillation, also without Ray Tune.

The state of a scheduler is lost with its driver. When a sweep is resumed, ASHA and median stopping get the epochs of
earlier trials again, and ASHA those of resumed trials too. HyperBand waits for all trials of a bracket, and so starts
new brackets.
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
"""Names, in reports of trials, of the number of epochs and of the metric of the sweep."""


def make_scheduler(plan: SweepPlan, known: Collection[Trial] = ()) -> TrialScheduler:
    """Make the scheduler that the key `scheduler` names, and pass it the epochs of trials of earlier drivers."""
    config, mode = plan.config, plan.config.mode
    by: dict[str, Any] = {"time_attr": EPOCH, "metric": METRIC, "mode": mode}
    max_epochs, rule = plan.max_epochs(), config.scheduler
    match rule.name:
        case "asha":
            # Trials end after their tests; the scheduler stops only trials that it would not promote.
            scheduler = AsyncHyperBandScheduler(
                **by,
                max_t=max_epochs,
                grace_period=min(rule.grace_epochs, max_epochs),
                reduction_factor=rule.reduction_factor,
                stop_last_trials=False,
            )
            return _with_resumed_trials(_with_finished_trials(scheduler, known), known)
        case "median":
            scheduler = MedianStoppingRule(
                **by, grace_period=rule.grace_epochs, min_samples_required=rule.min_trials
            )
            return _with_finished_trials(scheduler, known)
        case "hyperband":
            return HyperBandScheduler(
                **by, max_t=max_epochs, reduction_factor=rule.reduction_factor, stop_last_trials=False
            )
        case "none":
            return FIFOScheduler()


class EpochScheduler:
    """The scheduler of a sweep whose trials Ray Tune does not run: it stops trials, and does not pause any.

    Args:
        known: trials of earlier drivers.
    """

    def __init__(self, plan: SweepPlan, known: Collection[Trial] = ()) -> None:
        self._scheduler = make_scheduler(plan, known)
        self._trials: dict[str, Any] = {}

    def add(self, name: str) -> None:
        """Add a trial that starts."""
        self._trials[name] = _StandIn(name)
        self._scheduler.on_trial_add(NOBODY, self._trials[name])

    def stops(self, name: str, epoch: int, value: float) -> bool:
        """Whether a trial has to stop after an epoch with this value of the metric."""
        result = {EPOCH: epoch, METRIC: value}
        return self._scheduler.on_trial_result(NOBODY, self._trials[name], result) == TrialScheduler.STOP

    def complete(self, name: str, epoch: int, value: float) -> None:
        """Take the last epoch of a trial that is done."""
        self._scheduler.on_trial_complete(NOBODY, self._trials[name], {EPOCH: epoch, METRIC: value})


def _with_finished_trials(scheduler: TrialScheduler, known: Collection[Trial]) -> TrialScheduler:
    for trial in known:
        if trial.state in FINAL:
            stand_in: Any = _StandIn(trial.name)
            scheduler.on_trial_add(NOBODY, stand_in)
            _pass_epochs(scheduler, stand_in, trial)
    return scheduler


def _with_resumed_trials(scheduler: TrialScheduler, known: Collection[Trial]) -> TrialScheduler:
    """Pass epochs of resumed trials under their new identity, so that they count once at a rung."""
    resumed = {trial.name: trial for trial in known if trial.state not in FINAL}
    add = scheduler.on_trial_add

    def on_trial_add(tune_controller: Any, trial: Any) -> None:
        add(tune_controller, trial)
        if (known_trial := resumed.pop(trial.config["trial"], None)) is not None:
            _pass_epochs(scheduler, trial, known_trial)

    scheduler.on_trial_add = on_trial_add
    return scheduler


def _pass_epochs(scheduler: TrialScheduler, as_trial: Any, trial: Trial) -> None:
    """Pass the epochs of a trial; the earlier driver decided whether the trial stopped."""
    for epoch, value in trial.history:
        scheduler.on_trial_result(NOBODY, as_trial, {EPOCH: epoch, METRIC: value})


NOBODY: Any = SimpleNamespace(get_live_trials=list)
"""Stands for the controller of Ray Tune, without trials."""


class _StandIn:
    """Stands for a trial of an earlier driver, or for one that Ray Tune does not run."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id, self.config = trial_id, {"trial": trial_id}
