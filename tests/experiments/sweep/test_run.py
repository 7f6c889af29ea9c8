"""A sweep's folder: written, read from any store, and refused for another sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.cli.tune import main
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.run import claim, keep, read_sweep
from fourds_dist.experiments.sweep.trial_store import TrialStore
from tests.experiments.sweep.small import ledger_of, small_plan

LR = "distill_stage.optim.lr"


def test_a_sweep_in_an_object_store_resumes_from_the_store_alone(tmp_path: Path) -> None:
    plan = small_plan(
        tmp_path, "run.dir=memory://bucket/runs", "distill_stage.epochs=6", "method.preset=4ds_released"
    )
    keep(plan)
    known = ledger_of(
        plan, [{LR: 0.1, "method.phase_loss": "circular"}, {LR: 0.01, "method.phase_loss": "circular"}]
    )
    (tmp_path / "run.yaml").unlink()
    (tmp_path / "sweep.yaml").unlink()

    again = read_sweep("memory://bucket/runs/small/", ["budget.trials=80", "launch.workers=3"])
    assert again.url == "memory://bucket/runs/small"
    assert (again.num_trials(), again.run.launch.workers, again.max_epochs()) == (80, 3, 6)
    assert again.settings({}).method.phase_loss == "squared"
    assert again.config.space == plan.config.space
    assert TrialStore.read(again.url, "max").trials == known.trials
    claim(again, resume=True)


def test_who_may_have_a_folder(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    claim(plan, resume=True)  # a job that is tried again may not have come as far as its folder
    claim(plan, resume=False)
    keep(plan)
    claim(plan, resume=False)  # there was no room in the cluster, or Ctrl-C came before its first trial
    ledger_of(plan, [{LR: 0.1, "method.phase_loss": "circular"}])
    with pytest.raises(ConfigError, match="holds a sweep already; --resume goes on with it"):
        claim(plan, resume=False)
    claim(
        small_plan(tmp_path, "budget.trials=20", "max_concurrent_trials=2", "launch.workers=4"), resume=True
    )
    claim(small_plan(tmp_path, "data.threads=1", "step.max_nonfinite_steps=3"), resume=True)
    for words, told in (
        (("metric=val/teacher_adapted",), "metric: 'val/student' -> 'val/teacher_adapted'"),
        (
            ("space.distill_stage.optim.lr={uniform: [0.1, 1]}",),
            r"holds another sweep \(space.distill_stage.optim.lr",
        ),
        (("distill_stage.epochs=9",), "distill_stage.epochs: 4 -> 9"),
    ):
        with pytest.raises(ConfigError, match=told):
            claim(small_plan(tmp_path, *words), resume=True)


def test_the_command_refuses_in_one_line(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path)]) == 1
    assert "is not a sweep file (.yaml); built-in sweep files:" in capsys.readouterr().err
    assert main([str(tmp_path), "--resume"]) == 1
    assert f"error: {tmp_path} holds no sweep" in capsys.readouterr().err
    small_plan(tmp_path)
    assert main([str(tmp_path / "sweep.yaml"), "space.method.temperatur={uniform: [1, 2]}"]) == 1
    assert "did you mean 'method.temperature'" in capsys.readouterr().err
