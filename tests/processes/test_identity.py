"""The identity of a process: its own, that of a dead process, and what any file may hold in its place."""

from __future__ import annotations

import os
import socket
import subprocess
from datetime import UTC, datetime
from typing import Any

import psutil
import pytest

from fourds_dist.processes.identity import (
    identity_text,
    is_of_this_system,
    is_running,
    own_identity,
    start_of,
)


def test_this_process_runs_here() -> None:
    own = own_identity()
    assert (own["pid"], own["host"]) == (os.getpid(), socket.gethostname())
    assert is_of_this_system(own)
    assert is_running(own)
    age_s = datetime.now(UTC) - datetime.strptime(own["since"], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert 0 <= age_s.total_seconds() < 60


def test_the_start_is_that_of_the_process() -> None:
    started = start_of(os.getpid())
    assert started is not None
    since_boot_s = int(started) / os.sysconf("SC_CLK_TCK")
    assert psutil.boot_time() + since_boot_s == pytest.approx(psutil.Process().create_time(), abs=2)


def test_a_zombie_and_a_process_that_is_gone_do_not_run() -> None:
    other = subprocess.Popen(["sleep", "600"])
    theirs = own_identity() | {"pid": other.pid, "began": start_of(other.pid)}
    assert is_running(theirs)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie, until it is waited for
    assert not is_running(theirs)
    other.wait()
    assert not is_running(theirs)
    assert start_of(other.pid) is None


@pytest.mark.parametrize(
    "changes",
    [{"began": "1"}, {"began": None}, {"pid": None}, {"pid": "1"}, {"pid": 0}, {"pid": -1}, {"pid": 10**30},
     {"pid": True}],
)  # fmt: skip
def test_a_process_of_another_start_or_id_does_not_run(changes: dict[str, Any]) -> None:
    assert not is_running(own_identity() | changes)


@pytest.mark.parametrize(
    "changes", [{"host": "elsewhere"}, {"space": "another boot"}, {"space": None}, {"host": [1]}]
)
def test_another_host_or_namespace_is_another_system(changes: dict[str, Any]) -> None:
    assert not is_of_this_system(own_identity() | changes)
    assert not is_of_this_system({})


def test_an_identity_is_shown_as_far_as_it_is_known() -> None:
    assert identity_text({"host": "elsewhere"}) == "another process"
    assert identity_text({"pid": 7}) == "process 7 on an unknown host since an unknown time"
