"""One trial under Ray Tune: the driver of a run of Ray Train, which reports every epoch.

The trial reserves neither CPUs nor GPUs; its workers do, in one placement group, all or none. Trials that fill the
cluster thus wait for each other and never for their own workers. A trial that starts again, after a failure, a pause or
the death of a driver, resumes from the checkpoint in the folder of the run.

Trials share source stages (`teacher_pool`). A method of two stages adapts the teacher to the target in every trial.
"""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from fourds_dist.config.loading import dump
from fourds_dist.experiments.epochs import STAGE, last_epoch
from fourds_dist.experiments.shared_teacher import shared_source
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.schedulers import EPOCH, METRIC
from fourds_dist.launch.ray.cluster import await_workers
from fourds_dist.launch.ray.train import NonRetryableError, run_stage_on_ray
from fourds_dist.runs.events import CheckpointSaved, Event, StageStarted
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import DONE, Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.run_identity import started_with_network_inputs
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import drop_checkpoints, from_source, stages_to_run
from fourds_dist.training.stop_signals import Stopped

TESTED, FAILED, LEFT = "tested", "failed", "left"
"""Names in the last report of a trial: its test accuracy, why the trial failed for good, or why it left early."""

STOP_CHECK_EVERY = 4
"""Half seconds between two requests whether the sweep ends."""

WORST = {"max": 0.0, "min": 1.0}


@dataclass(frozen=True)
class TrialTask:
    """The trial that a configuration of Ray Tune stands for."""

    name: str
    seed: int
    params: dict[str, Any]

    def as_config(self) -> dict[str, Any]:
        """The configuration of Ray Tune."""
        return {"trial": self.name, "seed": self.seed, **self.params}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrialTask:
        """The inverse of `as_config`."""
        rest = dict(config)
        return cls(rest.pop("trial"), rest.pop("seed"), rest)


def run_trial(config: dict[str, Any], *, plan: SweepPlan, shared: Any) -> None:
    """Train, resume, or report again a trial that is done. The trainable of Ray Tune.

    Args:
        shared: the `TeacherPool` actor of the sweep.
    """
    task, mode = TrialTask.from_config(config), plan.config.mode
    settings = plan.settings(task.params, seed=task.seed, name=task.name)
    # Workers of many trials start at once, and some of them wait for a core.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    # The process of a stopped trial takes the next trial once the workers of the first have left.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(math.ceil(settings.launch.grace_s) + 30)
    folder = RunFolder(settings.run_url)
    network = plan.config.network
    reports = TrialReporter(settings, network, shared)
    try:
        if not folder.exists(RunFile.SUMMARY):
            _train(settings, plan, shared, reports)
            drop_checkpoints(folder)
        epoch, value, tested = last_epoch(folder, network)
        tune.report({EPOCH: epoch, METRIC: value, TESTED: tested})
    except Stopped as stopped:
        tune.report(
            {
                EPOCH: reports.epoch,
                METRIC: reports.value_or(WORST[mode]),
                LEFT: str(stopped),
            }
        )
    except (NonRetryableError, ValueError) as error:  # the failure is permanent
        tune.report(
            {
                EPOCH: reports.epoch,
                METRIC: reports.value_or(WORST[mode]),
                FAILED: str(error),
            }
        )


def _train(settings: Settings, plan: SweepPlan, shared: Any, reports: TrialReporter) -> None:
    folder = RunFolder(settings.run_url)
    source = shared_source(settings, plan.teachers_url)
    if source is not None:
        teacher_url: str | None = ray.get(shared.teacher.remote(source.model_dump_json()))
        if teacher_url is None:
            raise Stopped(StopReason(StopKind.SWEEP_ENDED), 0)
        settings = from_source(settings, teacher_url)
    settings = started_with_network_inputs(settings)
    folder.write_text(RunFile.CONFIG, dump(settings))
    for stage in stages_to_run(settings):
        if folder.exists(DONE[stage]):
            continue
        await_workers(settings.launch, wait_s=None)
        reason: StopReason | None = ray.get(shared.stop_reason.remote())
        if reason:
            raise Stopped(reason, 0)
        run_stage_on_ray(stage, settings, reports if stage == STAGE else _ignore, reports.meanwhile)


def _ignore(event: Event) -> None:
    """Take an event of a stage whose epochs are not compared."""


class TrialReporter:
    """Reports every epoch but the last to Ray Tune, once its checkpoint is whole; the last one comes with the tests.

    Events arrive in another thread; reports are made in the thread of the trial.
    """

    def __init__(self, settings: Settings, network: Network, shared: Any) -> None:
        self._num_epochs, self._network, self._shared = settings.distill_stage.epochs, network, shared
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._steps_per_epoch = 0
        self._num_calls = 0
        self.epoch = 0
        self.value: float | None = None

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        self._events.put(event)

    def meanwhile(self) -> StopReason | None:
        """Report what has arrived; returns why the run has to stop, or None."""
        while not self._events.empty():
            self._report(self._events.get())
        self._num_calls += 1
        return ray.get(self._shared.stop_reason.remote()) if self._num_calls % STOP_CHECK_EVERY == 0 else None

    def value_or(self, otherwise: float) -> float:
        """Return the value of the last reported epoch; `otherwise` before the first."""
        return otherwise if self.value is None else self.value

    def _report(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._steps_per_epoch = event.num_steps_per_epoch
        if isinstance(event, CheckpointSaved) and self._network in event.accuracies:
            self.epoch, self.value = event.step // self._steps_per_epoch, event.accuracies[self._network]
            if self.epoch < self._num_epochs:
                tune.report({EPOCH: self.epoch, METRIC: self.value})
