"""Resources of a run's workers in a Ray cluster, and a cluster that has no room for them."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

from fourds_dist.launch.ray import cluster
from fourds_dist.launch.ray.cluster import DRIVER, START_TRIES, LaunchError, await_workers, worker_resources
from fourds_dist.stages.launch_config import LaunchConfig


@pytest.mark.ray
def test_a_type_of_gpu_that_no_node_has_is_named(local_ray: None) -> None:
    launch = LaunchConfig(workers=2, accelerator_type="H100")
    with pytest.raises(
        LaunchError, match=r"1 GPU each on nodes labelled ray\.io/accelerator-type=H100 after 0 s"
    ):
        await_workers(launch, wait_s=0)
    with pytest.raises(ValidationError, match="use_gpu is false"):
        LaunchConfig(accelerator_type="H100", use_gpu=False)


@pytest.mark.parametrize(
    ("launch", "resources"),
    [
        (LaunchConfig(use_gpu=False, cpus_per_worker=0.5), {"CPU": 0.5}),
        (LaunchConfig(use_gpu=True, gpus_per_worker=0.25), {"CPU": 1.0, "GPU": 0.25}),
        (LaunchConfig(accelerator_type="L4"), {"CPU": 1.0, "GPU": 1.0}),
    ],
)
def test_resources_of_a_worker(launch: LaunchConfig, resources: dict[str, float]) -> None:
    assert worker_resources(launch) == resources


def test_a_part_of_a_gpu_is_for_one_worker() -> None:
    launch = LaunchConfig(workers=(1, 2), use_gpu=True, gpus_per_worker=0.5)
    with pytest.raises(
        LaunchError, match=r"launch\.gpus_per_worker=0\.5 with several workers.*launch\.workers=1"
    ):
        await_workers(launch, wait_s=0)


def test_a_demand_in_words() -> None:
    launch = LaunchConfig(workers=(2, 4), accelerator_type="H100", cpus_per_worker=1.5)
    assert cluster._demand(launch, worker_resources(launch)) == (
        "2 workers with 1.5 CPU and 1 GPU each on nodes labelled ray.io/accelerator-type=H100"
    )
    assert cluster._demand(LaunchConfig(use_gpu=False), {"CPU": 1.0}) == "1 worker with 1 CPU each"


@pytest.mark.parametrize(
    ("error", "tries"), [(Exception("timed out during startup"), START_TRIES), (RuntimeError("no token"), 1)]
)
def test_only_a_start_that_took_too_long_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    given: list[str] = []

    def init(**_: object) -> None:
        given.append(os.environ[DRIVER])
        raise error

    monkeypatch.setattr(cluster.ray, "init", init)
    monkeypatch.setattr(cluster, "end_marked", lambda *_: None)
    with pytest.raises(type(error), match=str(error)):
        cluster._start(None)
    assert len(set(given)) == len(given) == tries  # each try marks its processes anew
    assert DRIVER not in os.environ
