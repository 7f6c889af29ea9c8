"""What fits the launcher of ranks that started this process, and leaving when torchrun is gone."""

from __future__ import annotations

import os
import sys
import time

from fourds_dist.config import ConfigError, Draft
from fourds_dist.launch.parent_death import leave_with_parent
from fourds_dist.launch.settings import LaunchConfig
from fourds_dist.training.rank_variables import TORCHRUN, group_size

TASKS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}
"""Variable with the number of processes that a launcher started, which sets none of GROUP -> the launcher."""


def _refuse_tasks() -> None:
    """Refuse to be one of several processes that srun or mpirun started and that know nothing of each other.

    Ray's workers and drivers may inherit the variables of the srun that started their cluster, and are not concerned.

    Raises:
        ConfigError: with what to do instead.
    """
    for name, launcher in TASKS.items():
        if (num := os.environ.get(name, "")).isdecimal() and int(num) > 1:
            raise ConfigError(
                f"{launcher} started {num} processes ({name}={num}), each of which would train a run of its own in the "
                f"same folder; {_one_a_node(launcher)}"
            )


def _one_a_node(launcher: str) -> str:
    alone = {"srun": "srun -n 1", "mpirun": "mpirun -n 1"}[launcher]
    return (
        f"start one process (`{alone} ...`), or for several ranks one torchrun on each node, and let that start "
        "`-m fourds_dist.train ... launch.runner=inline`"
    )


def refuse_launcher(what: str) -> None:
    """Refuse a launcher of ranks for a command that starts its own workers.

    Args:
        what: starts them, e.g. `launch.runner=ray`.

    Raises:
        ConfigError: with what to do instead.
    """
    size = group_size()
    if TORCHRUN in os.environ or (size or 1) > 1:
        raise ConfigError(
            f"{what} starts its own workers, and cannot run as one of {size} ranks that torchrun (or a launcher with "
            f"its variables) has started: with torchrun give launch.runner=inline to fourds_dist.train, or run the "
            f"command once, without torchrun (launch.workers={size} asks for as many workers)"
        )


def fitted(launch: LaunchConfig, given: Draft, file: Draft) -> LaunchConfig:
    """The launch section that holds for this process and its launcher, checked before anything is done.

    With runner=inline the launcher alone decides how many ranks there are. A number of workers that a file gives for
    Ray is replaced by that number, which is told; any other number that differs is refused.

    Args:
        given: the configuration as given, of which `launch` was built.
        file: the same without what was given over the file.

    Raises:
        ConfigError: torchrun with launch.runner=ray, launch.workers that runner=inline cannot have, or several
            processes that each would train alone.
    """
    if launch.runner == "ray":
        refuse_launcher("launch.runner=ray")
        return launch
    if group_size() is None:
        _refuse_tasks()
    size = group_size() or 1
    if launch.workers == 1 or launch.min_workers <= size <= launch.max_workers:
        return launch
    key = "launch.workers"
    of_file = file.tree.get("launch") or {}
    is_for_ray = (
        key in file.origin and given.origin[key] == file.origin[key] and of_file.get("runner") != "inline"
    )
    if is_for_ray:
        if os.environ.get("RANK", "0") == "0":
            print(
                f"note: {file.origin[key]} gives {key}={launch.workers} for launch.runner=ray; launch.runner=inline "
                f"trains in {'this process alone' if size == 1 else f'the {size} processes of torchrun'}",
                file=sys.stderr,
            )
        return launch.model_copy(update={"workers": size})
    most = launch.max_workers
    raise ConfigError(
        f"{key}={launch.workers}: launch.runner=inline trains in "
        f"{'this process alone' if size == 1 else f'the {size} processes of torchrun'}. Start {most} processes by "
        f"`torchrun --nproc-per-node {most} -m fourds_dist.train ...`, set {key}={size}, or set launch.runner=ray"
    )


def leave_with_torchrun() -> None:
    """Have this rank leave, with a checkpoint if there is time, when torchrun itself was killed.

    torchrun puts ranks into sessions of their own, where nothing else ends them.
    """
    if TORCHRUN in os.environ:
        leave_with_parent(os.getppid(), time.sleep)
