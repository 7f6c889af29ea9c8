"""Checkpoints on folders and URLs: whole or not at all, written meanwhile, pruned, and patient with storage."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from fourds_dist.training.checkpoint import checkpoint_store as store_module
from fourds_dist.training.checkpoint.checkpoint_store import FolderStore
from fourds_dist.training.checkpoint.learning_state import FORMAT


def state(step: int) -> dict[str, Any]:
    return {"format": FORMAT, "step": step}


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run"


def test_the_newest_come_back_and_older_ones_go(url: str) -> None:
    store = FolderStore(url, keep=2)
    assert store.newest() is None
    for step in (3, 6, 100_000_000, 9):
        store.save(state(step), step, {})
    store.close()
    again = FolderStore(url)
    assert again.newest() == "checkpoint-100000000"
    assert again.read("checkpoint-100000000")["step"] == 100_000_000
    assert again._complete() == ["checkpoint-00000009", "checkpoint-100000000"]
    store.save(None, 12, {})  # another rank
    assert again.newest() == "checkpoint-100000000"


def test_what_a_kill_left_half_written_does_not_count_and_goes(tmp_path: Path) -> None:
    store = FolderStore(str(tmp_path), keep=1)
    store.save(state(2), 2, {}, wait=True)
    half = tmp_path / "checkpoint-00000004"
    half.mkdir()
    (half / "state.pt.partial").write_bytes(b"PK")
    assert store.newest() == "checkpoint-00000002"
    store.save(state(6), 6, {}, wait=True)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000006"]


def test_training_continues_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch) -> None:
    may_write = threading.Event()
    write_bytes = store_module.write_bytes

    def slow(url: str, data: bytes) -> None:
        assert may_write.wait(20)
        write_bytes(url, data)

    monkeypatch.setattr(store_module, "write_bytes", slow)
    store = FolderStore(str(tmp_path))
    store.save(state(1), 1, {})  # comes back although nothing may be written yet
    assert store.newest() is None
    may_write.set()
    store.close()
    assert store.newest() == "checkpoint-00000001"


def test_a_store_that_is_away_for_a_while_is_waited_for(tmp_path: Path, monkeypatch) -> None:
    failures = iter([OSError("no route to host")] * 2)
    write_bytes = store_module.write_bytes

    def flaky(url: str, data: bytes) -> None:
        for failure in failures:
            raise failure
        write_bytes(url, data)

    monkeypatch.setattr(store_module, "write_bytes", flaky)
    notes: list[str] = []
    store = FolderStore(str(tmp_path), note=notes.append)
    store.save(state(1), 1, {}, wait=True)
    assert store.newest() == "checkpoint-00000001"
    assert len(notes) == 2
    assert "could not be written (OSError: no route to host); trying for 300 s" in notes[0]


def test_a_full_disk_is_an_error_with_a_remedy_and_harms_no_checkpoint(tmp_path: Path, monkeypatch) -> None:
    store = FolderStore(str(tmp_path), retry_timeout_s=0, note=lambda text: None)
    store.save(state(1), 1, {}, wait=True)

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"checkpoint-00000002.*No space left on device.*free space") as error:
        store.save(state(2), 2, {}, wait=True)
    assert error.value.errno == errno.ENOSPC
    assert store.newest() == "checkpoint-00000001"
    store.save(state(3), 3, {})  # a failure in the background is reported with the next save
    with pytest.raises(OSError, match="checkpoint-00000003"):
        store.save(state(4), 4, {})


def test_what_cannot_be_removed_is_noted_and_goes_at_a_later_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    store = FolderStore(str(tmp_path), keep=1, note=notes.append)

    def refuse(self: LocalFileSystem, path: str, **_: Any) -> None:
        raise OSError(errno.EBUSY, f"busy: {path}")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "rm", refuse)
        for step in (1, 2):
            store.save(state(step), step, {}, wait=True)
        patch.setattr(LocalFileSystem, "glob", refuse)
        store.prune(["checkpoint-00000002"])
    assert len(notes) == 2
    assert notes[0].startswith(
        f"checkpoint {tmp_path}/checkpoint-00000001 could not be removed yet (OSError: "
    )
    assert notes[1].startswith(f"checkpoints under {tmp_path} could not be removed yet")
    store.save(state(3), 3, {}, wait=True)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-00000003"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": FORMAT + 1}, rf"format {FORMAT + 1}, newer than.*update fourds_dist"),
        ({"format": FORMAT - 1}, rf"format {FORMAT - 1}, older than.*choose another run.name"),
        ([1, 2], "not written by fourds_dist"),
    ],
)
def test_another_format_is_refused_by_name(tmp_path: Path, content: Any, message: str) -> None:
    folder = tmp_path / "checkpoint-00000001"
    folder.mkdir()
    torch.save(content, folder / "state.pt")
    store = FolderStore(str(tmp_path))
    with pytest.raises(ValueError, match=message) as error:
        store.read("checkpoint-00000001")
    assert str(folder / "state.pt") in str(error.value)
