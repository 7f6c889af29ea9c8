"""Threads that cannot keep a process from ending.

The pools of `concurrent.futures` join their threads when the process ends, so one read that hangs would hang it for
ever. Here threads are daemons: `close` drops what has not begun, and waits for the rest no longer than it is told.
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
    """Cores that this process may use: by its affinity, and by the share of time that its container is given."""
    cores = float(len(os.sched_getaffinity(0)))
    for quota, period in (
        ("/sys/fs/cgroup/cpu.max", None),
        ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
    ):
        with suppress(OSError, ValueError, IndexError):
            words = Path(quota).read_text().split() + (Path(period).read_text().split() if period else [])
            if float(words[0]) > 0:  # "max" is no number, -1 no limit
                cores = min(cores, float(words[0]) / float(words[1]))
    return cores


class Pool:
    """Runs functions in threads, first come, first served.

    Args:
        num_threads: all of them started at once.
        name: of the threads.
        begin: called first in each thread; the constructor returns when all have done so.
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
        # Also at the end of the process: a thread that still computes while Python goes down may crash it.
        self._finish = weakref.finalize(self, _finish, self._tasks, self._threads)

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Call the function in one of the threads; cancelled at once where the pool is closed."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
            else:
                self._tasks.put((future, function, arguments))
        return future

    def close(self, patience_s: float = 5.0) -> None:
        """Cancel what has not begun and end the threads; those busy for longer than `patience_s` end by themselves."""
        with self._lock:
            self._closed = True
        self._finish.atexit = False
        _finish(self._tasks, self._threads, patience_s)


def _work(
    tasks: queue.SimpleQueue[_Task | None], begin: Callable[[], None], ready: threading.Barrier
) -> None:
    begin()
    ready.wait()
    while (task := tasks.get()) is not None:
        _run(*task)
        del task  # or its images would be held until the next one comes


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
    tasks: queue.SimpleQueue[_Task | None], threads: list[threading.Thread], patience_s: float = 2.0
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
    until = time.monotonic() + patience_s
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
