"""Ranks of a process group as processes of this machine, forked from one server that has imported PyTorch once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

PRELOADED = ["torch.distributed", "torch.optim", "torchvision", "fourds_dist.stages.stages"]
"""What most of a rank's start goes to: five seconds of a core."""


def run_ranks(rank: Callable[..., None], args: tuple[Any, ...] = (), *, num_ranks: int = 2) -> None:
    """Call `rank(index, *args)` in a process for each rank, with this process's environment as it is now.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a rank raised; its traceback is the message.
        torch.multiprocessing.ProcessExitedException: a rank was killed, or left with another status than 0.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(  # pyright: ignore[reportPrivateImportUsage]
        _rank, (rank, dict(os.environ), args), nprocs=num_ranks, start_method="forkserver"
    )


def _rank(index: int, rank: Callable[..., None], environment: dict[str, str], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    rank(index, *args)
