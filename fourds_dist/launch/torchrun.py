"""Launchers of ranks (torchrun, srun, mpirun): fit the launch section to them, or refuse them."""

from __future__ import annotations

import os
import sys
import time

from fourds_dist.config.loading import Draft
from fourds_dist.config.section import ConfigError
from fourds_dist.processes.parent_death import leave_with_parent
from fourds_dist.stages.launch_config import LaunchConfig
from fourds_dist.training.distributed.rank_variables import TORCHRUN, group_size

TASKS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "MV2_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}
"""Variable with the number of processes -> launcher, for launchers that set none of torchrun's variables."""


def _refuse_tasks() -> None:
    """Refuse several processes of srun or mpirun, which would not form a process group.

    Callers with launch.runner=ray skip this check, since Ray's processes may inherit variables of srun.

    Raises:
        ConfigError: there are several processes.
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
        f"start one process (`{alone} ...`), or for several ranks one torchrun per node, which starts "
        "`-m fourds_dist.train ... launch.runner=inline`"
    )


def refuse_launcher(what: str) -> None:
    """Refuse a launcher of ranks for a command that starts its own workers.

    Args:
        what: the thing that starts workers, for the message, e.g. `launch.runner=ray`.

    Raises:
        ConfigError: a launcher started this process.
    """
    size = group_size()
    if TORCHRUN in os.environ or (size or 1) > 1:
        raise ConfigError(
            f"{what} starts its own workers, and cannot run as one of {size} ranks that torchrun (or a launcher with "
            f"its variables) has started: with torchrun give launch.runner=inline to fourds_dist.train, or run the "
            f"command once, without torchrun (launch.workers={size} asks for as many workers)"
        )


def fit_to_launcher(launch: LaunchConfig, given: Draft, file: Draft) -> LaunchConfig:
    """Return the launch section for this process and its launcher.

    With runner=inline the launcher decides the number of ranks. That number replaces launch.workers of a file for
    runner=ray, with a note on stderr; any other launch.workers that differs is refused.

    Args:
        given: the configuration as given, from which `launch` was built.
        file: `given` without overrides of the file.

    Raises:
        ConfigError: torchrun with launch.runner=ray, launch.workers that differs from the number of ranks, or several
            processes that would each train alone.
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
    """Make this rank end after torchrun was killed, with a checkpoint if there is time.

    torchrun starts ranks in separate sessions, so that they do not end with torchrun.
    """
    if TORCHRUN in os.environ:
        leave_with_parent(os.getppid(), time.sleep)
