"""A thread pool that cannot keep its process from ending.

The pools of `concurrent.futures` join their threads when the process ends, so one hanging read would hang the process
forever. Threads of this pool are daemons: `close` cancels tasks that have not begun and waits for the others up to a
timeout.
"""

from __future__ import annotations

import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


def num_cores() -> float:
    """Return the number of cores that this process may use, by its affinity and its container's CPU quota."""
    cores = float(len(os.sched_getaffinity(0)))
    for quota, period in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        with suppress(OSError, ValueError, IndexError):
            words = Path(quota).read_text().split() + (Path(period).read_text().split() if period else [])
            if float(words[0]) > 0:  # "max" and -1 mean no limit; float("max") raises ValueError
                cores = min(cores, float(words[0]) / float(words[1]))
    return cores


class Pool:
    """Runs functions in threads, in the order of submission.

    Args:
        num_threads: number of threads; all start at once.
        name: prefix of the threads' names.
        begin: function that each thread calls first; the constructor returns when all threads have called it.
    """

    def __init__(self, num_threads: int, name: str, begin: Callable[[], None] = lambda: None) -> None:
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        ready = threading.Barrier(num_threads + 1)
        self._threads = [
            threading.Thread(target=_work, args=(self._tasks, begin, ready), name=f"{name}-{i}", daemon=True)
            for i in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()
        ready.wait()
        # Also at exit: a thread that still computes while Python shuts down may crash the process.
        self._finish = weakref.finalize(self, _finish, self._tasks, self._threads)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call the function in one of the threads; a closed pool cancels the future at once."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
            else:
                self._tasks.put((future, function, arguments))
        return future

    def close(self, timeout_s: float = 5.0) -> None:
        """Cancel tasks that have not begun and end the threads; wait for busy threads up to `timeout_s`."""
        with self._lock:
            self._closed = True
        self._finish.atexit = False
        _finish(self._tasks, self._threads, timeout_s)


def _work(
    tasks: queue.SimpleQueue[_Task | None], begin: Callable[[], None], ready: threading.Barrier
) -> None:
    begin()
    ready.wait()
    while (task := tasks.get()) is not None:
        _run(*task)
        del task  # otherwise the task's images stay in memory until the next task


def _run(future: Future[Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*arguments)
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _finish(
    tasks: queue.SimpleQueue[_Task | None], threads: list[threading.Thread], timeout_s: float = 2.0
) -> None:
    while True:
        try:
            task = tasks.get_nowait()
        except queue.Empty:
            break
        if task is not None:
            task[0].cancel()
    for _ in threads:
        tasks.put(None)
    until = time.monotonic() + timeout_s
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
