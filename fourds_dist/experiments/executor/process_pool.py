"""Processes of this machine, without Ray: each executes many runs, one after the other, on one GPU.

Starting a process takes some ten seconds on a GPU; the pool spends them once for each process and not for each run.
`pool_process` is what runs inside of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker

from fourds_dist.experiments.executor import pool_process
from fourds_dist.experiments.executor.base import AfterEpoch, Outcome, RunTask, TaskResult, failure_text
from fourds_dist.stages.launch_config import LaunchConfig


class ProcessPool:
    """The cores and GPUs of this machine, all of which the pool uses.

    Args:
        launch: the resources of a run.
        parallel: runs at once; None: as many as there is room for.
        after_epoch: called, in this process, at the end of each epoch of each run, while `wait` or `end` waits.
    """

    def __init__(
        self, launch: LaunchConfig, parallel: int | None, after_epoch: AfterEpoch | None = None
    ) -> None:
        gpus = gpus_here() if launch.use_gpu is not False else []
        num_cores = os.cpu_count() or 1
        fitting = num_cores / launch.cpus_per_worker
        if gpus:
            fitting = min(fitting, len(gpus) / launch.gpus_per_worker)
        self.capacity = parallel or max(1, int(fitting))
        threads = max(1, num_cores // self.capacity)
        self._after_epoch = after_epoch
        asks = after_epoch is not None
        self._idle = [
            _Process(gpus[number % len(gpus)] if gpus else None, threads, asks=asks)
            for number in range(self.capacity)
        ]
        self._running: dict[Future[Outcome], tuple[RunTask, _Process]] = {}
        self._wake_up, self._ended = multiprocessing.Pipe(duplex=False)

    def start(self, task: RunTask) -> None:
        """Give a run to an idle process."""
        process = self._idle.pop()
        future = process.do(task.settings.model_dump_json())
        self._running[future] = task, process
        future.add_done_callback(self._signal_end)

    def wait(self, timeout_s: float | None = None) -> TaskResult | None:
        """Return the next run that ends, and answer reports meanwhile. A process whose run failed is replaced: its GPU
        may no longer answer."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not (done := wait(self._running, timeout=0, return_when=FIRST_COMPLETED).done):
            if not self._answer_reports(None if until_s is None else max(0.0, until_s - time.monotonic())):
                return None
        return self._result(next(iter(done)))

    def end(self, grace_s: float) -> None:
        """Stop all runs with a checkpoint, and wait for them for at most so many seconds."""
        for child in multiprocessing.active_children():
            child.terminate()
        until_s = time.monotonic() + grace_s
        while wait(self._running, timeout=0).not_done and (left_s := until_s - time.monotonic()) > 0:
            self._answer_reports(left_s)

    def close(self) -> None:
        """End the processes."""
        self.end(0.0)
        for process in (*self._idle, *(process for _, process in self._running.values())):
            process.close()

    def _signal_end(self, future: Future[Outcome]) -> None:
        with suppress(OSError):  # nobody waits any more
            self._ended.send_bytes(b"end")

    def _drain(self) -> None:
        """Take all signals; one that comes later wakes `wait` for nothing, which does no harm."""
        while self._wake_up.poll():
            self._wake_up.recv_bytes()

    def _result(self, future: Future[Outcome]) -> TaskResult:
        self._drain()
        task, process = self._running.pop(future)
        try:
            outcome = future.result()
        except BrokenProcessPool:
            outcome = Outcome("its process died")
        except Exception as error:
            outcome = Outcome(failure_text(error))
        if outcome.failure is not None:
            process.replace()
        self._idle.append(process)
        return TaskResult(task, outcome)

    def _answer_reports(self, timeout_s: float | None) -> bool:
        """Wait until a run ends or reports an epoch; answer the report. False: neither happened in time."""
        reports = [process.reports for _, process in self._running.values() if process.reports is not None]
        ready = connection.wait([self._wake_up, *reports], timeout_s)
        for source in ready:
            assert isinstance(source, connection.Connection)
            if source is self._wake_up:
                self._drain()
                continue
            assert self._after_epoch is not None
            try:
                url, event = source.recv()
            except (EOFError, OSError):  # the process died, which its future tells
                continue
            reason = None
            try:
                reason = self._after_epoch(url, event)
            finally:  # also after Ctrl-C: the process waits for the answer before it leaves
                with suppress(OSError):
                    source.send(reason)
        return bool(ready)


class _Process:
    """One process, and the next one after it.

    Args:
        asks: whether the process reports the ends of epochs on `reports`, and waits for an answer to each.
    """

    def __init__(self, gpu: str | None, num_threads: int, *, asks: bool = False) -> None:
        self._surroundings = (gpu, num_threads, os.getpid())
        self._asks = asks
        self.reports: connection.Connection | None = None
        self._pool = self._new()

    def do(self, settings_json: str) -> Future[Outcome]:
        with _interrupts_held_back():
            try:
                return self._pool.submit(pool_process.run, settings_json)
            except BrokenProcessPool:  # the process died while idle
                self.replace()
                return self._pool.submit(pool_process.run, settings_json)

    def replace(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)  # the process may hang with its GPU
        self._pool = self._new()

    def close(self) -> None:
        """End the process and wait for it. The interpreter would wait too, but it may write to the pool's pipe while
        the pool's thread closes the pipe."""
        self._pool.shutdown(cancel_futures=True)

    def _new(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        theirs = None
        if self._asks:
            self.reports, theirs = context.Pipe()
        return ProcessPoolExecutor(
            1, context, initializer=pool_process.begin, initargs=(*self._surroundings, theirs)
        )


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Delay Ctrl-C until the block ends; a process that is started inside ignores Ctrl-C from the beginning."""
    resource_tracker.ensure_running()  # its start unblocks SIGINT
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
