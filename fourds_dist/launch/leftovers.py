"""A watcher that ends what a process has started, directly or not, and left behind, however that process ended.

Ray's agents, for one, wait a minute for their cluster after its driver was killed. The watcher runs in a session of its
own. It finds processes by a variable of their environment, which all inherit, also those whose parents are gone. A
process that changes its title, as Ray's do, may overwrite what others read of its environment: the watcher therefore
notes marked processes and their children once a second while its parent lives.
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
"""Rounds without any process to end, after which none is thought to come."""
NUM_LOOKS = 3
"""How often a new process is looked at: between fork and exec it still has its parent's environment."""


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
    """Ids of the processes that were started with the mark in their environment, as far as that can be read."""
    return [pid for pid in _pids() if _is_marked(pid, variable, value)]


def end_marked(variable: str, value: str, family: Family | None = None) -> None:
    """Kill what is marked, and what is noted in `family`, until none comes any more."""
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
    """The processes with a mark, and their children, as they are noted."""

    def __init__(self, variable: str, value: str) -> None:
        self._variable, self._value = variable, value
        self._began: dict[int, str] = {}
        self._num_looks: dict[int, int] = {}

    def note(self, *, again: bool = False) -> None:
        """Note what has come since the last call; `again`: look at every process."""
        pids = _pids()
        looks = {} if again else self._num_looks
        self._num_looks = {pid: looks.get(pid, 0) for pid in pids}
        for pid in sorted(pids):
            if pid in self._began or self._num_looks[pid] >= NUM_LOOKS:
                continue
            self._num_looks[pid] += 1
            parent, began = _parent_and_begin(pid)
            if began and (self._runs(parent) or _is_marked(pid, self._variable, self._value)):
                self._began[pid] = began

    def alive(self) -> list[int]:
        """Ids of the noted processes that still run."""
        return [pid for pid in self._began if self._runs(pid)]

    def _runs(self, pid: int) -> bool:
        """Whether a process is noted and still runs; another one may have its id by now."""
        return pid in self._began and _parent_and_begin(pid)[1] == self._began[pid]


def _pids() -> set[int]:
    return {int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()} - {os.getpid()}


def _is_marked(pid: int, variable: str, value: str) -> bool:
    with suppress(OSError):  # gone meanwhile, or another user's
        return f"{variable}={value}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _parent_and_begin(pid: int) -> tuple[int, str]:
    """Id of the parent, and when the process began; (0, "") of one that is gone or a zombie."""
    try:
        state, parent, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return 0, ""
    return (0, "") if state in "ZX" else (int(parent), rest[17])


def _watch(parent: int, variable: str, value: str, grace_s: float) -> None:
    family, noted_s = Family(variable, value), -math.inf
    while os.getppid() == parent:
        if time.monotonic() - noted_s >= NOTE_EVERY_S:
            family.note()
            noted_s = time.monotonic()
        time.sleep(POLL_S)
    family.note(again=True)
    until_s = time.monotonic() + grace_s
    while time.monotonic() < until_s and family.alive():
        time.sleep(POLL_S)
    end_marked(variable, value, family)


if __name__ == "__main__":
    _watch(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]))
