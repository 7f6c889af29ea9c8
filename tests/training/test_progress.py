"""What a person reads while a run goes on."""

from __future__ import annotations

import pytest

from fourds_dist.training.progress import ProgressView


def test_plain_lines_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressView()
    stage = {"stage": "distill"}
    view(
        stage
        | {"event": "start", "step": 5, "num_epochs": 3, "num_steps_per_epoch": 5, "text": "64 images a step"}
    )
    view(stage | {"event": "step", "step": 10, "images_per_s": 100.0})
    epoch = {"event": "epoch", "step": 10, "epoch": 2, "loss": 0.5, "images_per_s": 100.0, "left_s": 75.0}
    view(stage | epoch | {"is_best": True, "val/student": 0.9, "val/teacher_adapted": 0.75})
    view(stage | {"event": "note", "step": 10, "text": "[/gloo/pair.cc:545] Read error [::1]"})  # no markup
    view(stage | {"event": "end", "step": 15})
    assert capsys.readouterr().err.splitlines() == [
        "distillation: 3 epochs, 5 steps each, 64 images a step, going on from step 5",
        "distillation: epoch 2: loss 0.500, validation student 90.0%, teacher_adapted 75.0% (best), 100 images/s, "
        "1 min 15 s left",
        "distillation: [/gloo/pair.cc:545] Read error [::1]",
    ]
