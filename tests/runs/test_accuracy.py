"""Accuracy of a network on a split: its measures, and what compares epochs."""

from __future__ import annotations

import math

import pytest

from fourds_dist.runs.accuracy import Accuracy


def test_the_share_of_correct_predictions() -> None:
    assert Accuracy(3, 4, 1.0).value == 0.75
    assert Accuracy(0, 0, 0.0).value is None  # no labels


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
        (Accuracy(0, 0, 0.0, num_images=9), (math.nan, 0.0), (math.nan, 0.0)),
    ],
)
def test_measures_have_standard_errors(
    accuracy: Accuracy, by_mean: tuple[float, float], by_accuracy: tuple[float, float]
) -> None:
    assert accuracy.measured("balanced_accuracy") == pytest.approx(by_mean, nan_ok=True)
    assert accuracy.measured("accuracy") == pytest.approx(by_accuracy, nan_ok=True)


def test_label_free_measures_have_no_standard_error() -> None:
    accuracy = Accuracy(0, 0, 1.0, num_images=9, criteria={"entropy": -2.5})
    assert accuracy.measured("entropy") == (-2.5, 0.0)
    assert math.isnan(accuracy.measured("snd")[0])  # not computed, or not finite
    assert (accuracy.num_evaluated, Accuracy(3, 4, 1.0).num_evaluated) == (9, 4)
