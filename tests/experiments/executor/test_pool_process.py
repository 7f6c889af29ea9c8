"""What runs inside a process of the pool: a run without output, and its reports to the parent."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from fourds_dist.experiments.executor import pool_process
from fourds_dist.runs.events import EpochEnded
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.settings import Settings
from tests.experiments.executor.short_run import short_run

REASON = StopReason(StopKind.EARLY_STOPPING)


@pytest.fixture
def parent() -> Iterator[Connection]:
    """The parent's end of the pipe on which this process reports."""
    ours, theirs = multiprocessing.Pipe()
    pool_process._reports[:] = [theirs]
    yield ours
    pool_process._reports.clear()
    ours.close()
    theirs.close()


def test_a_run_prints_nothing_and_reports_the_ends_of_epochs(
    tmp_path: Path, parent: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = short_run(tmp_path)
    parent.send(REASON)  # the answer to the first report
    outcome = pool_process.run(settings.model_dump_json())
    assert (outcome.failure, outcome.stopped) == (None, REASON)
    url, event = parent.recv()
    assert (url, event.stage, event.epoch) == (settings.run_url, "source", 1)
    assert not parent.poll()
    assert capsys.readouterr() == ("", "")
    assert Path(settings.run_url, RunFile.METRICS).exists()
    assert pool_process._is_idle.is_set()


def test_a_failure_is_returned_and_the_process_is_idle_again(tmp_path: Path) -> None:
    outcome = pool_process.run(Settings(run=RunConfig(dir=str(tmp_path))).model_dump_json())
    assert outcome.is_permanent
    assert outcome.failure == "target.url is not set: give the target domain's shards"
    assert pool_process._is_idle.is_set()


def test_without_a_parent_an_epoch_is_reported_to_nobody(parent: Connection) -> None:
    event = EpochEnded(
        step=1, epoch=1, loss=1.0, images_per_s=1.0, validation={}, num_evaluated=1, is_best=True, left_s=0.0
    )
    parent.send(None)
    assert pool_process._after_epoch("runs/x", event) is None
    assert parent.recv() == ("runs/x", event)
    parent.close()
    assert pool_process._after_epoch("runs/x", event) is None
