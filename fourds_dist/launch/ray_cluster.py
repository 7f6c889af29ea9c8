"""A Ray cluster: joined or started, and room in it for a run's workers."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# Before Ray is imported: it reads these once. Under `uv run`, workers would each sync an environment.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
# How often the controller takes up a report.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

import ray
from ray.util.placement_group import placement_group, remove_placement_group

from fourds_dist.launch.leftovers import end_marked, mark, watch
from fourds_dist.launch.settings import LaunchConfig
from fourds_dist.settings import Settings
from fourds_dist.training.run_folder import RunFolder


class LaunchError(RuntimeError):
    """The cluster cannot run this job, or a stage failed for good; the message is for the user."""


DRIVER = "FOURDS_RAY_DRIVER"
"""Variable of the environment in all processes of a cluster that a driver has started for itself."""
START_TRIES = 3
"""Ray gives its own start 30 seconds, which a busy machine may not keep."""
GRACE_S = 4.0
"""Seconds after a killed driver in which its cluster's processes leave by themselves; some of Ray's agents do not."""


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[bool]:
    """Join the cluster that the environment names, or start one on this machine, as long as the context lasts.

    Yields whether the cluster is our own; all its processes go with this one, also when this one is killed.

    Args:
        num_cpus: of a cluster of our own; None: the machine's.

    Raises:
        Exception: of whatever kind, where Ray does not start.
    """
    value, watcher = _start(num_cpus), None
    try:
        is_ours = bool(ray._private.worker._global_node.is_head())  # pyright: ignore
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
    """`ray.init`, once more where Ray was too slow for its own limit; gives the mark of what it has started."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of the processes of a start that failed
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
                took_too_long = type(error) is Exception  # nothing else of Ray's is of that very type
                if not took_too_long or not tries_left:
                    raise
            else:
                return value
            gc.collect()
    raise AssertionError


@contextmanager
def cluster(settings: Settings) -> Iterator[bool]:
    """Join the cluster that the environment names (`ray start`, `ray job submit`), else start a local one.

    Yields whether the cluster is our own, which ends with the context.
    """
    with ExitStack() as ending:
        is_ours = False
        if not ray.is_initialized():
            try:
                is_ours = ending.enter_context(connected())
            except Exception as error:  # Ray raises bare Exceptions too
                raise LaunchError(
                    f"Ray does not start: {' '.join(str(error).split())[:300]}. Where a cluster should have been "
                    "joined, see that it is up and that its token is known here (RAY_AUTH_MODE, RAY_AUTH_TOKEN); "
                    "RAY_ADDRESS=local starts one of this machine's own; `fourds doctor` tries it alone"
                ) from error
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if RunFolder(settings.run_url).is_local and len(nodes) > 1:
            print(
                f"note: {settings.run_url} has to be one folder shared by all {len(nodes)} nodes, or a store's URL"
            )
        yield is_ours


def worker_resources(launch: LaunchConfig) -> dict[str, float]:
    """What each worker holds, by Ray's names."""
    use_gpu = launch.use_gpu
    if use_gpu is None:
        use_gpu = launch.accelerator_type is not None or ray.cluster_resources().get("GPU", 0) > 0
    return {"CPU": launch.cpus_per_worker} | ({"GPU": launch.gpus_per_worker} if use_gpu else {})


def await_workers(launch: LaunchConfig, wait_s: float | None) -> None:
    """Wait until all workers would fit, as Ray Train will place them; an autoscaler sees the demand meanwhile.

    Args:
        wait_s: how long; None: for ever.

    Raises:
        LaunchError: no room within that time.
    """
    resources = worker_resources(launch)
    if resources.get("GPU", 1) < 1 and launch.max_workers > 1:
        raise LaunchError(
            f"launch.gpus_per_worker={launch.gpus_per_worker:g} with several workers: NCCL wants a GPU for each; set "
            "launch.workers=1, or whole GPUs"
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
