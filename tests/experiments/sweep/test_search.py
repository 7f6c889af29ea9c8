"""Search algorithms: random draws, grids and TPE propose valid points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.search import OptunaSearch, RandomSearch, as_optuna, make_proposals
from fourds_dist.experiments.sweep.trial_store import Configuration, Trial
from tests.experiments.sweep.small import finished, small_plan

LR, LOSS, GATE = "distill_stage.optim.lr", "method.phase_loss", "method.gate_reduction"


def test_a_random_draw_depends_on_the_seed_and_its_number_alone(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    forth = [make_proposals(plan).propose(number) for number in range(6)]
    again = make_proposals(plan)
    assert [again.propose(number) for number in reversed(range(6))] == forth[::-1]
    assert len({str(point) for point in forth}) == 6
    other = make_proposals(small_plan(tmp_path, "seed=1"))
    assert other.propose(0) != forth[0]
    for point in forth:
        assert point is not None
        assert 0.001 <= point[LR] <= 1
        assert (GATE in point) == (point[LOSS] == "squared")


def test_a_space_of_grids_ends_and_one_with_draws_goes_round(tmp_path: Path) -> None:
    grid = f"{LR}: {{grid: [0.1, 0.2]}}, {LOSS}: {{grid: [circular, squared]}}"
    whole = RandomSearch(small_plan(tmp_path, f"space={{{grid}}}", "budget.trials=null"))
    assert [whole.propose(number) for number in range(5)] == [
        {LR: 0.1, LOSS: "circular"},
        {LR: 0.1, LOSS: "squared"},
        {LR: 0.2, LOSS: "circular"},
        {LR: 0.2, LOSS: "squared"},
        None,
    ]
    mixed = RandomSearch(small_plan(tmp_path, f"space={{{grid}, method.temperature: {{uniform: [1, 8]}}}}"))
    points = [mixed.propose(number) for number in (0, 4)]
    assert [(p[LR], p[LOSS]) for p in points if p] == [(0.1, "circular")] * 2
    assert points[0] != points[1]


@pytest.mark.parametrize("search", ["random", "optuna"])
def test_invalid_points_are_drawn_again(tmp_path: Path, search: str) -> None:
    """Images of 64 pixels cannot be cropped from 32."""
    space = "space={data.crop_px: {choice: [8, 64]}, data.resize_px: {choice: [32, 64]}}"
    proposals = make_proposals(
        small_plan(tmp_path, space, "data={crop_px: 8, resize_px: 64}", f"search={search}")
    )
    points = [proposals.propose(number) for number in range(12)]
    assert {(p["data.crop_px"], p["data.resize_px"]) for p in points if p} == {(8, 32), (8, 64), (64, 64)}


def test_a_space_without_a_valid_point_is_refused(tmp_path: Path) -> None:
    plan = small_plan(
        tmp_path, "data={crop_px: 8, resize_px: 64}", "space={data.resize_px: {choice: [32, 40]}}"
    )
    impossible = replace(plan, base=plan.base.changed({"data.crop_px": 64}, "the test"))
    with pytest.raises(ConfigError, match=r"space: 200 draws in a row are invalid; the last: .*crop_px"):
        RandomSearch(impossible).propose(0)


def configuration(number: int, lr: float, state: str = "done") -> Configuration:
    trial = finished(Trial(f"s-{number}", number, 0, {LR: lr, LOSS: "squared", GATE: 8}, 4), state=state)
    if state == "failed":
        trial.history = []
    return Configuration(number, (trial,), "max")


def test_a_configuration_is_a_trial_of_optuna(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    done = configuration(0, 0.03)
    trial = as_optuna(plan, done)
    assert trial.params == {LR: 0.03, LOSS: "squared", GATE: "8"}
    assert (trial.state, trial.value) == (TrialState.COMPLETE, done.mean)
    assert trial.distributions[LR].to_internal_repr(0.03) == 0.03
    assert as_optuna(plan, done, state=TrialState.RUNNING).value is None


def test_tpe_learns_what_came_of_each_configuration(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "search=optuna")
    known = [configuration(0, 0.03), configuration(1, 0.5, "failed"), configuration(2, 0.1, "running")]
    search = make_proposals(plan, known)
    assert isinstance(search, OptunaSearch)
    trials = search._study.get_trials()
    states = [TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in trials] == states
    assert trials[0].value == known[0].mean
    known[2].trials[0].state = "stopped"
    search.learn(known[2])
    assert search._study.get_trials()[2].value == known[2].mean
    assert search.propose(3) is not None
    assert len(search._study.get_trials()) == 4
