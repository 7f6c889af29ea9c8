"""What runs inside a process of `process_pool`: one run after the other.

The watch over the parent process starts before the imports that take seconds, so this module imports nothing else.
"""

from __future__ import annotations

import os
import threading
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from fourds_dist.processes.parent_death import leave_with_parent

if TYPE_CHECKING:
    from fourds_dist.experiments.executor.base import Outcome
    from fourds_dist.runs.events import EpochEnded
    from fourds_dist.runs.failures import StopReason

_is_idle = threading.Event()
"""Set while the process executes no run."""
_is_idle.set()

_reports: list[Connection] = []
"""The end of a pipe on which epochs are reported to the parent, which answers each; empty where nobody asks."""


def begin(gpu: str | None, num_threads: int, parent: int, reports: Connection | None = None) -> None:
    """Set the GPU and the number of threads of this process, before CUDA is initialised.

    Args:
        parent: process id of the command. Once the parent is gone, a run leaves with a checkpoint, and an idle process
            ends at once.
        reports: where the ends of epochs are reported; None: nowhere.
    """
    os.setsid()  # Ctrl-C reaches the command alone, which stops this process by SIGTERM
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""
    leave_with_parent(parent, _is_idle.wait)
    _reports[:] = [] if reports is None else [reports]
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(num_threads)


def run(settings_json: str) -> Outcome:
    """Execute a run."""
    _is_idle.clear()
    try:
        from fourds_dist.experiments.executor.base import execute
        from fourds_dist.stages.settings import Settings

        # The folder of the run holds what the run prints.
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return execute(Settings.model_validate_json(settings_json), _after_epoch if _reports else None)
    finally:
        _release_memory()
        _is_idle.set()


def _after_epoch(url: str, event: EpochEnded) -> StopReason | None:
    try:
        _reports[0].send((url, event))
        return _reports[0].recv()
    except (EOFError, OSError):  # the parent is gone, and the watch over it stops the run
        return None


def _release_memory() -> None:
    """Return the GPU memory that PyTorch caches, for other processes."""
    import gc

    import torch

    gc.collect()
    with suppress(RuntimeError):  # of a GPU that no longer answers; the parent replaces this process
        torch.cuda.empty_cache()
