"""All undocumented names of Ray that this package uses; `test_ray_private` checks them when Ray is upgraded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from ray._private import worker
from ray.train.v2._internal.exceptions import (
    CollectiveTimeoutError,
    UserExceptionWithTraceback,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)

from fourds_dist.runs.run_folder import RunFolder

__all__ = [
    "CHECKPOINT_LIST",
    "WORKER_TITLE",
    "CollectiveTimeoutError",
    "UserExceptionWithTraceback",
    "WorkerHealthCheckFailedError",
    "WorkerHealthCheckTimeoutError",
    "listed_checkpoints",
    "started_this_cluster",
    "training_workers",
    "without_warning",
]

CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"
"""Ray Train's list of the checkpoints of a stage, in the stage's folder."""
WORKER_TITLE = "RayTrainWorker"
"""Part of the command line of Ray Train's worker processes: the name of their actor's class."""


def listed_checkpoints(stage: RunFolder) -> list[str]:
    """Return the names of the checkpoints in Ray Train's list.

    Raises:
        ValueError: the list is truncated or corrupt.
    """
    if not stage.exists(CHECKPOINT_LIST):
        return []
    try:
        return [
            entry["checkpoint_dir_name"] for entry in stage.read_json(CHECKPOINT_LIST)["checkpoint_results"]
        ]
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{stage.path(CHECKPOINT_LIST)} is truncated or corrupt") from error


def training_workers(pid: int) -> list[psutil.Process]:
    """Return Ray Train's workers below a process; one that leaves meanwhile hides no other."""
    found: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if WORKER_TITLE in " ".join(process.cmdline()):
                    found.append(process)
    return found


def started_this_cluster() -> bool:
    """Return whether `ray.init` started the cluster of this process."""
    return bool(worker._global_node.is_head())  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def without_warning(text: str) -> Iterator[None]:
    """Drop output of Ray's nodes that contains `text`, while the context lasts."""
    show = worker.print_to_stdstream

    def show_others(data: dict[str, Any], *args: Any, **more: Any) -> None:
        if not any(text in line for line in data["lines"]):
            show(data, *args, **more)

    worker.print_to_stdstream = show_others
    try:
        yield
    finally:
        worker.print_to_stdstream = show
