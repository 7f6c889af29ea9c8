"""The accuracy at full length from those of short trainings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourds_dist.experiments.advise.forecast import forecast
from fourds_dist.experiments.advise.observation import Observation

SEEN = st.builds(Observation.counted, st.floats(0, 1), st.integers(10, 5000), st.floats(0.01, 1))


@given(st.lists(SEEN, min_size=1, max_size=4))
def test_the_interval_has_the_forecast(seen: list[Observation]) -> None:
    found = forecast(sorted(seen, key=lambda each: each.fraction))
    assert found is not None
    assert 0 < found.low < found.value < found.high < 1


@given(st.floats(0.05, 0.95), st.integers(50, 5000))
def test_at_full_length_it_is_the_accuracy(accuracy: float, num: int) -> None:
    found = forecast([Observation.counted(accuracy, num, 1.0)])
    assert found is not None
    assert found.value == pytest.approx(accuracy)


@given(st.floats(0.05, 0.95), st.integers(50, 5000))
def test_the_shorter_the_training_the_wider_and_the_higher(accuracy: float, num: int) -> None:
    found = [forecast([Observation.counted(accuracy, num, fraction)]) for fraction in (1.0, 0.5, 0.1)]
    values = [each.value for each in found if each is not None]
    assert values == sorted(values)


def test_a_steep_curve_is_extrapolated_higher_than_a_flat_one() -> None:
    steep = [Observation.counted(a, 1000, f) for a, f in ((0.2, 0.1), (0.35, 0.2), (0.5, 0.4))]
    flat = [Observation.counted(a, 1000, f) for a, f in ((0.5, 0.1), (0.5, 0.2), (0.5, 0.4))]
    first, second = forecast(steep), forecast(flat)
    assert first is not None
    assert second is not None
    assert first.value > second.value >= 0.5


def test_more_images_narrow_the_interval() -> None:
    widths = []
    for num in (20, 200, 2000):
        found = forecast([Observation.counted(0.7, num, 0.5)])
        assert found is not None
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)


def test_nothing_was_measured() -> None:
    assert forecast([]) is None
