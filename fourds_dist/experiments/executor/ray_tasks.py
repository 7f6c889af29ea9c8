"""Runs as tasks of a Ray cluster: each holds the resources it trains on, and waits in the queue of Ray for them."""

from __future__ import annotations

import os
import sys
from typing import Any

import ray
from ray.exceptions import RayError

from fourds_dist.experiments.executor.base import AfterEpoch, Outcome, RunTask, TaskResult, execute
from fourds_dist.launch.ray.cluster import worker_resources
from fourds_dist.runs.events import EpochEnded
from fourds_dist.runs.failures import StopReason
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.stages.settings import Settings


class RayTasks:
    """The cluster that this process has joined.

    Args:
        launch: the resources of a run.
        parallel: runs at once; None: as many as there is room for, also after the cluster has grown.
        after_epoch: called, in an actor, at the end of each epoch of each run.
    """

    def __init__(
        self, launch: LaunchConfig, parallel: int | None, after_epoch: AfterEpoch | None = None
    ) -> None:
        self._launch, self._parallel = launch, parallel
        held = worker_resources(launch) if launch.runner == "inline" else {"CPU": 0.0}
        self._options = {
            "num_cpus": held["CPU"],
            "num_gpus": held.get("GPU", 0),
            "label_selector": launch.label_selector or None,
        }
        self._judge: Any = None
        if after_epoch is not None:
            here = ray.get_runtime_context().get_node_id()
            actor: Any = _Judge
            self._judge = actor.options(label_selector={"ray.io/node-id": here}).remote(after_epoch)
        self._running: dict[Any, RunTask] = {}

    @property
    def capacity(self) -> int:
        """Runs that hold the resources they train on wait in Ray's queue, where an autoscaler sees them. Drivers of
        workers hold nothing; only as many start as the cluster has room for their workers now."""
        if self._parallel or self._launch.runner == "inline":
            return self._parallel or sys.maxsize
        return num_runs(self._launch)

    def start(self, task: RunTask) -> None:
        """Submit a run to the cluster."""
        remote_run = _run.options(name=task.settings.run.name, **self._options)  # pyright: ignore[reportFunctionMemberAccess]
        self._running[remote_run.remote(task.settings.model_dump_json(), self._judge)] = task

    def wait(self, timeout_s: float | None = None) -> TaskResult | None:
        """Return the next run that ends; a run whose process died is a run that failed."""
        ended, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        if not ended:
            return None
        task = self._running.pop(ended[0])
        try:
            return TaskResult(task, ray.get(ended[0]))
        except RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            failure = f"{type(error).__name__}: {lines[0].strip() if lines else 'without a message'}"
            return TaskResult(task, Outcome(failure))

    def end(self, grace_s: float) -> None:
        """Stop all runs with a checkpoint, and wait for them for at most so many seconds."""
        for ref in self._running:
            ray.cancel(ref)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=grace_s)


def num_runs(launch: LaunchConfig) -> int:
    """How many runs with workers of their own the cluster has room for, as the cluster is now; at least one."""
    each, total = worker_resources(launch), ray.cluster_resources()
    fitting = (total.get(name, 0) / (amount * launch.min_workers) for name, amount in each.items())
    return max(1, min(int(num + 1e-6) for num in fitting))


@ray.remote(num_cpus=0)
class _Judge:
    """Calls `after_epoch` for the runs of all tasks, one call at a time."""

    def __init__(self, after_epoch: AfterEpoch) -> None:
        self._after_epoch = after_epoch

    def after_epoch(self, url: str, event: EpochEnded) -> StopReason | None:
        """Why a run has to stop, or None."""
        return self._after_epoch(url, event)


@ray.remote(max_retries=0)
def _run(settings_json: str, judge: Any) -> Outcome:
    # Tasks that start at once wait for cores.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")

    def after_epoch(url: str, event: EpochEnded) -> StopReason | None:
        return ray.get(judge.after_epoch.remote(url, event))

    return execute(Settings.model_validate_json(settings_json), None if judge is None else after_epoch)
