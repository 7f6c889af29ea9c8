"""One trial: a Tune trial that launches a run of Ray Train as its driver, and reports every epoch.

The trial itself holds neither CPUs nor GPUs, its workers do: they come in one placement group, all or none, so that
trials which fill the cluster wait for each other and never for themselves. The run's folder is the truth: a trial that
starts again, after a failure, a pause or another driver's death, goes on from the checkpoint that it finds there.

The teacher's source stage is shared (`shared`). Where a method of two stages adapts the teacher to the target, every
trial does so for itself.
"""

from __future__ import annotations

import math
import os
import queue
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune

from fourds_dist.config.loading import dump
from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.source_run import source_run
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.schedulers import EPOCH, METRIC
from fourds_dist.launch.ray.cluster import await_workers
from fourds_dist.launch.ray.train import NonRetryableError, run_stage_on_ray
from fourds_dist.runs.events import CheckpointSaved, EpochEnded, Event, StageStarted, decode_lines
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import DONE, Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.stages import drop_checkpoints, from_source, stages_to_run
from fourds_dist.training.stop_signals import Stopped

STAGE: StageName = "distill"
"""The stage whose epochs are told and compared."""

TESTED, FAILED, LEFT = "tested", "failed", "left"
"""Names in a trial's last report: its test accuracy, or why it is given up, or why it left before its end."""

STOP_CHECK_EVERY = 4
"""Half seconds between two questions whether the sweep is to end."""

WORST = {"max": 0.0, "min": 1.0}


@dataclass(frozen=True)
class TrialTask:
    """What a Tune configuration asks for."""

    name: str
    seed: int
    params: dict[str, Any]

    def as_config(self) -> dict[str, Any]:
        """For Tune."""
        return {"trial": self.name, "seed": self.seed, **self.params}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrialTask:
        """What `as_config` gave."""
        rest = dict(config)
        return cls(rest.pop("trial"), rest.pop("seed"), rest)


def run_trial(config: dict[str, Any], *, plan: SweepPlan, shared: Any) -> None:
    """Tune's trainable: train, or go on, or tell again what was done already.

    Args:
        shared: the sweep's `TeacherPool` actor.
    """
    task, mode = TrialTask.from_config(config), plan.config.mode
    settings = plan.settings(task.params, seed=task.seed, name=task.name)
    # Workers of many trials start at once; that some wait for a core is no failure.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")
    # A trial that the scheduler stops is over once its workers have left; only then its process takes the next one.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(math.ceil(settings.launch.grace_s) + 30)
    folder = RunFolder(settings.run_url)
    network = plan.config.network
    reports = TrialReporter(settings, network, shared)
    try:
        if not folder.exists(RunFile.SUMMARY):
            _train(settings, plan, shared, reports)
            drop_checkpoints(folder)
        *_, (epoch, value) = epochs_of(folder, network)
        student = RunSummary.from_dict(folder.read_json(RunFile.SUMMARY)).lines[-1]
        tune.report({EPOCH: epoch, METRIC: value, TESTED: student.target.value})
    except Stopped as stopped:
        tune.report({EPOCH: reports.epoch, METRIC: reports.value or WORST[mode], LEFT: str(stopped)})
    except (NonRetryableError, ValueError) as error:  # it would all happen again
        tune.report({EPOCH: reports.epoch, METRIC: reports.value or WORST[mode], FAILED: str(error)})


def _train(settings: Settings, plan: SweepPlan, shared: Any, reports: TrialReporter) -> None:
    folder = RunFolder(settings.run_url)
    if "source" in stages_to_run(settings):
        source = source_run(settings, f"{plan.url}/teachers")
        teacher_url: str | None = ray.get(shared.teacher.remote(source.model_dump_json()))
        if teacher_url is None:
            raise Stopped(StopReason(StopKind.SWEEP_ENDED), 0)
        settings = from_source(settings, teacher_url)
    folder.write_text(RunFile.CONFIG, dump(settings))
    for stage in stages_to_run(settings):
        if folder.exists(DONE[stage]):
            continue
        await_workers(settings.launch, wait_s=None)
        reason: StopReason | None = ray.get(shared.stop_reason.remote())
        if reason:
            raise Stopped(reason, 0)
        run_stage_on_ray(stage, settings, reports if stage == STAGE else _unheard, reports.meanwhile)


def _unheard(event: Event) -> None:
    """An event of a stage whose epochs are not compared."""


class TrialReporter:
    """Passes every epoch but the last on to Tune, once its checkpoint is whole; the last comes with the tests.

    Events arrive in another thread; Tune is told in the trial's own.
    """

    def __init__(self, settings: Settings, network: Network, shared: Any) -> None:
        self._num_epochs, self._network, self._shared = settings.distill_stage.epochs, network, shared
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._steps_per_epoch = 0
        self._asked = 0
        self.epoch = 0
        self.value: float | None = None

    def __call__(self, event: Event) -> None:
        """Take an event of the run."""
        self._events.put(event)

    def meanwhile(self) -> StopReason | None:
        """Tell Tune what has come; gives why the run is to end, if it is."""
        while not self._events.empty():
            self._tell(self._events.get())
        self._asked += 1
        return ray.get(self._shared.stop_reason.remote()) if self._asked % STOP_CHECK_EVERY == 0 else None

    def _tell(self, event: Event) -> None:
        if isinstance(event, StageStarted):
            self._steps_per_epoch = event.num_steps_per_epoch
        if isinstance(event, CheckpointSaved) and self._network in event.accuracies:
            self.epoch, self.value = event.step // self._steps_per_epoch, event.accuracies[self._network]
            if self.epoch < self._num_epochs:
                tune.report({EPOCH: self.epoch, METRIC: self.value})


def epochs_of(folder: RunFolder, network: Network) -> Iterator[tuple[int, float]]:
    """(epoch, validation accuracy of a network) of every epoch of distillation in a run's metrics."""
    lines = folder.read_text(RunFile.METRICS).splitlines() if folder.exists(RunFile.METRICS) else ()
    for event in decode_lines(lines):
        if isinstance(event, EpochEnded) and event.stage == STAGE and network in event.validation:
            yield event.epoch, event.validation[network].accuracy
