"""Which trials a sweep starts, stops and retries. The controller knows nothing of Ray."""

from __future__ import annotations

import time
from collections.abc import Callable

from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.search import SearchAlgorithm, make_proposals
from fourds_dist.experiments.sweep.space import Params
from fourds_dist.experiments.sweep.trial_store import Configuration, Trial, TrialStore
from fourds_dist.runs.failures import StopKind, StopReason


class SweepController:
    """Decides which trial starts next, records what happens to trials, and passes results to the search algorithm.

    Ray Tune calls the controller in the second thread of the driver; only `close` may come from the first.

    Args:
        tell: takes events of trials, as (event, trial).
    """

    def __init__(
        self,
        plan: SweepPlan,
        trial_store: TrialStore,
        max_concurrent_trials: int,
        tell: Callable[[str, Trial], None],
    ) -> None:
        self.plan, self.trial_store = plan, trial_store
        self.max_concurrent_trials, self._tell = max_concurrent_trials, tell
        self._proposals: SearchAlgorithm = make_proposals(plan, trial_store.configurations())
        self._left = list(trial_store.in_state("waiting", "running"))
        for trial in self._left:
            trial.state = "waiting"
        self._open: dict[str, Trial] = {}
        self._number = max((t.number for t in trial_store.trials.values()), default=-1) + 1
        self._queue = [trial for c in trial_store.configurations() for trial in self._missing(c)]
        self.closed: StopReason | None = None

    @property
    def is_over(self) -> bool:
        """Whether no more trials will start."""
        return bool(self.closed) or (not self._left and not self._queue and not self._propose())

    def next(self, tune_id: str) -> Trial | None:
        """Return the next trial, which later calls name by `tune_id`; None: there is no room at the moment."""
        if len(self._open) >= self.max_concurrent_trials:
            return None
        trial = (self._left or self._queue).pop(0)
        self._open[tune_id] = trial
        self.trial_store.write(trial)
        return trial

    def _propose(self) -> bool:
        """Add the trials of one more configuration to the queue; False: there is none."""
        most = self.plan.num_trials()
        if most is not None and len(self.trial_store.trials) >= most:
            return False
        if len(self._open) >= self.max_concurrent_trials:  # the search may learn from trials that run now
            return True
        params = self._proposals.propose(self._number)
        if params is None:
            return False
        self._queue += self._trials(self._number, params)
        self._number += 1
        return True

    def _trials(self, number: int, params: Params) -> list[Trial]:
        """The trials of a configuration, one for each seed."""
        first, num_epochs = self.plan.run.run.seed, self.plan.num_epochs(params)
        return [
            Trial(f"{self.plan.config.name}-{number:04d}-s{seed}", number, seed, params, num_epochs)
            for seed in range(first, first + self.plan.config.seeds)
        ]

    def _missing(self, configuration: Configuration) -> list[Trial]:
        """The trials of a configuration that an earlier driver did not start."""
        all_trials = self._trials(configuration.number, configuration.params)
        return [trial for trial in all_trials if trial.name not in self.trial_store.trials]

    def spent(self, until_s: float) -> StopReason | None:
        """The part of the budget that is spent, if one is.

        Args:
            until_s: when budget.hours is spent, by `time.monotonic`.
        """
        if time.monotonic() > until_s:
            return StopReason(StopKind.BUDGET_HOURS)
        most = self.plan.config.budget.epochs
        is_spent = most is not None and self.trial_store.num_epochs >= most
        return StopReason(StopKind.BUDGET_EPOCHS) if is_spent else None

    def close(self, reason: StopReason) -> None:
        """Propose no more trials."""
        self.closed = self.closed or reason

    def started(self, tune_id: str) -> None:
        """A trial started."""
        trial = self._open[tune_id]
        if trial.state != "running":
            trial.state = "running"
            self.trial_store.write(trial)
            self._tell("started", trial)

    def epoch(
        self, tune_id: str, epoch: int, value: float, tested: float | None = None, *, is_last: bool = False
    ) -> None:
        """An epoch of a trial ended; the last epoch comes with the test accuracy, if there are test labels."""
        trial = self._open[tune_id]
        trial.add(epoch, value)
        if is_last or tested is not None:
            trial.tested, trial.state = tested, "done"
        self._tell("epoch", trial)

    def left(self, tune_id: str) -> None:
        """A trial left before its end, as it was asked to."""
        self._open[tune_id].state = "waiting"

    def failed(self, tune_id: str, error: str) -> None:
        """A trial failed, and would fail in the same way again."""
        trial = self._open[tune_id]
        trial.failures.append(error)
        trial.state = "failed"

    def recovers(self, tune_id: str, error: str) -> None:
        """A trial failed, and will be resumed from its checkpoint."""
        trial = self._open[tune_id]
        trial.failures.append(error)
        self.trial_store.write(trial)
        self._tell("recovers", trial)

    def ended(self, tune_id: str, error: str | None = None) -> None:
        """A trial came to its end, was stopped by the scheduler, failed for good, or left to be resumed later."""
        trial = self._open.pop(tune_id, None)
        if trial is None:
            return
        if error is not None:
            trial.failures.append(error)
            trial.state = "failed"
        elif trial.state == "running":
            trial.state = "waiting" if self.closed else "stopped"
        self.trial_store.write(trial)
        self._tell(trial.state, trial)
        same = [t for t in self.trial_store.trials.values() if t.number == trial.number]
        configuration = Configuration(trial.number, tuple(same), self.trial_store.mode)
        if configuration.is_over and len(same) == self.plan.config.seeds:
            self._proposals.learn(configuration)
