"""Processes that leave when the process that started them is gone, whatever ended that process, SIGKILL included.

`bound(command)` starts any program so that the kernel kills it (PR_SET_PDEATHSIG of Linux). `leave_with_parent` watches
from inside a Python process, which then has some seconds to put its work in order. `die_with_parent` asks the kernel to
kill this process.

The kernel looks at the thread that started the process, not at its whole process: use `bound` and `die_with_parent`
where that thread lives as long as its process does, and `leave_with_parent` elsewhere. This module is imported before
all others by processes that are just starting, and so imports the standard library alone.
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
"""Seconds between two looks at whether the parent is still there."""
GRACE_S = 7.0
"""Seconds that a process has to write a checkpoint once its parent is gone; all in all it leaves within ten."""

_PR_SET_PDEATHSIG = 1


def bound(command: Sequence[str]) -> list[str]:
    """The command of a process that the kernel kills as soon as the thread that starts the process is gone.

    The process keeps the id that `subprocess.Popen` tells, and may lead a session of its own. Outside Linux the command
    runs as it is.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it is gone, which belonged to process `parent`."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # gone before the kernel was asked
            os._exit(1)


def leave_with_parent(parent: int, put_in_order: Callable[[float], object] | None = None) -> None:
    """Watch process `parent`, which started this one, in a thread; leave once it is gone.

    Args:
        put_in_order: called after this process has sent SIGTERM to itself, with the seconds that are left; this process
            ends when the call comes back, and at the latest after `GRACE_S`. None: it ends at once.
    """
    threading.Thread(target=_watch, args=(parent, put_in_order), name="parent", daemon=True).start()


def _watch(parent: int, put_in_order: Callable[[float], object] | None) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    if put_in_order is not None:
        signal.alarm(math.ceil(GRACE_S))  # the kernel ends this process where Python no longer can
        os.kill(os.getpid(), signal.SIGTERM)
        put_in_order(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
