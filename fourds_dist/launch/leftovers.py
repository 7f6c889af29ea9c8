"""A watcher that ends what a process has started, directly or not, and left behind, however that process ended.

Ray's agents, for one, wait a minute for their cluster after its driver was killed. The watcher runs in a session of its
own and finds processes by a variable of their environment, which all inherit, also those whose parents are gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

POLL_S = 0.2
QUIET_ROUNDS = 5
"""Rounds without any process to end, after which none is thought to come."""


def mark(variable: str) -> str:
    """Mark what this process will start from now on, by a variable of the environment; gives its value."""
    os.environ[variable] = uuid.uuid4().hex
    return os.environ[variable]


def watch(variable: str, value: str, *, grace_s: float) -> subprocess.Popen[bytes]:
    """Start the watcher, which ends what is marked so after this process.

    Args:
        grace_s: how long after this process, so that others may leave by themselves.
    """
    unmarked = {name: held for name, held in os.environ.items() if name != variable}
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), variable, value, str(grace_s)]
    none = subprocess.DEVNULL  # whoever reads this process's output is not to wait for the watcher
    return subprocess.Popen(
        command, env=unmarked, start_new_session=True, stdin=none, stdout=none, stderr=none
    )


def marked(variable: str, value: str) -> list[int]:
    """Ids of the processes that were started with the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if f"{variable}={value}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def end_marked(variable: str, value: str) -> None:
    """Kill what is marked, until none comes any more."""
    quiet = 0
    while quiet < QUIET_ROUNDS:
        pids = marked(variable, value)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if pids else quiet + 1
        time.sleep(POLL_S)


def _watch(parent: int, variable: str, value: str, grace_s: float) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    until_s = time.monotonic() + grace_s
    while time.monotonic() < until_s and marked(variable, value):
        time.sleep(POLL_S)
    end_marked(variable, value)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
