"""The output of a sweep: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from fourds_dist.experiments.sweep.live_table import LiveTable
from fourds_dist.runs.events import EpochEnded, Validation
from tests.experiments.sweep.small import ledger_of, small_plan

POINT = {"distill_stage.optim.lr": 0.0312345, "method.phase_loss": "squared", "method.gate_reduction": 8}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_sweep_under_way(tmp_path: Path, is_terminal: bool) -> None:
    plan, out = small_plan(tmp_path), io.StringIO()
    trial_store = ledger_of(plan, [POINT, {**POINT, "distill_stage.optim.lr": 0.9}])
    running = trial_store.trials["small-0001-s0"]
    running.state, running.tested, running.history = "running", None, [(1, 0.25)]
    epoch = EpochEnded(
        step=4,
        epoch=2,
        loss=1.0,
        images_per_s=1.0,
        validation={"teacher": Validation(0.5)},
        num_evaluated=1,
        is_best=True,
        left_s=0.0,
    )
    console = Console(file=out, force_terminal=is_terminal, width=140, no_color=True)
    with LiveTable(plan, trial_store, console, 2) as view:
        view.tell("epoch", running)
        running.failures.append("was killed")
        view.tell("recovers", running)
        view.teachers([("t", epoch)])
        view.refresh()
    told = out.getvalue()
    assert "small: 8 trials; 1 of them over, 1 to go on with, 2 at once" in told
    assert "small-0001-s0: was killed; goes on from its checkpoint" in told
    assert "t: epoch 2, validation teacher 50.0%" in told
    if is_terminal:
        assert "2 of 8 trials: 1 running, 1 done" in told
        assert "1/4" in told
        assert "0.0312" in told
    else:
        assert "small-0001-s0: epoch 1 of 4, val/student 25.0%" in told
        assert "\x1b" not in told


def test_values_of_a_label_free_criterion_are_no_percentages(tmp_path: Path) -> None:
    plan, out = small_plan(tmp_path, "run.select_by=entropy"), io.StringIO()
    trial_store = ledger_of(plan, [POINT])
    trial = next(iter(trial_store.trials.values()))
    trial.history, trial.tested, trial.state = [(1, -0.5)], None, "done"  # no test labels
    assert plan.measure == "entropy"
    with LiveTable(plan, trial_store, Console(file=out, width=140, no_color=True), 2) as view:
        view.tell("done", trial)
    assert f"{trial.name}: done, val/student -0.500; best so far -0.500" in out.getvalue()
    assert small_plan(tmp_path).measure == "accuracy"
