"""A stage as a Ray Train run, which ends with its driver. test_leaving and test_event_channel need no Ray."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from fourds_dist.config.loading import load
from fourds_dist.runs.events import CheckpointSaved, Event, Note, StageStarted
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped
from tests.experiments.compare.small import CHANGES, write_domains


def stage_words(folder: Path) -> list[str]:
    """A source stage that does not end without a stop request."""
    source = write_domains(folder, "source")["source"]
    words = [f"{key}={value}" for key, value in CHANGES.items() if key != "launch"]
    return [
        *words,
        f"source.url={source}",
        "source_stage.epochs=100000",
        "run.until=source",
        f"run.dir={folder}",
    ]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_workers_of_a_trial_that_its_scheduler_stops_go_with_it(local_ray: None, tmp_path: Path) -> None:
    from fourds_dist.launch.ray.train import run_stage_on_ray

    events: list[Event] = []

    def meanwhile() -> None:
        if any(isinstance(event, CheckpointSaved) for event in events):
            raise SystemExit  # as Ray Tune does in a report

    with pytest.raises(SystemExit):
        run_stage_on_ray("source", load(Settings, None, stage_words(tmp_path)), events.append, meanwhile)
    kinds = [json.loads(x)["event"] for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("start") == 1
    assert kinds[-1] == "stopped"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_list_that_ray_cannot_write_for_a_while_ends_no_run(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fourds_dist.launch.ray import train as ray_train
    from fourds_dist.launch.ray.train import run_stage_on_ray

    events: list[Event] = []
    snapshot, broken = tmp_path / "run" / "source" / "checkpoint_manager_snapshot.json", []
    look_at = ray_train._remove_invalid_list

    def look_once_and_mend(stage: RunFolder) -> None:
        """The driver meets what made Ray's controller fail, and finds it gone when it looks again."""
        try:
            look_at(stage)
        finally:
            if snapshot.is_dir():
                snapshot.rmdir()

    monkeypatch.setattr(ray_train, "_remove_invalid_list", look_once_and_mend)

    def meanwhile() -> StopReason | None:
        if not broken and any(isinstance(event, CheckpointSaved) for event in events):
            while not snapshot.is_dir():  # Ray may write it meanwhile
                snapshot.unlink(missing_ok=True)
                with suppress(FileExistsError):
                    snapshot.mkdir()
            broken.append(True)
        kinds = [type(event) for event in events]
        again = kinds.count(StageStarted) == 2 and CheckpointSaved in kinds[kinds.index(StageStarted, 1) :]
        return StopReason(StopKind.SWEEP_ENDED) if again else None

    with pytest.raises(Stopped, match=r"^stopped by the end of the sweep at step \d+, with a checkpoint"):
        run_stage_on_ray("source", load(Settings, None, stage_words(tmp_path)), events.append, meanwhile)
    notes = [event.text for event in events if isinstance(event, Note)]
    notes = [text for text in notes if not text.startswith("bound by ")]  # what a busy machine may add
    assert notes[0].startswith("storage failed under Ray's controller (")
    assert notes[1].startswith("resumed from the checkpoint of step ")
