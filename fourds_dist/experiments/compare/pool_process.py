"""What runs inside a process of `experiments.compare.process_pool`: one run after the other.

The watch over the command comes before the imports that take seconds, and so this module imports nothing else.
"""

from __future__ import annotations

import os
import threading
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from fourds_dist.processes.parent_death import leave_with_parent

_is_idle = threading.Event()
"""No run is going on."""
_is_idle.set()


def begin(gpu: str | None, num_threads: int, parent: int) -> None:
    """Before CUDA is asked for anything: which GPU, and how many threads, this process is to use.

    Args:
        parent: process id of the command. When it is gone, a run leaves with a checkpoint, an idle process at once.
    """
    os.setsid()  # Ctrl-C goes to the command alone, which asks to stop by SIGTERM
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu or ""
    leave_with_parent(parent, _is_idle.wait)
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(num_threads)


def run(settings_json: str) -> str | None:
    """Do a run; why it is not done, if it is not."""
    _is_idle.clear()
    try:
        from fourds_dist.experiments.compare.executor import try_run_json

        # What it prints is in its folder too.
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return try_run_json(settings_json)
    finally:
        _give_memory_back()
        _is_idle.set()


def _give_memory_back() -> None:
    """What PyTorch holds of the GPU and no tensor uses; other processes want it."""
    import gc

    import torch

    gc.collect()
    with suppress(RuntimeError):  # of a GPU that no longer answers; the process is replaced
        torch.cuda.empty_cache()
