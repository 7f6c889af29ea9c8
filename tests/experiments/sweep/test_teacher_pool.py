"""The teachers that trials share: each is trained once, and a failure is forgotten. Ray is not started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.experiments.sweep.teacher_pool import TeacherPool
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.settings import Settings


@pytest.fixture
def pool() -> Any:
    """The class of the actor, in this process."""
    return TeacherPool.__ray_metadata__.modified_class()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_teacher_that_is_done_is_not_trained_again(pool: Any, tmp_path: Path) -> None:
    settings = Settings(run=RunConfig(name="source-x", dir=str(tmp_path), until="source"))
    folder = tmp_path / "source-x"
    folder.mkdir()
    (folder / "source.json").write_text("{}")

    async def both() -> list[str | None]:
        text = settings.model_dump_json()
        return await asyncio.gather(pool.teacher(text), pool.teacher(text))

    assert asyncio.run(both()) == [str(folder)] * 2
    assert [file.name for file in folder.iterdir()] == ["source.json"]
    assert list(pool._futures) == [str(folder)]


def test_a_failed_teacher_is_trained_for_the_next_trial_that_needs_it(pool: Any, tmp_path: Path) -> None:
    settings = Settings(run=RunConfig(name="source-x", dir=str(tmp_path), until="source"))
    folder = tmp_path / "source-x"
    folder.write_text("a file in place of the folder")
    with pytest.raises(OSError, match="source-x"):
        asyncio.run(pool.teacher(settings.model_dump_json()))
    folder.unlink()
    folder.mkdir()
    (folder / "source.json").write_text("{}")
    assert asyncio.run(pool.teacher(settings.model_dump_json())) == str(folder)


def test_the_stop_request_reaches_all_and_events_are_taken_once(pool: Any) -> None:
    reason = StopReason(StopKind.CTRL_C)
    assert asyncio.run(pool.stop_reason()) is None
    asyncio.run(pool.end(reason))
    assert asyncio.run(pool.stop_reason()) == reason
    pool._events.append(("source-x", "an event"))
    assert asyncio.run(pool.take_events()) == [("source-x", "an event")]
    assert asyncio.run(pool.take_events()) == []
