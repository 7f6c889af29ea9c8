"""Cells as tasks: what waits in Ray's queue, and for which GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.experiments.executor.base import RunTask
from fourds_dist.stages.launch_config import LaunchConfig
from tests.experiments.compare.small import comparison

pytestmark = pytest.mark.ray


def test_cells_that_hold_what_they_train_on_all_wait_in_ray_s_queue(local_ray: None) -> None:
    from fourds_dist.experiments.executor.ray_tasks import RayTasks

    assert RayTasks(LaunchConfig(runner="inline"), None).capacity > 1000
    assert RayTasks(LaunchConfig(runner="inline"), 3).capacity == 3
    assert RayTasks(LaunchConfig(workers=2), None).capacity == 2  # of four cores


def test_cells_go_to_the_gpu_that_is_asked_for(local_ray: None, tmp_path: Path) -> None:
    import ray

    from fourds_dist.experiments.executor.ray_tasks import RayTasks

    executor = RayTasks(LaunchConfig(runner="inline", accelerator_type="H100"), None)
    executor._options["num_gpus"] = 0  # no node here has any
    executor.start(RunTask("a cell", next(iter(comparison(tmp_path, {"a": "a", "b": "b"}).runs.values()))))
    done, _ = ray.wait(list(executor._running), timeout=3)
    assert not done
    executor.end(1.0)
