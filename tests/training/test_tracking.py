"""W&B: an offline run holds what was logged; tracking that fails never stops a run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fourds_dist.training.run_folder import RunFolder
from fourds_dist.training.tracking import TrackingConfig, Wandb


@pytest.mark.filterwarnings("ignore")
def test_an_offline_run_lies_in_the_run_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no netrc
    track = Wandb(TrackingConfig(wandb="auto"), RunFolder(str(tmp_path / "my.run")), "source", {"a": 1})
    track({"stage": "source", "event": "step", "step": 1, "loss": 2.5})
    track({"stage": "source", "event": "end", "step": 1})
    files = list((tmp_path / "my.run").rglob("run-*.wandb"))
    assert len(files) == 1
    until_s = time.monotonic() + 120
    # W&B's own process writes it, at times after `finish` has come back.
    while b"loss" not in files[0].read_bytes():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def test_a_stage_that_goes_on_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    started: list[tuple[object, object]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: started.append((options["id"], options["resume"])))
    for place, stage in (("a", "source"), ("a", "source"), ("a", "distill"), ("b", "source")):
        Wandb(TrackingConfig(wandb="online"), RunFolder(str(tmp_path / place / "run")), stage, {})
    first, again, other_stage, other_run = (run_id for run_id, _ in started)
    assert first == again
    assert len({first, other_stage, other_run}) == 3
    assert {resume for _, resume in started} == {"allow"}


def test_failure_is_told_once_and_swallowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import wandb

    def fail(**kwargs: object) -> None:
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr(wandb, "init", fail)
    track = Wandb(TrackingConfig(wandb="online"), RunFolder(str(tmp_path)), "source", {})
    for step in range(3):
        track({"stage": "source", "event": "step", "step": step, "loss": 1.0})
    assert [record.getMessage() for record in caplog.records] == [
        "W&B tracking is off for the rest of this stage: no network at all"
    ]


def test_disabled_does_not_import_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    Wandb(TrackingConfig(wandb="disabled"), RunFolder(str(tmp_path)), "source", {})({"event": "end"})
