"""Trials as tasks of an executor, without Ray: in processes of this machine, or one after the other in this process.

Each trial is a run of one process. A source stage is a task that precedes the trials which share it. The controller
gets the same calls as from Ray Tune, and the same schedulers stop trials at the ends of their epochs.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.epochs import accuracy_of, last_epoch
from fourds_dist.experiments.executor.base import Executor, RunTask, TaskResult
from fourds_dist.experiments.executor.open import open_executor
from fourds_dist.experiments.executor.run_tasks import remove_checkpoints, run_tasks
from fourds_dist.experiments.shared_teacher import shared_source
from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.live_table import ShowTeachers
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.schedulers import EpochScheduler
from fourds_dist.experiments.sweep.trial_store import Trial
from fourds_dist.runs.events import EpochEnded, Note
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import from_source

POLL_S = 0.5
"""Seconds between two looks at the budget while no trial ends."""


class _BudgetSpentError(Exception):
    """The budget of the sweep is spent; carries the reason to stop."""

    def __init__(self, reason: StopReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Open(NamedTuple):
    """A trial that was started.

    Args:
        id: name of the trial in calls of the controller.
        source: the run whose source stage the trial needs; None: none.
    """

    id: str
    trial: Trial
    task: RunTask
    source: Settings | None


@contextmanager
def task_trials(plan: SweepPlan) -> Iterator[TaskTrials]:
    """Open the executor that the sweep names, for its trials."""
    trials, config = TaskTrials(plan), plan.config
    with open_executor(
        config.through, plan.run, config.max_concurrent_trials, trials.after_epoch, is_quiet=True
    ) as trials.executor:
        yield trials


class TaskTrials:
    """Runs the trials of a sweep as tasks of an executor."""

    executor: Executor

    def __init__(self, plan: SweepPlan) -> None:
        self._plan = plan
        self._ids = (f"task-{number}" for number in itertools.count())
        self._open: dict[str, _Open] = {}
        self._retries: list[_Open] = []
        self._num_failures: Counter[str] = Counter()
        self._sources: set[str] = set()

    @property
    def capacity(self) -> int:
        """The largest number of trials at once."""
        return self.executor.capacity

    def run(
        self,
        controller: SweepController,
        show_teachers: ShowTeachers,
        every: Callable[[], None],
        seconds_left: float | None,
    ) -> StopReason | None:
        """Run trials until there are no more; see `sweep.run.TrialRunner`."""
        self._controller, self._show_teachers, self._every = controller, show_teachers, every
        self._scheduler = EpochScheduler(self._plan, controller.trial_store.trials.values())
        self._until_s = time.monotonic() + (float("inf") if seconds_left is None else seconds_left)
        try:
            run_tasks(
                (), self.executor, self._ended, more=self._more, poll_s=POLL_S, every=self._check_budget
            )
        except KeyboardInterrupt:
            return self._leave(StopReason(StopKind.CTRL_C))
        except _BudgetSpentError as spent:
            return self._leave(spent.reason)
        finally:
            every()
        return None

    def _check_budget(self) -> None:
        self._every()
        if reason := self._controller.spent(self._until_s):
            raise _BudgetSpentError(reason)

    def _leave(self, reason: StopReason) -> StopReason:
        self._controller.close(reason)
        self.executor.end(self._plan.run.launch.grace_s)
        for started in list(self._open.values()):
            self._controller.left(started.id)
            self._close(started)
        return reason

    def _more(self) -> list[RunTask]:
        """Tasks of the trials that may start now, with the source stages that they need."""
        started, self._retries = self._retries, []
        started += self._new_trials()
        return [task for one in started for task in (*self._missing_source(one), one.task)]

    def _new_trials(self) -> Iterator[_Open]:
        while not self._controller.is_over:
            trial_id = next(self._ids)
            if (trial := self._controller.next(trial_id)) is None:
                return
            self._controller.started(trial_id)
            try:
                started = self._started(trial_id, trial)
            except ConfigError as error:  # a point of a grid that no run can have
                self._controller.ended(trial_id, str(error))
                continue
            self._scheduler.add(trial.name)
            self._open[started.task.url] = started
            yield started

    def _started(self, trial_id: str, trial: Trial) -> _Open:
        settings = self._plan.settings(trial.params, seed=trial.seed, name=trial.name)
        source = shared_source(settings, self._plan.teachers_url)
        if source is None:
            return _Open(trial_id, trial, RunTask(trial.name, settings), None)
        task = RunTask(trial.name, from_source(settings, source.run_url), source.run_url)
        return _Open(trial_id, trial, task, source)

    def _missing_source(self, started: _Open) -> list[RunTask]:
        source = started.source
        if source is None or source.run_url in self._sources:
            return []
        self._sources.add(source.run_url)
        task = RunTask(source.run.name, source)
        return [] if task.is_done else [task]

    def after_epoch(self, url: str, event: EpochEnded) -> StopReason | None:
        """Tell the controller of an epoch; returns why the run has to stop."""
        controller = self._controller
        if url not in self._open:
            self._show_teachers([(url.rpartition("/")[2], event)])
            return controller.closed
        started = self._open[url]
        measured = accuracy_of(event, self._plan.config.network)
        # The last epoch comes with the test accuracy.
        if measured is None or measured[0] >= started.trial.num_epochs:
            return controller.closed
        controller.epoch(started.id, *measured)
        self._every()
        if self._scheduler.stops(started.trial.name, *measured):
            return StopReason(StopKind.EARLY_STOPPING)
        return controller.closed or controller.spent(self._until_s)

    def _ended(self, result: TaskResult) -> None:
        outcome, started = result.outcome, self._open.get(result.task.url)
        if started is None:
            if outcome.failure is not None:
                # The next trial that needs the teacher trains it again.
                self._sources.discard(result.task.url)
                self._show_teachers([(result.task.title, Note(step=0, text=outcome.failure))])
            return
        if outcome.stopped is not None:
            if outcome.stopped.kind != StopKind.EARLY_STOPPING:
                self._controller.left(started.id)
            self._close(started)
        elif outcome.failure is None:
            folder = RunFolder(result.task.url)
            epoch, value, tested = last_epoch(folder, self._plan.config.network)
            self._controller.epoch(started.id, epoch, value, tested, is_last=True)
            self._scheduler.complete(started.trial.name, epoch, value)
            remove_checkpoints([folder.url])
            self._close(started)
        elif outcome.is_permanent:
            self._controller.failed(started.id, outcome.failure)
            self._close(started)
        elif self._num_failures[started.task.url] < self._plan.config.retries:
            self._num_failures[started.task.url] += 1
            self._controller.recovers(started.id, outcome.failure)
            self._retries.append(started)
        else:
            self._close(started, outcome.failure)

    def _close(self, started: _Open, error: str | None = None) -> None:
        del self._open[started.task.url]
        self._controller.ended(started.id, error)
