"""The sweep file and the run it varies: read, checked, and refused with the key's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourds_dist.config.loading import builtin_config
from fourds_dist.experiments.sweep.plan import SweepPlan, check_trials, read_plan

SWEEPS = sorted(builtin_config("sweeps").glob("*.yaml"))
FILE = """\
name: small
config: run.yaml
changes: { distill_stage.epochs: 4, launch: { workers: 2 } }
space:
  method.temperature: { uniform: [1, 8] }
  distill_stage: { optim: { lr: { loguniform: [0.01, 0.1] } } }
budget: { trials: 4 }
scheduler: { name: none }
"""


@pytest.fixture
def plan(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("run: { seed: 5 }\nsource: { url: a }\ntarget: { url: b }\n")
    (tmp_path / "sweep.yaml").write_text(FILE)

    def read(*overrides: str) -> SweepPlan:
        return read_plan(tmp_path / "sweep.yaml", overrides, folder=tmp_path)

    return read


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_shipped_sweeps_are_whole(path: Path) -> None:
    assert read_plan(path).num_trials()


def test_changes_space_and_command_line_meet_in_a_trial(plan, tmp_path: Path) -> None:
    read = plan("distill_stage.epochs=6", "budget.trials=8", "method.preset=4ds_released")
    assert (read.config.budget.trials, read.max_epochs()) == (8, 6)
    settings = read.settings({"method.temperature": 2.0}, seed=7, name="small-0000-s7")
    assert (settings.launch.workers, settings.method.temperature, settings.run.seed) == (2, 2.0, 7)
    assert settings.method.phase_loss == "squared"  # the preset still fills what is left out
    assert settings.target.url == f"{tmp_path}/b"
    assert settings.run_url == f"{tmp_path}/runs/small/trials/small-0000-s7"
    assert settings.tracking.group == "small"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("space.method.temperatur={uniform: [1, 2]}", "'method.temperatur' in the space; did you mean 'method.temp"),
        ("space.method.temperature={uniform: [-1, 2]}", "space.method.temperature: -1.0 cannot be: .* greater than 0"),
        ("space.method.preset={choice: [authers]}", "space.method.preset: authers cannot be"),
        ("space.run.seed={choice: [1]}", "space.run.seed: this key is the sweep's own"),
        ("space.method.temperature={choice: [1], when: {method.los: x}}", "'method.los' in the space; did you mean"),
        ("budget.trial=3", "did you mean 'budget.trials'"),
        ("lunch.workers=3", "did you mean 'launch'"),
        ("seeds=3", "budget.trials: 4 is no multiple of seeds=3"),
        ("budget.trials=null", "budget.trials: not set"),
        ("search=bayes", "search: .*'random' or 'optuna'"),
        ("metric=loss", "metric: .*'val/student'"),
    ],
)  # fmt: skip
def test_refused(plan, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(override)


def test_keys_that_vary_together(plan) -> None:
    key = "teacher.stages, student.stages"
    read = plan(f"space={{'{key}': {{choice: [[layer1, layer2], [layer3]]}}}}")
    settings = read.settings({key: ["layer3"]})
    assert settings.teacher.stages == settings.student.stages == ("layer3",)
    with pytest.raises(ValueError, match=r"'student.stags' in the space; did you mean 'student.stages'"):
        plan("space={'teacher.stages, student.stags': {choice: [[layer1], null]}}")


def test_the_longest_trial_is_that_of_the_largest_number_of_epochs(plan) -> None:
    for key in ("distill_stage.epochs", "source_stage.epochs, distill_stage.epochs"):
        read = plan(f"space={{'{key}': {{choice: [3, 9, 6]}}}}")
        assert (read.max_epochs(), read.num_epochs({key: 6}), read.num_epochs({})) == (9, 6, 4)


def test_networks_and_data_of_every_value_are_checked(plan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="b: no such folder"):
        check_trials(plan())
