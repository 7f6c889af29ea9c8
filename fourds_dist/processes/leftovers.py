"""A watcher process that kills the remaining descendants of its parent after the parent has ended, SIGKILL included.

Ray's agents, for example, wait a minute for their cluster after its driver was killed. The watcher runs in a separate
session. It finds processes by an environment variable that all descendants inherit, also after their parents ended. A
process that changes its title, as Ray's do, may overwrite the environment that others can read; the watcher therefore
records marked processes and their children once a second while its parent runs.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

POLL_S = 0.2
NOTE_EVERY_S = 1.0
QUIET_ROUNDS = 5
"""Rounds without a process to kill, after which no more are expected."""
NUM_CHECKS = 3
"""How often a new process is checked: between fork and exec it still has the environment of its parent."""


def mark(variable: str) -> str:
    """Mark the future children of this process by an environment variable; return the value of the variable."""
    os.environ[variable] = uuid.uuid4().hex
    return os.environ[variable]


def watch(variable: str, value: str, *, grace_s: float) -> subprocess.Popen[bytes]:
    """Start the watcher, which kills marked processes after this process has ended.

    Args:
        grace_s: how long marked processes may take to end on their own, in seconds.
    """
    unmarked = {name: text for name, text in os.environ.items() if name != variable}
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), variable, value, str(grace_s)]
    none = subprocess.DEVNULL  # readers of this process's output must not wait for the watcher
    return subprocess.Popen(
        command, env=unmarked, start_new_session=True, stdin=none, stdout=none, stderr=none
    )


def marked(variable: str, value: str) -> list[int]:
    """Return the ids of processes with the mark in their environment, as far as the environment can be read."""
    return [pid for pid in _pids() if _is_marked(pid, variable, value)]


def end_marked(variable: str, value: str, family: Family | None = None) -> None:
    """Kill marked processes and those recorded in `family`, until no more appear."""
    family = family or Family(variable, value)
    quiet = 0
    while quiet < QUIET_ROUNDS:
        family.note(again=True)
        pids = family.alive()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        quiet = 0 if pids else quiet + 1
        time.sleep(POLL_S)


class Family:
    """Record of the processes with a mark and of their children."""

    def __init__(self, variable: str, value: str) -> None:
        self._variable, self._value = variable, value
        self._began: dict[int, str] = {}
        self._num_checks: dict[int, int] = {}

    def note(self, *, again: bool = False) -> None:
        """Record new processes; `again`: check every process, also those checked before."""
        pids = _pids()
        checks = {} if again else self._num_checks
        self._num_checks = {pid: checks.get(pid, 0) for pid in pids}
        for pid in sorted(pids):
            if pid in self._began or self._num_checks[pid] >= NUM_CHECKS:
                continue
            self._num_checks[pid] += 1
            parent, began = _parent_and_begin(pid)
            if began and (self._runs(parent) or _is_marked(pid, self._variable, self._value)):
                self._began[pid] = began

    def alive(self) -> list[int]:
        """Return the ids of recorded processes that still run."""
        return [pid for pid in self._began if self._runs(pid)]

    def _runs(self, pid: int) -> bool:
        """Return whether a recorded process still runs; the start time detects a reused id."""
        return pid in self._began and _parent_and_begin(pid)[1] == self._began[pid]


def _pids() -> set[int]:
    return {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()} - {os.getpid()}


def _is_marked(pid: int, variable: str, value: str) -> bool:
    with suppress(OSError):  # the process has ended, or belongs to another user
        return f"{variable}={value}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _parent_and_begin(pid: int) -> tuple[int, str]:
    """Return the parent's id and the start time of a process; (0, "") if it has ended or is a zombie."""
    try:
        state, parent, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0, ""
    return (0, "") if state in "ZX" else (int(parent), rest[17])


def _watch(parent: int, variable: str, value: str, grace_s: float) -> None:
    family, recorded_s = Family(variable, value), -math.inf
    while os.getppid() == parent:
        if time.monotonic() - recorded_s >= NOTE_EVERY_S:
            family.note()
            recorded_s = time.monotonic()
        time.sleep(POLL_S)
    family.note(again=True)
    until_s = time.monotonic() + grace_s
    while time.monotonic() < until_s and family.alive():
        time.sleep(POLL_S)
    end_marked(variable, value, family)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
