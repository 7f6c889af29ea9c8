"""Means and their intervals, against numbers worked out by hand and another implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.experiments.compare.statistics import mean_of, mean_over


def test_by_hand() -> None:
    """Differences 1, 2, 3, 6: mean 3, variance 14/3, standard error 1.0801, t(3) = 3.1824."""
    mean = mean_of([1.0, 2.0, 3.0, 6.0])
    assert mean.value == 3.0
    assert mean.num == 4
    assert mean.half_width == pytest.approx(3.182446 * math.sqrt(14 / 3 / 4), rel=1e-6)
    assert (mean.low, mean.high) == (3.0 - mean.half_width, 3.0 + mean.half_width)


def test_a_single_number_has_no_interval() -> None:
    mean = mean_of([0.25])
    assert (mean.value, mean.low, mean.high) == (0.25, None, None)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20))
def test_as_scipy_s_own(values: list[float]) -> None:
    from scipy import stats

    mean = mean_of(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    expected = float(stats.t.ppf(0.975, len(values) - 1)) * error
    assert mean.half_width == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_it_holds_the_truth_in_19_of_20_cases() -> None:
    rng = np.random.default_rng(0)
    means = [mean_of(list(rng.normal(0.3, 1.0, size=6))) for _ in range(2000)]
    share = np.mean([(m.low or 0) <= 0.3 <= (m.high or 0) for m in means])
    assert share == pytest.approx(0.95, abs=0.015)


def test_it_holds_the_truth_where_seeds_of_a_pair_are_alike() -> None:
    """Six pairs whose gains differ, three seeds of each that differ as much."""
    rng = np.random.default_rng(0)
    trials = [rng.normal(0.3, 1.0, size=(6, 1)) + rng.normal(0.0, 1.0, size=(6, 3)) for _ in range(2000)]
    means = [mean_over([list(pair) for pair in trial]) for trial in trials]
    share = np.mean([(m.low or 0) <= 0.3 <= (m.high or 0) for m in means])
    assert share == pytest.approx(0.95, abs=0.015)


def test_a_pair_counts_once_however_many_seeds_it_has() -> None:
    assert mean_over([[1.0, 3.0, 2.0], [6.0]]) == mean_of([2.0, 6.0])
    assert mean_over([[1.0, 3.0]]) == mean_of([1.0, 3.0])
