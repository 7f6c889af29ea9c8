"""The identity of a process, as files of leases and locks hold it: other processes read who holds a folder, and whether
the holder still runs.

    {"host", "pid", "began", "space", "since"}

A process id is unique on one host within a boot and a PID namespace (`space`), and only while the process runs, so that
the identity holds the start of the process (`began`) too. `since` is the time at which the process took the folder.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fourds_dist.processes.proc import START_TICKS, STATE, boot_id, stat_fields


def own_identity() -> dict[str, Any]:
    """Return the identity of this process, with the present time as `since`."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "began": start_of(os.getpid()),
        "space": _space(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def is_of_this_system(identity: Mapping[str, Any]) -> bool:
    """Return whether a process id of an identity means the same process here, so that `is_running` can tell."""
    return (identity.get("host"), identity.get("space")) == (socket.gethostname(), _space())


def is_running(identity: Mapping[str, Any]) -> bool:
    """Return whether a process of this system still runs; a zombie does not, nor does a later process of its id."""
    pid = identity.get("pid")
    began = start_of(pid) if isinstance(pid, int) else None
    return began is not None and began == identity.get("began")


def identity_text(identity: Mapping[str, Any]) -> str:
    """Return an identity for people; any part may be missing.

    >>> identity_text({"pid": 7, "host": "node1", "since": "2026-01-01 00:00:00 UTC"})
    'process 7 on node1 since 2026-01-01 00:00:00 UTC'
    >>> identity_text({})
    'another process'
    """
    if "pid" not in identity:
        return "another process"
    host, since = identity.get("host", "an unknown host"), identity.get("since", "an unknown time")
    return f"process {identity['pid']} on {host} since {since}"


def start_of(pid: int) -> str | None:
    """Return the start time of a process of this host, in the system's units; None: no such process, or a zombie."""
    if pid <= 0:  # of no single process
        return None
    try:
        fields = stat_fields(pid)
    except FileNotFoundError:
        return None if Path("/proc/self/stat").exists() else _start_without_proc(pid)
    except OSError:
        return None
    return None if fields[STATE] in "ZX" else fields[START_TICKS]


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "unknown"  # of another user
    except (OSError, OverflowError):
        return None
    return "unknown"


def _space() -> str:
    try:
        return f"{boot_id()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return ""
