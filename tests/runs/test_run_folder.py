"""The run's folder: whole files, metrics that survive a kill, also on object stores (fsspec's memory store here)."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path

import pytest

from fourds_dist.io.errors import StorageError
from fourds_dist.runs import run_folder
from fourds_dist.runs.events import Note, StageEnded, StageStopped, encode
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import MetricsFile, RunFolder
from fourds_dist.stages.finished_run import find_runs
from tests.rights import reachable_folder, unprivileged


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
    first(StageEnded(stage="source", step=7))
    second = MetricsFile(folder, "distill", 0)
    stopped = StageStopped(stage="distill", step=3, reason=StopReason(StopKind.SIGTERM))
    for event in (Note(stage="distill", step=1, text=""), Note(stage="distill", step=2, text=""), stopped):
        second(event)
    resumed = MetricsFile(folder, "distill", 2)
    resumed(StageEnded(stage="distill", step=3))
    assert [(row["stage"], row["step"], row["event"]) for row in rows(folder)] == [
        ("source", 7, "end"),
        ("distill", 1, "note"),
        ("distill", 2, "note"),
        ("distill", 3, "end"),
    ]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    whole = encode(Note(stage="source", step=1, text="a"))
    folder.write_text("metrics.jsonl", whole + '\n{"stage": "sour')
    MetricsFile(folder, "source", 5)
    assert [row["step"] for row in rows(folder)] == [1]


def test_an_unreachable_store_loses_no_line_and_does_not_block(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    metrics = MetricsFile(folder, "source", 0, retry_timeout_s=60, note=notes.append)
    away, write = threading.Event(), run_folder.write_bytes

    def refuse(url: str, data: bytes) -> None:
        if away.is_set():
            raise ConnectionError("nobody there")
        write(url, data)

    monkeypatch.setattr(run_folder, "write_bytes", refuse)
    if folder.is_local:
        monkeypatch.setattr(run_folder, "Path", lambda _: (_ for _ in ()).throw(OSError(28, "disk full")))
    pauses: list[float] = []
    store_returns = threading.Event()

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        assert store_returns.wait(60)
        away.clear()

    monkeypatch.setattr(run_folder, "with_retries", partial(run_folder.with_retries, sleep=pause))
    away.set()
    for step in (1, 2):
        metrics(Note(stage="source", step=step, text=""))  # returns while the writer waits
    store_returns.set()
    metrics(StageEnded(stage="source", step=3))
    assert len(pauses) == 1
    assert [row["step"] for row in rows(folder)] == [1, 2, 3]
    assert "could not be written (ConnectionError: nobody there); trying for 60 s" in notes[0]
    assert "could not be written at first; a retry succeeded after" in notes[1]


def test_patience_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(f"memory://{tmp_path.name}/run")
    metrics = MetricsFile(folder, "source", 0, retry_timeout_s=0)
    monkeypatch.setattr(run_folder, "write_bytes", lambda *_: (_ for _ in ()).throw(ConnectionError("gone")))
    metrics(Note(stage="source", step=1, text=""))  # training continues
    with pytest.raises(StorageError, match=r"metrics\.jsonl could not be written"):
        metrics(StageEnded(stage="source", step=1))


def test_a_folder_may_have_patience_with_its_store(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, failures, notes = run_folder.write_bytes, [ConnectionError("nobody there")], []

    def refuse(url: str, data: bytes) -> None:
        if failures:
            raise failures.pop()
        write(url, data)

    monkeypatch.setattr(run_folder, "write_bytes", refuse)
    RunFolder(folder.url, retry_timeout_s=60, note=notes.append).write_json("a.json", {"x": 1})
    assert folder.read_json("a.json") == {"x": 1}
    assert "a.json could not be written (ConnectionError: nobody there); trying for 60 s" in notes[0]
    failures.append(ConnectionError("nobody there"))
    with pytest.raises(ConnectionError, match=r"^nobody there$"):
        folder.write_json("a.json", {})


def test_an_unreadable_folder_is_not_an_empty_one() -> None:
    with reachable_folder() as place:
        folder = RunFolder(str(place / "run"))
        assert not folder.exists("config.yaml")
        folder.write_text("config.yaml", "")
        assert folder.exists("config.yaml")
        assert not folder.exists("config.yaml/of-a-file")
        (place / "run").chmod(0)
        with unprivileged(), pytest.raises(PermissionError):
            folder.exists("config.yaml")
        with (
            unprivileged(),
            pytest.raises(ValueError, match=r"access denied .*check its owner and permissions"),
        ):
            find_runs([folder.url])
        (place / "run").chmod(0o755)
