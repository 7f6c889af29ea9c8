"""A run's folder as it is read: events, curves, the table, and folders of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.section import ConfigError
from fourds_dist.runs.events import EpochEnded, Note, StageStarted, StageStopped, Validation, encode
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.stages.finished_run import Run, curve, find_runs, names_in, read_bytes


def unfinished(folder: Path) -> Path:
    """The folder of a run that has no events yet."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("source: { url: s }\ntarget: { url: t }\n")
    return folder


def test_a_run_named_twice_is_one(tmp_path: Path) -> None:
    folder = unfinished(tmp_path / "runs" / "digits")
    assert [run.url for run in find_runs([str(folder), f"{folder}/"])] == [str(folder)]
    assert len(find_runs([str(folder), str(folder.parent)])) == 1


def test_a_run_without_events_and_table(tmp_path: Path) -> None:
    run = Run(f"{unfinished(tmp_path / 'a')}/")
    assert (run.name, run.url, repr(run)) == ("a", f"{tmp_path}/a", f"Run('{tmp_path}/a')")
    assert (run.events, run.stages(), run.notes(), run.summary) == ([], [], [], None)
    assert run.settings.target.url == "t"


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path} has no run \(there is no config\.yaml\); give the"):
        Run(str(tmp_path))
    folder = unfinished(tmp_path / "a")
    (folder / "summary.json").write_text('{"lines": [')
    with pytest.raises(ValueError, match=r"a/summary\.json is not a results table: .* remove the file"):
        _ = Run(str(folder)).summary
    (folder / "config.yaml").write_text("no_such_section: 1\n")
    with pytest.raises(ConfigError, match=r"a/config\.yaml"):
        _ = Run(str(folder)).settings


def epoch_of(number: int, loss: float | None) -> EpochEnded:
    about = {"loss": 1.0, "images_per_s": 1.0, "num_evaluated": 1, "is_best": True, "left_s": 0.0}
    return EpochEnded(step=number, epoch=number, validation={"a": Validation(0.5, loss)}, **about)


def started_at(step: int) -> StageStarted:
    return StageStarted(
        step=step, num_epochs=2, num_steps_per_epoch=3, global_batch_size=4, num_workers=1, device="cpu"
    )


def test_events_of_a_run_that_was_stopped_and_killed(tmp_path: Path) -> None:
    stop = StageStopped(step=5, reason=StopReason(StopKind.SIGTERM))
    note = Note(step=2, text="a remark")
    events = [
        event.stamped("source", 0.0) for event in (started_at(0), note, epoch_of(1, 0.5), stop, started_at(5))
    ]
    events.append(started_at(0).stamped("distill", 1.0))
    folder = unfinished(tmp_path / "a")
    (folder / "metrics.jsonl").write_text("\n".join(map(encode, events)) + '\n{"stage": "dist')
    run = Run(str(folder))
    assert run.events == events
    assert run.stages() == ["source", "distill"]
    assert run.notes() == [events[1], events[3], events[4]]  # the first start is none
    assert (run.epochs("source"), run.epochs("distill"), run.steps("source")) == ([events[2]], [], [])


def test_curves_leave_out_values_that_are_missing_or_not_finite() -> None:
    values = [1.0, float("nan"), float("inf"), -1e12, 2.5, None]
    events = [epoch_of(number, value) for number, value in enumerate(values)]
    assert curve(events, lambda event: event.validation["a"].loss) == ([0.0, 4.0], [1.0, 2.5])


def test_names_in_order_of_appearance() -> None:
    assert names_in([{"b": 1, "a": 2}, {}, {"c": 0, "a": 1}]) == ["b", "a", "c"]


def test_runs_of_folders_in_order(tmp_path: Path) -> None:
    for name in ("sweep/b", "sweep/a", "alone"):
        unfinished(tmp_path / name)
    (tmp_path / "sweep" / "teachers").mkdir()
    found = find_runs([f"{tmp_path}/alone", f"{tmp_path}/sweep/", f"{tmp_path}/sweep/a"])
    assert [run.url for run in found] == [f"{tmp_path}/{name}" for name in ("alone", "sweep/a", "sweep/b")]
    with pytest.raises(ValueError, match=r"teachers has no run and no folder of runs"):
        find_runs([f"{tmp_path}/alone", f"{tmp_path}/sweep/teachers"])


def test_bytes_of_a_file_or_of_its_part(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_bytes(f"{tmp_path}/x") == b"0123456789"
    assert read_bytes(f"{tmp_path}/x", 2, 5) == b"234"
    for name in ("none", ""):
        with pytest.raises(ValueError, match=rf"^{tmp_path}/{name}: no such file$"):
            read_bytes(f"{tmp_path}/{name}")
