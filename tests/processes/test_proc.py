"""Facts about a process under /proc, against psutil's."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import psutil
import pytest

from fourds_dist.processes.proc import START_TICKS, STATE, boot_id, stat_fields

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


def test_state_and_start_of_this_process() -> None:
    fields = stat_fields(os.getpid())
    assert fields[STATE] == "R"
    assert fields[STATE + 1] == str(os.getppid())
    started_s = int(fields[START_TICKS]) / os.sysconf("SC_CLK_TCK") + psutil.boot_time()
    assert started_s == pytest.approx(psutil.Process().create_time(), abs=1.5)


def test_a_name_may_hold_spaces_and_brackets() -> None:
    name = Path("/proc/self/comm")
    before, expected = name.read_text(), stat_fields(os.getpid())
    try:
        name.write_text("a) S 1 (b\udcff", errors="surrogateescape")
        fields = stat_fields(os.getpid())
    finally:
        name.write_text(before)
    assert len(fields) == len(expected)
    assert [fields[i] for i in (STATE, STATE + 1, START_TICKS)] == [expected[i] for i in (0, 1, 19)]


def test_no_such_process() -> None:
    with pytest.raises(OSError, match="No such file"):
        stat_fields(2**22 + 1)  # above the largest id


def test_the_boot_has_an_id_that_stays() -> None:
    assert str(uuid.UUID(boot_id())) == boot_id()
