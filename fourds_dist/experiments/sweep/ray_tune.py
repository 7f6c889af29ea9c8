"""Trials under Ray Tune, whose callbacks are forwarded to the controller.

Ray Tune schedules; the trial store and the folders of trials hold all state. A resumed sweep is a new experiment of Ray
Tune, whose first trials are the unfinished ones, under their old names.
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

# Ray reads these once, when it is imported.
os.environ.setdefault(
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
)  # the trial store and the runs log everything
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", str(10**9))
os.environ.setdefault("TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", str(10**9))
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints tables at any verbosity

from fourds_dist.launch.ray.cluster import ray  # isort: skip  (sets Ray's environment first)

from ray import cloudpickle, tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from fourds_dist.experiments.executor.ray_tasks import num_runs
from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.live_table import ShowTeachers
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.schedulers import EPOCH, METRIC, make_scheduler
from fourds_dist.experiments.sweep.teacher_pool import TeacherPool
from fourds_dist.experiments.sweep.trial import FAILED, LEFT, TESTED, TrialTask, run_trial
from fourds_dist.launch.ray.ray_private import without_warning
from fourds_dist.launch.ray.worker_failures import failure_of
from fourds_dist.runs.failures import StopKind, StopReason

_CTRL_C = StopReason(StopKind.CTRL_C)
MANY_PROCESSES = "worker processes have been started on node"
"""Warning of Ray about many actors without CPUs, which trials are by design."""
TRIAL_BYTES = 550 * 10**6
"""Memory of the process of a trial, the only resource that it reserves: its workers reserve CPUs and GPUs."""


class ControllerSearcher(Searcher):
    """A searcher of Ray Tune that asks the controller."""

    def __getstate__(self) -> dict[str, Any]:
        """No state: a sweep is resumed from the trial store."""
        return {}

    def __init__(self, controller: SweepController) -> None:
        super().__init__(metric=METRIC, mode=controller.plan.config.mode)
        self._controller = controller

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next trial."""
        if self._controller.is_over:
            return Searcher.FINISHED
        trial = self._controller.next(trial_id)
        return trial and TrialTask(trial.name, trial.seed, trial.params).as_config()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `ControllerCallback` informs the controller."""

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: Ray Tune requires one, and a sweep is resumed from the trial store."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class ControllerCallback(tune.Callback):
    """Informs the controller of the events of trials."""

    def __getstate__(self) -> dict[str, Any]:
        """No state, as in `ControllerSearcher`."""
        return {}

    def __init__(self, controller: SweepController) -> None:
        self._controller = controller

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial started, or was resumed after a pause."""
        self._controller.started(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reported; Ray Tune does not repeat the last report here."""
        if FAILED in result:
            self._controller.failed(trial.trial_id, result[FAILED])
        elif LEFT in result:
            self._controller.left(trial.trial_id)
        else:
            self._controller.epoch(
                trial.trial_id, result[EPOCH], result[METRIC], result.get(TESTED), is_last=TESTED in result
            )

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial failed and will be repeated."""
        self._controller.recovers(trial.trial_id, _error_of(trial))

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """A trial returned, or the scheduler stopped the trial."""
        self._controller.ended(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial failed more often than `retries` allows."""
        self._controller.ended(trial.trial_id, _error_of(trial))


def _error_of(trial: TuneTrial) -> str:
    """Why a trial failed, in a line.

    Ray Tune stores exceptions of Ray as pickles on the machine of the driver, and only the text of its own exceptions.
    """
    pickled, text = trial.pickled_error_file, trial.error_file
    if pickled and Path(pickled).exists():
        return str(failure_of(cloudpickle.loads(Path(pickled).read_bytes())))
    lines = Path(text).read_text(encoding="utf-8").split("\n") if text and Path(text).exists() else []
    return f"failed: {next(filter(str.strip, reversed(lines)), 'without a message').strip()}"


class TuneTrials:
    """Runs the trials of a sweep through Ray Tune, in the cluster that this process has joined.

    Args:
        trainable: executed in place of training, to measure the rest.
    """

    def __init__(self, plan: SweepPlan, trainable: Callable[[dict[str, Any]], None] | None = None) -> None:
        actor: Any = TeacherPool
        here = ray.get_runtime_context().get_node_id()
        self._pool: Any = actor.options(label_selector={"ray.io/node-id": here}).remote()
        self._plan = plan
        self._trainable = trainable or tune.with_parameters(run_trial, plan=plan, shared=self._pool)

    def close(self) -> None:
        """End what trials share."""
        ray.kill(self._pool)

    @property
    def capacity(self) -> int:
        """How many trials the cluster has room for at once, as the cluster is now; at least one."""
        return num_runs(self._plan.run.launch)

    def run(
        self,
        controller: SweepController,
        show_teachers: ShowTeachers,
        every: Callable[[], None],
        seconds_left: float | None,
    ) -> StopReason | None:
        """Run trials until there are no more; see `sweep.run.TrialRunner`.

        Raises:
            RuntimeError: Tune itself failed.
        """

        until_s = time.monotonic() + (seconds_left if seconds_left is not None else float("inf"))
        leave_s = float("inf")
        reason: StopReason | None = None
        result: Future[None] = Future()
        arguments = (controller, self._trainable, result)
        threading.Thread(target=_tune, args=arguments, name="tune", daemon=True).start()
        with without_warning(MANY_PROCESSES):
            while not result.done() and time.monotonic() < leave_s:
                asked: StopReason | None = None
                try:
                    wait([result], timeout=0.5)
                    self._show(show_teachers, every)
                    asked = None if reason else controller.spent(until_s)
                except KeyboardInterrupt:
                    if reason == _CTRL_C:
                        raise
                    asked = _CTRL_C
                if asked:
                    reason, leave_s = asked, time.monotonic() + self._plan.run.launch.grace_s
                    controller.close(asked)
                    self._pool.end.remote(asked)
        if result.done():
            result.result()
        self._show(show_teachers, every)
        return reason

    def _show(self, show_teachers: ShowTeachers, every: Callable[[], None]) -> None:
        show_teachers(ray.get(self._pool.take_events.remote()))
        every()


def _tune(
    controller: SweepController, trainable: Callable[[dict[str, Any]], None], result: Future[None]
) -> None:
    config = controller.plan.config
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # the live table shows failures
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(
        controller.max_concurrent_trials
    )  # all of them may start at once
    try:
        with tempfile.TemporaryDirectory(prefix="fourds-tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"memory": TRIAL_BYTES}),
                tune_config=tune.TuneConfig(
                    search_alg=ControllerSearcher(controller),
                    scheduler=make_scheduler(controller.plan, controller.trial_store.trials.values()),
                    num_samples=-1,
                    reuse_actors=True,  # the next trial uses the process of a finished one, with all imports
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
