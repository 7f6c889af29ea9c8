"""The run's folder: whole files, metrics that survive a kill, also on object stores (fsspec's memory store here)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fourds_dist.training.run_folder import MetricsFile, RunFolder


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


def rows(folder: RunFolder) -> list[dict]:
    return [json.loads(line) for line in folder.read_text("metrics.jsonl").splitlines()]


def test_files_are_read_back_and_missed(folder: RunFolder) -> None:
    assert not folder.exists("a.json")
    folder.write_json("a.json", {"x": 1})
    assert folder.exists("a.json")
    assert folder.read_json("a.json") == {"x": 1}


def test_metrics_of_steps_done_again_are_dropped(folder: RunFolder) -> None:
    first = MetricsFile(folder, "source", 0)
    first({"stage": "source", "event": "epoch", "step": 7})
    second = MetricsFile(folder, "distill", 0)
    for step in (1, 2, 3):
        second({"stage": "distill", "event": "epoch", "step": step})
    resumed = MetricsFile(folder, "distill", 2)
    resumed({"stage": "distill", "event": "epoch", "step": 3, "again": True})
    assert [(row["stage"], row["step"], row.get("again", False)) for row in rows(folder)] == [
        ("source", 7, False),
        ("distill", 1, False),
        ("distill", 2, False),
        ("distill", 3, True),
    ]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    folder.write_text("metrics.jsonl", '{"stage": "source", "event": "step", "step": 1}\n{"stage": "sour')
    MetricsFile(folder, "source", 5)
    assert [row["step"] for row in rows(folder)] == [1]
