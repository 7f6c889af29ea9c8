"""One run after the other in this process."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fourds_dist.experiments.executor.base import RunTask
from fourds_dist.experiments.executor.in_process import InProcess
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.settings import Settings
from tests.experiments.executor.short_run import short_run


def test_a_started_run_has_ended(tmp_path: Path) -> None:
    executor = InProcess()
    assert executor.capacity == 1
    for name in ("x", "y"):
        task = RunTask(name, Settings(run=RunConfig(name=name, dir=str(tmp_path))))
        executor.start(task)
        result = executor.wait(0.0)
        assert result is not None
        assert result.task is task
        assert result.outcome.failure == "target.url is not set: give the target domain's shards"
    executor.end(0.0)


def test_ctrl_c_during_a_run_ends_the_command_with_a_checkpoint_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = short_run(tmp_path)
    executor = InProcess(lambda url, event: StopReason(StopKind.CTRL_C), is_quiet=True)
    with pytest.raises(KeyboardInterrupt):
        executor.start(RunTask("x", settings))
    assert any(Path(settings.run_url, "source").iterdir())
    assert "epoch 1" not in capsys.readouterr().out


def test_a_run_stops_at_the_end_of_its_time(tmp_path: Path) -> None:
    settings = short_run(tmp_path)
    executor = InProcess(until_s=time.time(), is_quiet=True)
    executor.start(RunTask("x", settings))
    result = executor.wait()
    assert result is not None
    assert result.outcome.stopped == StopReason(StopKind.BUDGET_TIME)
    assert result.outcome.failure is not None
    assert result.outcome.failure.startswith("stopped by the end of --budget at step 1")
    assert not result.task.is_done
