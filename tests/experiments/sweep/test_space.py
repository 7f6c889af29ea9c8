"""What a space draws, enumerates and refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.sweep.space import SearchDimension, Space, flattened


def space(parameters: dict, base: dict | None = None) -> Space:
    found = {k: SearchDimension.model_validate(v) for k, v in flattened(parameters)}
    return Space(found, lambda key: (base or {}).get(key))


CONDITIONAL = {
    "gate": {"choice": [8, 16], "when": {"loss": "squared"}},
    "loss": {"choice": ["circular", "squared"]},
    "lr": {"loguniform": [1e-3, 1.0]},
    "stages": {"randint": [1, 3]},
}


@given(seed=st.integers(0, 10_000))
def test_draws_stay_within_and_conditions_hold(seed: int) -> None:
    params = space(CONDITIONAL).draw(np.random.default_rng(seed))
    assert 1e-3 <= params["lr"] <= 1.0
    assert params["stages"] in (1, 2, 3)
    assert ("gate" in params) == (params["loss"] == "squared")


def test_loguniform_gives_every_decade_as_much() -> None:
    rng, lr = np.random.default_rng(0), SearchDimension(loguniform=(1e-3, 1.0))
    decades = Counter(int(np.floor(np.log10(lr.draw(rng)))) for _ in range(3000))
    assert all(900 < decades[d] < 1100 for d in (-3, -2, -1))


def test_optuna_proposes_points_of_the_same_space() -> None:
    whole = space(CONDITIONAL | {"pair": {"choice": [[1, 2], None]}})
    study = optuna.create_study()
    points = [whole.ask(study.ask()) for _ in range(30)]
    assert all(("gate" in p) == (p["loss"] == "squared") for p in points)
    assert {repr(p["pair"]) for p in points} == {"[1, 2]", "None"}
    params = points[0]
    back = {k: whole.parameters[k].of_label(v) for k, v in whole.as_optuna(params).items()}
    assert back == params


def test_grids_multiply_and_inactive_keys_make_no_copies() -> None:
    grid = space(
        {
            "loss": {"grid": ["circular", "squared"]},
            "gate": {"grid": [8, 16], "when": {"loss": "squared"}},
            "seed": {"grid": [0, 1]},
        }
    ).grid()
    assert len(grid) == 2 * (1 + 2)
    assert {"loss": "circular", "seed": 1} in grid
    assert {"loss": "squared", "gate": 16, "seed": 0} in grid
    assert space({"a": {"uniform": [0, 1]}}).grid() == [{}]


def test_conditions_on_keys_that_do_not_vary() -> None:
    parameters = {"gate": {"choice": [8], "when": {"loss": ["squared", "other"]}}}
    assert space(parameters, {"loss": "squared"}).draw(np.random.default_rng(0)) == {"gate": 8}
    with pytest.raises(ConfigError, match=r"space.gate.when: loss is 'circular' and does not vary"):
        space(parameters, {"loss": "circular"})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"a": {"choise": [1]}}, r"space.a.choise: .* did you mean 'choice'"),
        ({"a": {"choice": [1], "uniform": [0, 1]}}, "give one of .* not choice and uniform"),
        ({"a": {"when": {"b": 1}}}, "not none of them"),
        ({"a": {"choice": []}}, "choice is empty"),
        ({"a": {"choice": [1, 1]}}, "names a value twice"),
        ({"a": {"uniform": [2, 1]}}, r"uniform: \[2.0, 1.0\] should be \[low, high\]"),
        ({"a": {"loguniform": [0, 1]}}, "loguniform: 0 is not above 0"),
        ({"a": {"choice": [1], "when": {"b": 3}}, "b": {"choice": [1, 2]}}, r"space.a.when: b is never 3"),
        (
            {"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}},
            "go in a circle",
        ),
        ({"a": {"grid": [1], "when": {"b": 1}}, "b": {"choice": [1]}}, "a grid cannot depend on b"),
        (
            {name: {"grid": list(range(10))} for name in "abcdefghijkl"},
            r"space: its grids are 1000000000000 points \(10 of a x 10 of b x .*\), and at most 100000 are allowed",
        ),
    ],
)
def test_refused(parameters: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space(parameters)
