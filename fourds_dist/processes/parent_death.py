"""Child processes that end when their parent ends, also after SIGKILL of the parent.

`bound(command)` makes the kernel kill any program with its parent (PR_SET_PDEATHSIG of Linux). `die_with_parent` asks
the kernel to kill this process. `leave_with_parent` polls in a thread of a Python process, which then has some seconds
to write a checkpoint.

The kernel watches the thread that started the process. Use `bound` and `die_with_parent` if that thread runs as long as
its process, and `leave_with_parent` otherwise. Starting processes import this module first, so that it imports only the
standard library.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

POLL_S = 0.5
"""Seconds between two checks whether the parent still runs."""
GRACE_S = 7.0
"""Seconds to write a checkpoint after the parent has ended; the process ends within ten seconds in total."""

_PR_SET_PDEATHSIG = 1


def bound(command: Sequence[str]) -> list[str]:
    """Return a command that the kernel kills as soon as the thread that starts the command has ended.

    The process keeps the id that `subprocess.Popen` reports, and may start a session. Outside Linux the command runs
    unchanged.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread of process `parent` that started this process has ended."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before prctl
            os._exit(1)


def leave_with_parent(parent: int, finish: Callable[[float], object] | None = None) -> None:
    """Watch the parent process in a thread, and end this process after the parent has ended.

    Args:
        finish: called with the remaining seconds, after this process has sent SIGTERM to itself. This process ends when
            `finish` returns, and after `GRACE_S` at the latest. None: this process ends at once.
    """
    threading.Thread(target=_watch, args=(parent, finish), name="parent", daemon=True).start()


def _watch(parent: int, finish: Callable[[float], object] | None) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    if finish is not None:
        signal.alarm(math.ceil(GRACE_S))  # SIGALRM ends this process if Python hangs
        os.kill(os.getpid(), signal.SIGTERM)
        finish(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
