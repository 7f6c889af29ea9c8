"""Cells by processes of this machine, without Ray: each serves many cells, one after the other, on one GPU.

What a process costs to start, some ten seconds on a GPU, is so paid once and not in every cell. What runs inside them
stands in `cell_process`.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker

from fourds_dist.experiments.compare import pool_process as cell_process
from fourds_dist.experiments.compare.executor import RunTask, TaskResult, failure_text
from fourds_dist.stages.launch_config import LaunchConfig


class ProcessPool:
    """This machine's cores and GPUs, which must be there alone for it.

    Args:
        launch: what a cell holds.
        parallel: cells at once; None: as many as there is room for.
    """

    def __init__(self, launch: LaunchConfig, parallel: int | None) -> None:
        gpus = gpus_here() if launch.use_gpu is not False else []
        num_cores = os.cpu_count() or 1
        fitting = num_cores / launch.cpus_per_worker
        if gpus:
            fitting = min(fitting, len(gpus) / launch.gpus_per_worker)
        self.capacity = parallel or max(1, int(fitting))
        threads = max(1, num_cores // self.capacity)
        self._idle = [
            _Process(gpus[number % len(gpus)] if gpus else None, threads) for number in range(self.capacity)
        ]
        self._running: dict[Future[str | None], tuple[RunTask, _Process]] = {}

    def start(self, task: RunTask) -> None:
        """Hand a run to a process."""
        process = self._idle.pop()
        self._running[process.do(task.settings.model_dump_json())] = task, process

    def wait(self) -> TaskResult:
        """The next run that ends. After a failure its process is replaced: a GPU may no longer answer there."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = next(iter(done))
        task, process = self._running.pop(future)
        try:
            failure = future.result()
        except BrokenProcessPool:
            failure = "its process died"
        except Exception as error:
            failure = failure_text(error)
        if failure is not None:
            process.replace()
        self._idle.append(process)
        return TaskResult(task, failure)

    def end(self, grace_s: float) -> None:
        """Have all runs leave with a checkpoint, and wait for them so long."""
        for child in multiprocessing.active_children():
            child.terminate()
        wait(self._running, timeout=grace_s)

    def close(self) -> None:
        """End the processes."""
        self.end(0.0)
        for process in (*self._idle, *(process for _, process in self._running.values())):
            process.close()


class _Process:
    """One process, and the next one after it."""

    def __init__(self, gpu: str | None, num_threads: int) -> None:
        self._surroundings = (gpu, num_threads, os.getpid())
        self._pool = self._new()

    def do(self, settings_json: str) -> Future[str | None]:
        with _interrupts_held_back():
            try:
                return self._pool.submit(cell_process.run, settings_json)
            except BrokenProcessPool:  # it died while it had nothing to do
                self.replace()
                return self._pool.submit(cell_process.run, settings_json)

    def replace(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)  # the process may hang with its GPU
        self._pool = self._new()

    def close(self) -> None:
        """End the process and wait for it. The interpreter would wait too, but it may write to the pool's pipe while
        the pool's thread closes the pipe."""
        self._pool.shutdown(cancel_futures=True)

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, initializer=cell_process.begin, initargs=self._surroundings)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C comes after the block, to this process alone: one that is started inside is deaf to it from the first."""
    resource_tracker.ensure_running()  # which, as it starts, lets SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def gpus_here() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    return names if torch.cuda.is_available() else []
