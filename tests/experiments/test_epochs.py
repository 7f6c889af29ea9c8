"""The epochs of a run, as its metrics and its summary hold them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.stage_names import StageName
from fourds_dist.experiments.epochs import accuracy_of, epochs_of, last_epoch
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import EpochEnded, Event, Note, Validation, encode
from fourds_dist.runs.layout import Network, RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import NetworkResult, RunSummary


def test_epochs_are_read_from_the_run_also_where_a_kill_cut_its_last_line(tmp_path: Path) -> None:
    def ended(epoch: int, accuracy: float, stage: StageName = "distill") -> Event:
        validation = {"student": Validation(accuracy)}
        about = {"loss": 1.0, "images_per_s": 1.0, "num_evaluated": 1, "is_best": True, "left_s": 0.0}
        return EpochEnded(step=epoch, epoch=epoch, validation=validation, **about).stamped(stage, 0)

    events = [ended(1, 0.9, "source"), Note(step=1, stage="distill", text=""), ended(1, 0.3), ended(2, 0.5)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(encode, events)) + '\n{"stage": "dist')
    assert list(epochs_of(RunFolder(str(tmp_path)), Network.STUDENT)) == [(1, 0.3), (2, 0.5)]


def ended(epoch: int, stage: StageName = "distill", **accuracies: float) -> EpochEnded:
    return EpochEnded(
        step=epoch, epoch=epoch, loss=1.0, images_per_s=1.0, num_evaluated=1, is_best=True, left_s=0.0,
        validation={network: Validation(accuracy) for network, accuracy in accuracies.items()},
    ).stamped(stage, 0)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (ended(3, student=0.25, teacher_adapted=0.5), (3, 0.5)),
        (ended(3, student=0.25), None),
        (ended(3, "adapt", teacher_adapted=0.5), None),
        (Note(step=3, stage="distill", text="epoch"), None),
    ],
)
def test_only_epochs_of_distillation_have_an_accuracy(event: Event, found: tuple[int, float] | None) -> None:
    assert accuracy_of(event, Network.TEACHER_ADAPTED) == found


def test_a_run_that_has_not_begun_has_no_epochs(tmp_path: Path) -> None:
    assert list(epochs_of(RunFolder(str(tmp_path)), Network.STUDENT)) == []


def test_the_last_epoch_comes_with_the_test_accuracy_of_the_student(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    events = [ended(1, teacher_adapted=0.5, student=0.2), ended(2, teacher_adapted=0.4, student=0.3)]
    folder.write_text(RunFile.METRICS, "".join(f"{encode(event)}\n" for event in events))
    names = {"student": Accuracy(3, 4, 1.0), "teacher with adapters": Accuracy(1, 4, 1.0)}
    lines = tuple(NetworkResult(name, 1, None, accuracy) for name, accuracy in names.items())
    folder.write_json(RunFile.SUMMARY, RunSummary("x", lines, 0.2, 1, 0.3, 1.0, 1).as_dict())
    assert last_epoch(folder, Network.TEACHER_ADAPTED) == (2, 0.4, 0.75)
    assert last_epoch(folder, Network.STUDENT) == (2, 0.3, 0.75)
    folder.write_text(RunFile.METRICS, f"{encode(events[0])[:-5]}\n")
    with pytest.raises(
        ValueError, match=rf"{tmp_path}/metrics\.jsonl has no epoch .* of student, .* restore the file"
    ):
        last_epoch(folder, Network.STUDENT)
