"""Console output of a run."""

from __future__ import annotations

import pytest

from fourds_dist.runs.events import (
    EpochEnded,
    Note,
    StageEnded,
    StageStarted,
    StepLogged,
    TimeShares,
    Validation,
    decode,
    encode,
)
from fourds_dist.stages.sinks.console import ProgressView
from fourds_dist.stages.sinks.wandb import flat_values


def test_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressView()
    length = {"num_epochs": 3, "num_steps_per_epoch": 5, "global_batch_size": 64}
    epoch = EpochEnded(
        step=10,
        epoch=2,
        loss=0.5,
        images_per_s=100.0,
        validation={"student": Validation(0.9), "teacher_adapted": Validation(0.75, loss=1.25)},
        num_evaluated=4,
        is_best=True,
        left_s=75.0,
    )
    for event in (
        StageStarted(step=5, **length, num_workers=1, device="CPU"),
        StepLogged(step=10, epoch=2, loss=0.5, losses={}, images_per_s=100.0, shares=TimeShares(0)),
        epoch,
        Note(step=10, text="[/gloo/pair.cc:545] Read error [::1]"),  # no markup
        StageEnded(step=15),
    ):
        view(event.stamped("distill", 0))
    assert capsys.readouterr().err.splitlines() == [
        "distillation: 3 epochs, 5 steps each, 64 images a step, 1 worker (CPU), resuming from step 5",
        "distillation: epoch 2: loss 0.500, validation student 90.0%, teacher_adapted 75.0% (loss 1.250) (best), "
        "100 images/s, 1 min 15 s left",
        "distillation: [/gloo/pair.cc:545] Read error [::1]",
    ]


def test_an_epoch_without_labels_shows_its_criteria(capsys: pytest.CaptureFixture[str]) -> None:
    epoch = EpochEnded(
        step=10,
        epoch=2,
        loss=0.5,
        images_per_s=100.0,
        validation={"student": Validation(None, criteria={"entropy": -0.25, "bnm": 0.5}, selection=-0.25)},
        num_evaluated=4,
        is_best=True,
        left_s=0.0,
    )
    ProgressView()(epoch.stamped("distill", 0))
    line = capsys.readouterr().err
    assert "validation student - (entropy -0.250, bnm 0.500) (best)" in line
    values = flat_values(epoch)
    assert (values["val_entropy/student"], values["val_bnm/student"]) == (-0.25, 0.5)
    assert "val/student" not in values
    assert decode(encode(epoch.stamped("distill", 0))) == epoch.stamped("distill", 0)
