"""Cells as tasks of a Ray cluster: each holds what it trains on, and waits in Ray's queue until that is free."""

from __future__ import annotations

import os
import sys
from typing import Any

import ray
from ray.exceptions import RayError

from fourds_dist.experiments.compare.executor import RunTask, TaskResult, try_run_json
from fourds_dist.launch.ray.cluster import worker_resources
from fourds_dist.stages.launch_config import LaunchConfig


class RayTasks:
    """The cluster that this process has joined.

    Args:
        launch: what a cell holds.
        parallel: cells at once; None: as many as there is room for, also where the cluster grows.
    """

    def __init__(self, launch: LaunchConfig, parallel: int | None) -> None:
        self._launch, self._parallel = launch, parallel
        held = worker_resources(launch) if launch.runner == "inline" else {"CPU": 0.0}
        self._options = {
            "num_cpus": held["CPU"],
            "num_gpus": held.get("GPU", 0),
            "label_selector": launch.label_selector or None,
        }
        self._running: dict[Any, RunTask] = {}

    @property
    def capacity(self) -> int:
        """Cells that hold what they train on wait in Ray's queue, where an autoscaler sees them; drivers of workers
        hold nothing, and only as many begin as have room for their workers now."""
        if self._parallel or self._launch.runner == "inline":
            return self._parallel or sys.maxsize
        each, total = worker_resources(self._launch), ray.cluster_resources()
        num_workers = self._launch.min_workers
        return max(1, min(int(total.get(name, 0) / (amount * num_workers)) for name, amount in each.items()))

    def start(self, task: RunTask) -> None:
        """Hand a run to the cluster."""
        remote_run = _run.options(name=task.settings.run.name, **self._options)  # pyright: ignore[reportFunctionMemberAccess]
        self._running[remote_run.remote(task.settings.model_dump_json())] = task

    def wait(self) -> TaskResult:
        """The next run that ends; a process that died is a run that failed."""
        (ref,), _ = ray.wait(list(self._running), num_returns=1)
        task = self._running.pop(ref)
        try:
            return TaskResult(task, ray.get(ref))
        except RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            return TaskResult(
                task, f"{type(error).__name__}: {lines[0].strip() if lines else 'no word of why'}"
            )

    def end(self, grace_s: float) -> None:
        """Have all runs leave with a checkpoint, and wait for them so long."""
        for ref in self._running:
            ray.cancel(ref)
        if self._running:
            ray.wait(list(self._running), num_returns=len(self._running), timeout=grace_s)


@ray.remote(max_retries=0)
def _run(settings_json: str) -> str | None:
    os.environ.setdefault(
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600"
    )  # cells that start at once wait for cores
    return try_run_json(settings_json)
