"""A worker's exit, its connection to the driver, and its checkpoints."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from fourds_dist.launch.ray import worker
from fourds_dist.launch.ray.ray_private import CHECKPOINT_LIST
from fourds_dist.launch.ray.worker import PREEMPTION_POLL_S, DriverLink, RayStore, StageExit
from fourds_dist.runs.events import Note
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from fourds_dist.training.checkpoint.learning_state import FORMAT
from tests.launch.ray.test_leaving import INTERRUPTED, PREEMPTED


def test_a_notice_does_not_hide_what_the_driver_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notice = SimpleNamespace(preempted_ranks=[1])
    monkeypatch.setattr(worker.ray.train, "get_preemption_info", lambda: notice)
    monkeypatch.setattr(worker.ray, "wait", lambda refs, timeout: (refs, []))
    monkeypatch.setattr(worker.ray, "get", lambda answer: answer)
    line = DriverLink(SimpleNamespace(put=SimpleNamespace(remote=lambda event: INTERRUPTED)))
    assert line.stop_reason(PREEMPTION_POLL_S) == PREEMPTED
    line = DriverLink(SimpleNamespace(put=SimpleNamespace(remote=lambda event: INTERRUPTED)))
    line.put(Note(step=1, text=""))
    assert line.stop_reason(PREEMPTION_POLL_S) == INTERRUPTED


def test_only_a_preemption_starts_the_workers_again() -> None:
    assert StageExit("stopped", PREEMPTED, 7).is_preempted
    assert not StageExit("stopped", INTERRUPTED, 7).is_preempted
    assert not StageExit("done").is_preempted


def test_notices_are_asked_for_at_equal_times_on_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(worker.ray.train, "get_preemption_info", lambda: asked.append(True))
    link = DriverLink(SimpleNamespace())
    for run_s in (
        0.0,
        PREEMPTION_POLL_S - 0.1,
        PREEMPTION_POLL_S,
        PREEMPTION_POLL_S + 1,
        3 * PREEMPTION_POLL_S,
    ):
        assert link.stop_reason(run_s) is None
    assert len(asked) == 2


def test_a_checkpoint_that_ray_does_not_list_is_found_and_old_ones_go(tmp_path: Path) -> None:
    names = [f"checkpoint-{step:08}" for step in (10, 20, 30)]
    folder = FolderStore(str(tmp_path), keep=None)
    for name in names:
        folder.write({"format": FORMAT, "name": name}, name)
    listed = f'{{"checkpoint_results": [{{"checkpoint_dir_name": "{names[1]}"}}]}}'
    (tmp_path / CHECKPOINT_LIST).write_text(listed)
    store = RayStore(folder)
    assert store.newest() == names[2]
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == names[1:]
    assert store.read(names[2])["name"] == names[2]


def test_an_error_of_the_last_write_is_raised_once(tmp_path: Path) -> None:
    store = RayStore(FolderStore(str(tmp_path)))
    store.close()
    store._pending = Future()
    store._pending.set_exception(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        store.close()
    store.close()
