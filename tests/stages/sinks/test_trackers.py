"""The choice of trackers: missing packages and settings are refused, and a tracker that fails or waits ends no run."""

from __future__ import annotations

import importlib.util
import logging
import threading
from pathlib import Path

import pytest

from fourds_dist.io.extras import fix
from fourds_dist.runs.events import Event, StageEnded, StageStarted
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.sinks import background
from fourds_dist.stages.sinks.background import Background
from fourds_dist.stages.sinks.trackers import check_trackers, trackers
from fourds_dist.stages.sinks.tracking_config import TrackingConfig

START = StageStarted(
    step=0,
    stage="source",
    num_epochs=1,
    num_steps_per_epoch=2,
    global_batch_size=4,
    num_workers=1,
    device="CPU",
)
END = StageEnded(step=2, stage="source", peak_memory_bytes=None)


def test_missing_packages_and_settings_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_trackers(TrackingConfig(tools=()))
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else object())
        check_trackers(TrackingConfig())
        with pytest.raises(ValueError, match=r"tracking\.tools=tensorboard needs tensorboardX: ") as caught:
            check_trackers(TrackingConfig(tools=("wandb", "tensorboard")))
        assert str(caught.value).endswith(fix("tensorboard"))
        with pytest.raises(ValueError, match=r"needs the variable MLFLOW_TRACKING_URI: set it to the URL"):
            check_trackers(TrackingConfig(tools=("mlflow",)))


def test_every_tool_has_a_sink(tmp_path: Path) -> None:
    config = TrackingConfig(wandb="disabled", tools=("tensorboard", "wandb", "tensorboard"))
    assert len(trackers(config, RunFolder(str(tmp_path)), "source", {})) == 2
    assert trackers(TrackingConfig(tools=()), RunFolder(str(tmp_path)), "source", {}) == []


def test_a_failure_is_logged_once_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("no network\nat all")

    def fail_at_the_start() -> None:
        raise ImportError("broken")

    for start in (lambda: fail, fail_at_the_start):
        sink = Background("MLflow", start)  # pyright: ignore[reportArgumentType]
        for event in (START, START, END):
            sink(event)
    assert [record.getMessage() for record in caplog.records] == [
        "MLflow tracking is off for the rest of this stage: no network at all",
        "MLflow tracking is off for the rest of this stage: broken",
    ]


def test_the_end_of_a_stage_waits_for_all_events_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Event] = []
    sink = Background("MLflow", lambda: received.append)
    sink(START)
    sink(END)
    assert received == [START, END]
    answers = threading.Event()
    monkeypatch.setattr(background, "END_S", 0.0)
    with caplog.at_level(logging.WARNING):
        Background("MLflow", lambda: lambda event: answers.wait() and None)(END)
    answers.set()
    assert "MLflow has not answered for 0 s; its last events may be missing" in caplog.text
