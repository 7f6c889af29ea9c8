"""Ray clusters: join or start one, and wait for resources for a run's workers."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Set before the import of Ray, which reads these once. Under `uv run`, each worker would sync an environment.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
# Interval at which the controller processes reports.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from fourds_dist.io.error_text import one_line
from fourds_dist.launch.ray.ray_private import started_this_cluster
from fourds_dist.processes.leftovers import end_marked, mark, watch
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.stages.settings import Settings


class LaunchError(RuntimeError):
    """The cluster cannot run this job, or a stage failed after all retries."""


DRIVER = "FOURDS_RAY_DRIVER"
"""Environment variable that marks all processes of a cluster that a driver has started."""
START_TRIES = 3
"""Attempts to start Ray; Ray limits its start to 30 seconds, which is too short on a busy machine."""
GRACE_S = 4.0
"""Seconds after the death of a driver until the remaining processes of its cluster are killed."""


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[bool]:
    """Join the cluster that the environment names, or start a local one, while the context lasts.

    Yields whether the cluster is local. Its processes end with this process, also after SIGKILL of this process.

    Args:
        num_cpus: CPUs of a local cluster; None: those of the machine.

    Raises:
        Exception: Ray does not start; its exceptions are of many classes.
    """
    value, watcher = _start(num_cpus), None
    try:
        is_ours = started_this_cluster()
        if is_ours and sys.platform == "linux":
            watcher = watch(DRIVER, value, grace_s=GRACE_S)
        yield is_ours
    finally:
        ray.shutdown()
        os.environ.pop(DRIVER, None)
        if watcher is not None:
            watcher.kill()
            watcher.wait()


def _start(num_cpus: int | None) -> str:
    """Run `ray.init`, again if the start of Ray timed out; return the mark of the started processes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # from processes of a failed start
        for tries_left in reversed(range(START_TRIES)):
            value = mark(DRIVER)
            try:
                ray.init(
                    num_cpus=num_cpus,
                    include_dashboard=False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
            except BaseException as error:
                end_marked(DRIVER, value)
                os.environ.pop(DRIVER, None)
                took_too_long = type(error) is Exception  # only Ray's timeout has exactly this type
                if not took_too_long or not tries_left:
                    raise
            else:
                return value
            gc.collect()
    raise AssertionError


@contextmanager
def cluster(settings: Settings) -> Iterator[bool]:
    """Join the cluster that the environment names (`ray start`, `ray job submit`), or start a local one.

    Yields whether the cluster is local; a local cluster ends with the context.
    """
    with ExitStack() as ending:
        is_ours = False
        if not ray.is_initialized():
            try:
                is_ours = ending.enter_context(connected())
            except Exception as error:  # Ray also raises bare Exceptions
                raise LaunchError(
                    f"Ray does not start: {one_line(error, 300)}. To join a cluster, check that it runs "
                    "and that its token is set here (RAY_AUTH_MODE, RAY_AUTH_TOKEN); RAY_ADDRESS=local starts a "
                    "local cluster; `fourds doctor` tests the start of Ray"
                ) from error
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if RunFolder(settings.run_url).is_local and len(nodes) > 1:
            print(
                f"note: {settings.run_url} must be a folder that all {len(nodes)} nodes share, or a store's URL"
            )
        yield is_ours


def worker_resources(launch: LaunchConfig) -> dict[str, float]:
    """Return the resources of a worker: Ray's name of a resource -> amount."""
    use_gpu = launch.use_gpu
    if use_gpu is None:
        use_gpu = launch.accelerator_type is not None or ray.cluster_resources().get("GPU", 0) > 0
    return {"CPU": launch.cpus_per_worker} | ({"GPU": launch.gpus_per_worker} if use_gpu else {})


def await_workers(launch: LaunchConfig, wait_s: float | None) -> None:
    """Wait for the resources of all workers, placed as Ray Train places them; an autoscaler sees the demand.

    Args:
        wait_s: how long to wait, in seconds; None: without limit.

    Raises:
        LaunchError: the resources are not free within `wait_s`.
    """
    resources = worker_resources(launch)
    if resources.get("GPU", 1) < 1 and launch.max_workers > 1:
        raise LaunchError(
            f"launch.gpus_per_worker={launch.gpus_per_worker:g} with several workers: NCCL needs one GPU per worker; "
            "set launch.workers=1, or whole GPUs"
        )
    group = placement_group(
        [resources] * launch.min_workers,
        strategy="PACK",
        bundle_label_selector=[launch.label_selector] * launch.min_workers,
    )
    try:
        fits, _ = ray.wait([group.ready()], timeout=2)
        if not fits and wait_s is None:
            fits, _ = ray.wait([group.ready()])
        elif not fits and wait_s:
            print(f"waiting up to {wait_s:.0f} s for {_demand(launch, resources)}; {_supply()}", flush=True)
            fits, _ = ray.wait([group.ready()], timeout=wait_s)
        if not fits:
            raise LaunchError(
                f"no room for {_demand(launch, resources)} after {wait_s or 0:.0f} s; {_supply()}. Lower "
                "launch.workers or launch.cpus_per_worker (fractions are allowed), add nodes, or raise launch.wait_s"
            )
    finally:
        remove_placement_group(group)


def _demand(launch: LaunchConfig, resources: dict[str, float]) -> str:
    each = " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
    where = "".join(f" on nodes labelled {key}={value}" for key, value in launch.label_selector.items())
    return f"{launch.min_workers} worker{'s' * (launch.min_workers > 1)} with {each} each{where}"


def _supply() -> str:
    total, free = ray.cluster_resources(), ray.available_resources()
    amounts = ", ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}" for name in ("CPU", "GPU"))
    return f"free in the cluster: {amounts}"
