"""Stages in this process: only unfinished stages run, and the observer gets their events and may stop them."""

# ruff: noqa: F401, F811  (an imported fixture)

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.launch.inline import run_inline
from fourds_dist.launch.observer import RunObserver
from fourds_dist.runs.events import Event, StageEnded, StageStarted
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.training.distributed.world import World
from fourds_dist.training.stop_signals import Stopped
from tests.stages.test_stages import data, settings


def test_only_unfinished_stages_run(data: Path, tmp_path: Path) -> None:
    given = settings(data, tmp_path, "run.name=run")
    events: list[Event] = []
    observer = RunObserver(sink=events.append, is_quiet=True)
    stopping = RunObserver(stop_reason=lambda: StopReason(StopKind.SWEEP_ENDED), is_quiet=True)
    run_inline(
        given.model_copy(update={"run": given.run.model_copy(update={"until": "source"})}),
        World.join(),
        observer,
    )
    assert [e.stage for e in events if isinstance(e, StageStarted | StageEnded)] == ["source"] * 2
    with pytest.raises(Stopped, match="stopped by the end of the sweep at step 1, with a checkpoint"):
        run_inline(given, World.join(), stopping)
    assert not (tmp_path / "run" / "student.safetensors").exists()
    events.clear()
    run_inline(given, World.join(), observer)
    started = [(e.stage, e.step) for e in events if isinstance(e, StageStarted)]
    assert started == [("distill", 1)]
    assert (tmp_path / "run" / "student.safetensors").exists()
    events.clear()
    run_inline(given, World.join(), observer)
    assert events == []
