"""Selection of the epoch: the most accurate, and within one standard error the one of the lowest loss."""

from __future__ import annotations

import math

import pytest

from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.training.train_state import Best


def chosen(*epochs: tuple[int, float | None], num: int = 32) -> int:
    """The epoch selected from (number correct of `num`, loss)."""
    best = Best()
    for epoch, (right, loss) in enumerate(epochs, 1):
        value, error = Accuracy(right, num, 1.0, loss=loss).measured("accuracy")
        best = best.after(value, error, loss, 10 * epoch, epoch, dict)
    return best.epoch


@pytest.mark.parametrize(
    ("epochs", "epoch"),
    [
        ([(32, 1.13), (32, 0.9), (32, 0.35), (32, 0.4)], 3),  # ties
        ([(20, 1.0), (28, 0.5), (27, 0.4)], 3),  # 1/32 is within one standard error, 1.9/32
        ([(20, 1.0), (28, 0.5), (25, 0.4)], 2),  # 3/32 is not
        ([(27, 0.4), (28, 0.5)], 1),
        ([(24, 0.1), (28, 0.5)], 2),
        ([(28, 0.5), (27, 0.4), (26, 0.3), (25, 0.2)], 2),  # errors are counted from the highest accuracy
        ([(27, 0.3), (28, 0.5), (31, 0.6)], 3),
        ([(28, None), (28, None), (29, None)], 3),
        ([(0, 5.0), (0, 6.0)], 1),
        ([(0, math.inf), (0, 6.0)], 2),  # a loss that is not finite
        ([(28, 0.5), (28, math.inf)], 1),
    ],
)
def test_the_selected_epoch(epochs: list[tuple[int, float | None]], epoch: int) -> None:
    assert chosen(*epochs) == epoch


def test_the_error_shrinks_with_the_split() -> None:
    assert chosen((280, 0.5), (278, 0.4), num=320) == 2
    assert chosen((28000, 0.5), (27800, 0.4), num=32000) == 1


def test_the_best_epoch_is_restored_from_a_checkpoint() -> None:
    best = Best().after(0.9, 0.05, 0.5, 10, 1, dict)
    again = Best(**vars(best))
    assert again == best
    assert again.after(0.86, 0.05, 0.4, 20, 2, dict).epoch == 2
    old = Best(accuracy=0.9, step=10, epoch=1, weights={})  # of a version that stored no losses
    assert old.after(0.9, 0.05, 0.4, 20, 2, dict) is old
    assert math.isclose(old.after(0.95, 0.05, 0.4, 20, 2, dict).accuracy, 0.95)
