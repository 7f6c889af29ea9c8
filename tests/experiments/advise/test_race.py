"""Successive halving: what is known of methods, and rounds that fit a time."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.experiments.advise.candidates import Candidate, Prior
from fourds_dist.experiments.advise.observation import Observation
from fourds_dist.experiments.advise.race import (
    SEED_SD_POINTS,
    beliefs,
    error_points,
    plan_race,
    ranked,
    sizes,
)


def test_without_observations_the_prior_is_all_that_is_known() -> None:
    found = beliefs({"a": Prior(0, 3), "b": Prior(-2, 4)}, {})
    assert [(each.points, each.sd) for each in found.values()] == [(0, 3), (-2, 4)]


def test_many_images_at_full_length_overrule_the_prior() -> None:
    seen = {"a": Observation.counted(0.5, 10**6, 1.0), "b": Observation.counted(0.6, 10**6, 1.0)}
    found = beliefs({"a": Prior(0, 6), "b": Prior(-2, 6)}, seen)
    assert found["b"].points - found["a"].points == pytest.approx(10, abs=0.4)
    assert ranked(found, ["a", "b"]) == ["b", "a"]


def test_a_short_training_on_few_images_does_not() -> None:
    seen = {"a": Observation.counted(0.5, 50, 1 / 64), "b": Observation.counted(0.52, 50, 1 / 64)}
    found = beliefs({"a": Prior(0, 2), "b": Prior(-2, 2)}, seen)
    assert ranked(found, ["b", "a"]) == ["a", "b"]


def test_the_posterior_is_that_of_a_normal_model() -> None:
    """The means equal those of a least-squares problem with a free level."""
    priors = {"a": Prior(0, 3), "b": Prior(-2, 4), "c": Prior(-5, 2)}
    seen = {name: Observation(value, 0.02, 0.25) for name, value in (("a", 0.5), ("b", 0.55), ("c", 0.4))}
    found = beliefs(priors, seen)
    rows, wanted = [], []
    for i, (name, prior) in enumerate(priors.items()):
        own, error = np.eye(4)[i], error_points(seen[name])
        rows += [own / prior.sd, (own + np.eye(4)[3]) / error]
        wanted += [prior.points / prior.sd, 100 * seen[name].accuracy / error]
    solution = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    assert [each.points for each in found.values()] == pytest.approx(solution[:3])


def test_an_accuracy_of_a_shorter_training_says_less() -> None:
    errors = [error_points(Observation(0.5, 0.02, fraction)) for fraction in (1.0, 0.5, 0.25)]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(math.hypot(2, SEED_SD_POINTS))


def test_trainings_at_chance_leave_the_order_to_the_prior() -> None:
    seen = {"a": Observation.counted(0.10, 1000, 0.05), "b": Observation.counted(0.14, 1000, 0.05)}
    found = beliefs({"a": Prior(0, 2), "b": Prior(-2, 2)}, seen)
    assert ranked(found, ["b", "a"]) == ["a", "b"]


@given(st.integers(1, 12))
def test_half_of_the_methods_leave_after_each_round(num: int) -> None:
    found = sizes(num)
    assert found[0] == num
    assert found[-1] == min(num, 2)
    assert all(b == max(2, math.ceil(a / 2)) for a, b in pairwise(found))


@given(st.integers(1, 8), st.floats(1, 10**5), st.floats(0.001, 0.1))
def test_rounds_fit_the_time_and_double(num: int, seconds: float, least: float) -> None:
    methods = [Candidate(str(number), {}) for number in range(num)]

    def cost(candidate: Candidate, fraction: float) -> float:
        return 1 + 100 * (1 + int(candidate.name) % 2) * fraction

    race = plan_race(methods, seconds, cost, least_fraction=least)
    assert len(race.fractions) == len(sizes(num))
    assert all(b == pytest.approx(min(1.0, 2 * a)) for a, b in pairwise(race.fractions))
    if race.fractions[0] > least * 1.001:
        assert race.seconds <= seconds
    longer = plan_race(methods, 2 * seconds, cost, least_fraction=least)
    assert longer.fractions[0] >= race.fractions[0] * (1 - 1e-9)
    assert plan_race(methods, 1e9, cost, least_fraction=least).fractions[0] == 1.0
