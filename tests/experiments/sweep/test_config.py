"""The sweep file: what its keys mean, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fourds_dist.experiments.sweep.config import SweepConfig
from fourds_dist.runs.layout import Network

CHOICE, GRID = {"choice": [1, 2]}, {"grid": [1, 2]}
GIVEN: dict[str, Any] = {"space": {"a.b": CHOICE}, "budget": {"trials": 6}}


def test_the_metric_is_an_accuracy_of_a_network() -> None:
    assert SweepConfig(**GIVEN).network == Network.STUDENT
    assert SweepConfig(**GIVEN, metric="val/teacher_adapted").network == Network.TEACHER_ADAPTED


def test_keys_of_the_space_are_dotted_or_nested() -> None:
    dotted = SweepConfig(**GIVEN)
    nested = SweepConfig(**{**GIVEN, "space": {"a": {"b": CHOICE}}})
    assert list(nested.space) == ["a.b"]
    assert nested == dotted
    later = SweepConfig(**{**GIVEN, "space": {"a.b": CHOICE, "a": {"b": {"uniform": [0.0, 1.0]}}}})
    assert later.space["a.b"].kind == "uniform"  # as an override of the file


def test_keys_that_take_turns_by_their_conditions_may_share_a_key() -> None:
    space = {"x": CHOICE, "a, b": {**CHOICE, "when": {"x": 1}}, "b": {**CHOICE, "when": {"x": 2}}}
    assert list(SweepConfig(**{**GIVEN, "space": space}).space) == ["x", "a, b", "b"]


@pytest.mark.parametrize(
    ("budget", "space"),
    [
        ({"trials": 6}, {"a": CHOICE}),
        ({"hours": 0.5}, {"a": CHOICE}),
        ({"epochs": 9}, {"a": CHOICE, "b": GRID}),
        ({}, {"a": GRID, "b": GRID}),
    ],
)
def test_draws_need_a_budget_and_grids_do_not(budget: dict[str, Any], space: dict[str, Any]) -> None:
    SweepConfig(**{**GIVEN, "budget": budget, "space": space})
    with pytest.raises(ValidationError, match=r"budget\.trials: not set, and draws have no end"):
        SweepConfig(**{**GIVEN, "budget": {}, "space": {"a": CHOICE, "b": GRID}})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"space": {}}, "space is empty"),
        ({"seeds": 4}, r"budget\.trials: 6 is no multiple of seeds=4"),
        ({"through": "here", "max_concurrent_trials": 2}, "max_concurrent_trials: 2 needs through=ray or processes"),
        ({"through": "processes", "scheduler": {"name": "hyperband"}}, r"scheduler\.name: hyperband pauses trials"),
        ({"search": "optuna", "space": {"a": GRID}}, r"space\.a: search=optuna does not enumerate grids"),
        ({"space": {"a, b": CHOICE, "b": CHOICE}}, "b varies by 'a, b' and by 'b'; take it out of one of them"),
        ({"space": {"x": {"a, b": CHOICE}, "c, x.a": CHOICE}}, "x.a varies by 'x.a, b' and by 'c, x.a'"),
        ({"space": {"a": [1, 2]}}, r"space\.a: \[1, 2\] is no distribution"),
        ({"space": [1]}, "space"),
        ({"scheduler": {"reduction_factor": 1.0}}, "reduction_factor"),
        ({"budget": {"hours": 0.0}}, "hours"),
        ({"name": "../x"}, "name"),
        ({"retries": -1}, "retries"),
    ],
)  # fmt: skip
def test_refused(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SweepConfig(**{**GIVEN, **keys})
