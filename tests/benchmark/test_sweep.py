"""`benchmark sweep`: marks of the driver's state, and figures computed from marks."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from fourds_dist.benchmark.sweep import Mark, MarkedTrialStore, add_arguments, show
from fourds_dist.experiments.sweep.trial_store import Trial
from tests.experiments.sweep.small import small_plan

OPTIONS = argparse.Namespace(search="random", scheduler="asha", max_concurrent_trials=8)


def test_costs_of_a_trial_are_differences_of_marks(capsys: pytest.CaptureFixture[str]) -> None:
    """Each trial takes 0.5 s and 30 ms of the driver; each needs 10 kB."""
    marks = [Mark(n, 7 + 0.5 * n, 3 + 0.03 * n, 100_000_000 + 10_000 * n) for n in (50, 100, 150, 200)]
    show(marks, OPTIONS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "random, asha, 8 at once"
    assert [line.split() for line in lines[2:5]] == [
        ["51-100", "0.50", "30.0", "101"],
        ["101-150", "0.50", "30.0", "102"],
        ["151-200", "0.50", "30.0", "102"],
    ]
    # 9,800 trials of 30 ms; 102 MB and 9,800 times 10 kB.
    assert lines[5] == (
        "extrapolated to 10000: 5 min more CPU time of the driver, 200 MB (10.0 kB per trial)"
    )


def test_a_growing_cost_is_extrapolated(capsys: pytest.CaptureFixture[str]) -> None:
    """The cost grows by 1 ms from the second quarter to the last, over 100 trials: 0.01 ms per trial."""
    cpu_s = (0.0, 0.5, 1.025, 1.575)  # 10, 10.5 and 11 ms per trial
    show([Mark(50 * (k + 1), 0.0, cpu_s[k], 0) for k in range(4)], OPTIONS)
    seconds = 0.011 * 9800 + 0.01e-3 * 9800**2 / 2
    assert f"extrapolated to 10000: {seconds / 60:.0f} min" in capsys.readouterr().out


def test_the_driver_is_marked_after_each_quarter_of_the_finished_trials(tmp_path: Path) -> None:
    trial_store = MarkedTrialStore(small_plan(tmp_path), 8)
    trial = Trial("t", number=0, seed=0, params={}, num_epochs=4, state="running")
    for number in range(8):
        trial_store.write(replace(trial, name=f"t{number}"))
        trial_store.write(replace(trial, name=f"t{number}", state="done"))
    assert [mark.trials for mark in trial_store.marks] == [2, 4, 6, 8]
    clocks = [mark.clock_s for mark in trial_store.marks]
    assert clocks == sorted(clocks)
    assert all(mark.memory_bytes > 1 << 20 for mark in trial_store.marks)


def test_fewer_trials_than_quarters_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["--trials", "4"]).trials == 4
    with pytest.raises(SystemExit):
        parser.parse_args(["--trials", "3"])
    assert "argument --trials: 3; give 4 to 1000000" in capsys.readouterr().err
