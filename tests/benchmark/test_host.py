"""The scaling of a host: parts in processes of their own, rows that a limit keeps, and all parts on CPUs."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fourds_dist.benchmark import host
from fourds_dist.benchmark.host import add_arguments, run, shown
from fourds_dist.benchmark.host_commands import Host, PartFailedError, Row

SMALL = (
    *("--teacher", "resnet10", "--student", "resnet10", "--vit", "resnet10", "--image-px", "32"),
    *("--batches", "8", "--small-batch", "4", "--global-batch", "16", "--images", "400", "--trials", "4"),
    *("--workers", "1", "2"),
)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def a_host(tmp_path: Path) -> Host:
    return Host(options(*SMALL), tmp_path, time.monotonic() + 60, [])


def test_rows_are_kept_when_a_part_fails_and_when_the_time_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def good(given: Host) -> Iterator[Row]:
        yield {"images_per_s": 2.5}
        raise PartFailedError("failed: no space left")

    def slow(given: Host) -> Iterator[Row]:
        given.do("sleep", ["timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)"])
        yield {}

    monkeypatch.setattr(host, "PARTS", {"weak": good, "strong": slow, "small": good})
    file = tmp_path / "host.json"
    run(options("--seconds", "2", "--parts", "weak", "strong", "small", "--json", str(file)))
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.endswith(" s")]
    assert lines == [
        "part weak  images_per_s 2.5",
        "weak: failed: no space left",
        "strong: ended by the time limit",
        "small: left out, since the 2 s are over",
    ]
    assert json.loads(file.read_text())["rows"] == [{"part": "weak", "images_per_s": 2.5}]


def test_a_failed_command_shows_its_last_lines(a_host: Host) -> None:
    with pytest.raises(
        PartFailedError, match=r"failed: .*architecture 'resnet_none' is not a torchvision classifier"
    ):
        a_host.do(
            "scaling", ["fourds_dist.benchmark", "scaling", "--workers", "1", "--teacher", "resnet_none"]
        )


def test_processes_below_a_command_end_with_its_block(a_host: Host) -> None:
    sleep = (
        f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])"
    )
    with a_host.started("sleep", ["timeit", "-n", "1", "-r", "1", sleep]) as process:
        while not (below := psutil.Process(process.pid).children(recursive=True)):
            time.sleep(0.02)
    assert psutil.wait_procs(below, timeout=10)[1] == []
    assert process.returncode != 0


def test_a_row_names_what_was_measured() -> None:
    row = {"part": "weak", "workers": 8, "efficiency": 0.98765, "host_share": None}
    assert shown(row) == "part weak  workers 8  efficiency 0.9877"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_parts_on_cpus(tmp_path: Path) -> None:
    file = tmp_path / "host.json"
    command = [
        sys.executable,
        "-m",
        "fourds_dist.benchmark",
        "host",
        *SMALL,
        "--seconds",
        "1500",
        "--json",
        str(file),
    ]
    subprocess.run(command, check=True)
    rows = json.loads(file.read_text())["rows"]
    assert {row["part"] for row in rows} == set(host.PARTS)
    (killed,) = (row for row in rows if row["part"] == "kill")
    assert killed["is_equal"]
    (sweep,) = (row for row in rows if row["part"] == "sweep")
    assert sweep["trials"] == 4
    assert 0 < sweep["training_share"] <= 1
