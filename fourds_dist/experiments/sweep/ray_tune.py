"""Ray Tune: runs trials through Ray Tune and forwards its callbacks to the controller.

Tune schedules; all that has to survive lies in the ledger and in the trials' own folders. A sweep that goes on is
therefore a new Tune experiment, which gets the trials that are not over first, under their old names.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

# Before Ray is imported: it reads these once.
os.environ.setdefault(
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
)  # the ledger and the runs hold all that is logged
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))
os.environ.setdefault("TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", str(10**9))
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the other output has tables of its own, at any verbosity

from fourds_dist.launch.ray.cluster import ray, worker_resources  # isort: skip  (sets Ray's environment first)

from ray import cloudpickle, tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.schedulers import EPOCH, METRIC, make_scheduler
from fourds_dist.experiments.sweep.trial import FAILED, LEFT, TESTED, TrialTask
from fourds_dist.launch.ray.ray_private import without_warning
from fourds_dist.launch.ray.worker_failures import failure_of
from fourds_dist.runs.failures import StopKind, StopReason

_CTRL_C = StopReason(StopKind.CTRL_C)
MANY_PROCESSES = "worker processes have been started on node"
"""Ray's warning of many actors without CPUs; trials are such by design."""
TRIAL_BYTES = 550 * 10**6
"""Memory of a trial's own process, which is all that it reserves: CPUs and GPUs are its workers'."""

Trainable = Callable[[dict[str, Any]], None]


class ControllerSearcher(Searcher):
    """Tune's searcher, which asks the course."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps copies to go on from, and we do not."""
        return {}

    def __init__(self, controller: SweepController) -> None:
        super().__init__(metric=METRIC, mode=controller.plan.config.mode)
        self._controller = controller

    def suggest(self, trial_id: str) -> Any:
        """The next trial's configuration."""
        if self._controller.is_over:
            return Searcher.FINISHED
        trial = self._controller.next(trial_id)
        return trial and TrialTask(trial.name, trial.seed, trial.params).as_config()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The course hears of it through `ControllerCallback`."""

    def save(self, checkpoint_path: str) -> None:
        """Tune wants a file; the ledger is what a sweep goes on from."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class ControllerCallback(tune.Callback):
    """Tells the course what befalls Tune's trials."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as `ControllerSearcher`."""
        return {}

    def __init__(self, controller: SweepController) -> None:
        self._controller = controller

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Also where a trial goes on after a pause."""
        self._controller.started(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Every report but the repeated last one."""
        if FAILED in result:
            self._controller.failed(trial.trial_id, result[FAILED])
        elif LEFT in result:
            self._controller.left(trial.trial_id)
        else:
            self._controller.epoch(trial.trial_id, result[EPOCH], result[METRIC], result.get(TESTED))

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """It will be tried again."""
        self._controller.recovers(trial.trial_id, _error_of(trial))

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """It returned, or the scheduler stopped it."""
        self._controller.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """It failed more often than it may."""
        self._controller.ended(trial.trial_id, _error_of(trial))


def _error_of(trial: TuneTrial) -> str:
    """Why Tune's trial failed, in a few words.

    Tune keeps Ray's exceptions pickled on the driver's machine, and of its own the text alone.
    """
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).exists():
        return str(failure_of(cloudpickle.loads(Path(pickled).read_bytes())))
    lines = Path(text).read_text(encoding="utf-8").split("\n") if text and Path(text).exists() else []
    return f"failed: {next(filter(str.strip, reversed(lines)), 'without a message').strip()}"


def room(plan: SweepPlan) -> int:
    """How many trials the cluster has room for at once, as it is; at least one."""
    each, have = worker_resources(plan.run.launch), ray.cluster_resources()
    workers = plan.run.launch.min_workers
    return max(1, min(int(have.get(name, 0) / (amount * workers) + 1e-6) for name, amount in each.items()))


def run_trials(
    controller: SweepController,
    trainable: Trainable,
    *,
    end: Callable[[StopReason], None],
    every: Callable[[], None],
    seconds_left: float | None,
    grace_s: float,
) -> StopReason | None:
    """Run trials until there are no more; gives why it ended before, if it did.

    Args:
        end: has the trials that run leave with a checkpoint.
        every: called twice a second.
        seconds_left: of budget.hours.
        grace_s: how long trials may take to leave.

    Raises:
        RuntimeError: Tune itself failed.
    """
    until_s = time.monotonic() + (seconds_left if seconds_left is not None else float("inf"))
    leave_s = float("inf")
    reason: StopReason | None = None
    result: Future[None] = Future()
    threading.Thread(target=_tune, args=(controller, trainable, result), name="tune", daemon=True).start()
    with without_warning(MANY_PROCESSES):
        while not result.done() and time.monotonic() < leave_s:
            asked: StopReason | None = None
            try:
                wait([result], timeout=0.5)
                every()
                asked = None if reason else _spent(controller, until_s)
            except KeyboardInterrupt:
                if reason == _CTRL_C:
                    raise
                asked = _CTRL_C
            if asked:
                reason, leave_s = asked, time.monotonic() + grace_s
                controller.close(asked)
                end(asked)
    if result.done():
        result.result()
    every()
    return reason


def _spent(controller: SweepController, until_s: float) -> StopReason | None:
    most = controller.plan.config.budget.epochs
    if time.monotonic() > until_s:
        return StopReason(StopKind.BUDGET_HOURS)
    is_spent = most is not None and controller.trial_store.num_epochs >= most
    return StopReason(StopKind.BUDGET_EPOCHS) if is_spent else None


def _tune(controller: SweepController, trainable: Trainable, result: Future[None]) -> None:
    config = controller.plan.config
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # which trials failed, our table tells
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(
        controller.max_concurrent_trials
    )  # they may start all at once
    try:
        with tempfile.TemporaryDirectory(prefix="fourds-tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"memory": TRIAL_BYTES}),
                tune_config=tune.TuneConfig(
                    search_alg=ControllerSearcher(controller),
                    scheduler=make_scheduler(controller.plan, controller.trial_store.trials.values()),
                    num_samples=-1,
                    reuse_actors=True,  # a trial that came to its end leaves its process, with all imports, to the next
                    trial_name_creator=lambda trial: str(trial.config["trial"]),
                    trial_dirname_creator=lambda trial: str(trial.config["trial"]),
                ),
                run_config=tune.RunConfig(
                    name=config.name,
                    storage_path=scratch,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=config.retries),
                    callbacks=[ControllerCallback(controller)],
                ),
            )
            tuner.fit()
        result.set_result(None)
    except BaseException as error:
        result.set_exception(error)
