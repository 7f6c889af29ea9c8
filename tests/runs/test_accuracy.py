"""Accuracy of a network on a split: its measures, and what compares epochs."""

from __future__ import annotations

import math

import pytest

from fourds_dist.runs.accuracy import Accuracy


def test_the_share_of_correct_predictions() -> None:
    assert Accuracy(3, 4, 1.0).value == 0.75
    assert Accuracy(0, 0, 0.0).value == 0.0


def test_every_finite_loss_is_lower_than_none() -> None:
    assert Accuracy(1, 2, 1.0).loss_or_infinity == math.inf
    assert Accuracy(1, 2, 1.0, loss=1e300).loss_or_infinity == 1e300


@pytest.mark.parametrize(
    ("accuracy", "by_mean", "by_accuracy"),
    [
        (Accuracy(4, 16, 1.0), (0.25, math.sqrt(3) / 16), (0.25, math.sqrt(3) / 16)),
        (Accuracy(4, 16, 1.0, 0.5, 0.4, 0.02, 3), (0.4, 0.02), (0.25, math.sqrt(3) / 16)),
        (Accuracy(4, 16, 1.0, mean_per_class=0.0), (0.0, 0.0), (0.25, math.sqrt(3) / 16)),
        (Accuracy(16, 16, 1.0), (1.0, 0.0), (1.0, 0.0)),
        (Accuracy(0, 0, 0.0), (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_measures_have_standard_errors(
    accuracy: Accuracy, by_mean: tuple[float, float], by_accuracy: tuple[float, float]
) -> None:
    assert accuracy.measured("balanced_accuracy") == pytest.approx(by_mean)
    assert accuracy.measured("accuracy") == pytest.approx(by_accuracy)
