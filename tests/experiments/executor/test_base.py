"""Tasks, their outcomes, and the execution of a run in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.experiments.executor.base import Outcome, RunTask, execute, failure_text
from fourds_dist.runs.events import EpochEnded, Note
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.settings import Settings
from tests.experiments.executor.short_run import short_run


def test_a_cell_is_done_if_its_folder_is_done(tmp_path: Path) -> None:
    made = RunTask("x", Settings(run=RunConfig(name="x", dir=str(tmp_path), until="source")))
    assert not made.is_done
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "source.json").write_text("{}")
    assert made.is_done


def test_the_folder_of_a_task_is_the_folder_of_its_run() -> None:
    assert RunTask("x", Settings(run=RunConfig(name="x", dir="s3://bucket/runs"))).url == "s3://bucket/runs/x"


@pytest.mark.parametrize("kind", StopKind)
def test_only_ctrl_c_and_sigterm_interrupt_a_run(kind: StopKind) -> None:
    is_interrupted = kind in ("ctrl_c", "sigterm", "interrupted")
    assert Outcome(stopped=StopReason(kind)).is_interrupted == is_interrupted
    assert not Outcome(failure="Ctrl-C").is_interrupted


def test_a_run_that_cannot_start_has_a_permanent_failure(tmp_path: Path) -> None:
    impossible = Settings(run=RunConfig(dir=str(tmp_path)))
    assert execute(impossible) == Outcome(
        "target.url is not set: give the target domain's shards", is_permanent=True
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("error: is the value"), "error: is the value"),
        (OSError("the disk is full"), "the disk is full"),
        (KeyError("x"), "unexpected KeyError: 'x' (a fault in fourds_dist; --traceback shows where)"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_a_failure_is_told_by_its_message(error: Exception, text: str) -> None:
    assert failure_text(error) == text


def test_a_run_that_an_epoch_stops_early_has_not_failed_and_is_not_done(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def after_epoch(url: str, event: EpochEnded) -> StopReason:
        asked.append((url, event.epoch))
        return StopReason(StopKind.EARLY_STOPPING)

    settings = short_run(tmp_path)
    outcome = execute(settings, after_epoch, is_quiet=True)
    assert asked == [(settings.run_url, 1)]
    assert outcome == Outcome(stopped=StopReason(StopKind.EARLY_STOPPING))
    assert not RunTask("x", settings).is_done


def test_only_ends_of_epochs_are_asked_about() -> None:
    from fourds_dist.experiments.executor.base import _observer

    def after_epoch(url: str, event: EpochEnded) -> StopReason | None:
        assert url == "runs/x"
        return StopReason(StopKind.EARLY_STOPPING) if event.epoch == 2 else None

    observer = _observer("runs/x", after_epoch, is_quiet=True)
    assert observer.is_quiet
    epoch = {
        "loss": 1.0,
        "images_per_s": 1.0,
        "validation": {},
        "num_evaluated": 1,
        "is_best": True,
        "left_s": 0.0,
    }
    for event, is_stopped in (
        (Note(step=1, text="x"), False),
        (EpochEnded(step=1, epoch=1, **epoch), False),
        (EpochEnded(step=2, epoch=2, **epoch), True),
        (EpochEnded(step=3, epoch=3, **epoch), True),
    ):
        observer.sink(event)
        assert (observer.stop_reason() is not None) == is_stopped
