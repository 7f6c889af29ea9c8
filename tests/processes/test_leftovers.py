"""Marked processes: found by their environment and ended after the process that started them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
import pytest

from fourds_dist.processes.leftovers import Family, _parent_and_begin, mark, marked
from fourds_dist.processes.proc import START_TICKS, stat_fields
from tests.processes.test_parent_death import LIMIT_S, killed, started

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


def test_a_mark_is_new_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURDS_TEST_MARK", "")
    first = mark("FOURDS_TEST_MARK")
    assert os.environ["FOURDS_TEST_MARK"] == first
    assert mark("FOURDS_TEST_MARK") != first
    assert marked("FOURDS_TEST_MARK", first) == []


def test_processes_are_found_by_a_variable_of_their_environment() -> None:
    parent = os.getppid()
    variable, value = next(iter(psutil.Process(parent).environ().items()))
    found = marked(variable, value)
    assert parent in found
    assert os.getpid() not in found
    assert parent not in marked(variable, value + "x")
    family = Family(variable, value)
    assert family.alive() == []
    family.note()
    assert parent in family.alive()


def test_a_process_is_known_by_its_parent_and_start() -> None:
    """As `proc` reads them, which the watcher cannot import."""
    pid = os.getpid()
    assert _parent_and_begin(pid) == (os.getppid(), stat_fields(pid)[START_TICKS])
    assert _parent_and_begin(2**22 + 1) == (0, "")


SESSION = '''
import os, subprocess, sys, time
from fourds_dist.config.loading import to_yaml
from fourds_dist.processes.leftovers import mark, watch
watch("LEFTOVERS", mark("LEFTOVERS"), grace_s=0)
child = """
import subprocess, time
subprocess.Popen(['sleep', '1000'], stdout=-3)
subprocess.Popen(['/bin/sleep', '1000'], stdout=-3, env={})  # hides its mark, as Ray's agents do
print(flush=True)
time.sleep(1000)
"""
child = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
gone = "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"
subprocess.run([sys.executable, "-c", gone])
print(f"mark {os.environ['LEFTOVERS']}\\nready", flush=True)
time.sleep(1000)
'''


def test_the_watcher_finds_what_has_no_parent_any_more(tmp_path: Path) -> None:
    process = started(SESSION, tmp_path)
    assert process.stdout is not None
    value = process.stdout.readline().split()[1]
    until_s = time.monotonic() + LIMIT_S
    while len(pids := marked("LEFTOVERS", value)) < 3:  # during its exec a process shows no environment
        assert time.monotonic() < until_s, pids
    without_parent = [psutil.Process(pid) for pid in pids]
    assert len(without_parent) == 3
    assert killed(process) == []
    assert psutil.wait_procs(without_parent, timeout=LIMIT_S)[1] == []
