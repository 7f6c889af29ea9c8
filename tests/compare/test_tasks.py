"""Cells as tasks: what waits in Ray's queue, and for which GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.compare.work import Job
from fourds_dist.launch.settings import LaunchConfig
from tests.compare.small import comparison

pytestmark = pytest.mark.ray


def test_cells_that_hold_what_they_train_on_all_wait_in_ray_s_queue(local_ray: None) -> None:
    from fourds_dist.compare.tasks import Cluster

    assert Cluster(LaunchConfig(runner="inline"), None).room > 1000
    assert Cluster(LaunchConfig(runner="inline"), 3).room == 3
    assert Cluster(LaunchConfig(workers=2), None).room == 2  # of four cores


def test_cells_go_to_the_gpu_that_is_asked_for(local_ray: None, tmp_path: Path) -> None:
    import ray

    from fourds_dist.compare.tasks import Cluster

    place = Cluster(LaunchConfig(runner="inline", accelerator_type="H100"), None)
    place._options["num_gpus"] = 0  # no node here has any
    place.start(Job("a cell", next(iter(comparison(tmp_path, {"a": "a", "b": "b"}).runs.values()))))
    done, _ = ray.wait(list(place._running), timeout=3)
    assert not done
    place.end(1.0)
