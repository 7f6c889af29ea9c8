"""What Linux tells of a process under /proc. `leftovers` reads the same by itself: its watcher imports no package."""

from __future__ import annotations

from pathlib import Path

STATE, START_TICKS = 0, 19
"""Positions in `stat_fields`: state, start time in clock ticks since boot."""


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name of the process, which may hold spaces and brackets.

    Raises:
        OSError: there is no such process, or this system has no /proc.
    """
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def boot_id() -> str:
    """Return the id of this boot of the machine.

    Raises:
        OSError: this system has none.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
