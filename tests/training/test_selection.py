"""Best epochs: one for the whole task, or one for each of several networks, through checkpoints too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.training.selection import best_after, best_network
from fourds_dist.training.train_state import Best

APART = {"student/a": "students.0.", "student/b": "students.1."}


def accuracy(num_correct: int, loss: float | None = None) -> Accuracy:
    return Accuracy(num_correct, 1000, 1.0, loss=loss)


def weights_of(epoch: int) -> dict[str, Tensor]:
    return {
        name: torch.tensor(float(epoch)) for name in ("students.0.w", "students.1.w", "adapters.w", "ratio")
    }


def after(
    epochs: list[tuple[Accuracy, Accuracy]],
    apart: dict[str, str],
    weights: Callable[[int], dict[str, Tensor]] = weights_of,
    *,
    through: Callable[[Best], Best] = lambda best: best,
) -> Best:
    best = Best()
    for epoch, (a, b) in enumerate(epochs, 1):
        accuracies = {"student/a": a, "student/b": b, "teacher_adapted": accuracy(0)}
        best = through(
            best_after(
                best,
                accuracies,
                monitored="student/b",
                selected_apart=apart,
                select_by="accuracy",
                step=10 * epoch,
                epoch=epoch,
                weights=lambda epoch=epoch: weights(epoch),
            )
        )
    return best


EPOCHS = [(accuracy(900), accuracy(100)), (accuracy(500), accuracy(700)), (accuracy(100), accuracy(800))]
"""Student a is best in epoch 1, b in epoch 3, and their mean in epoch 2."""


@pytest.mark.parametrize("through", [lambda best: best, lambda best: Best.of_state(best.state())])
def test_each_network_has_its_own_best_epoch_and_the_rest_that_of_the_best_mean(
    through: Callable[[Best], Best],
) -> None:
    best = after(EPOCHS, APART, through=through)
    assert {name: own.epoch for name, own in best.apart.items()} == {"student/a": 1, "student/b": 3}
    assert (best.epoch, best.accuracy) == (2, 0.6)
    found = {name: value.item() for name, value in best.all_weights.items()}
    assert found == {"students.0.w": 1.0, "students.1.w": 3.0, "adapters.w": 2.0, "ratio": 2.0}
    assert best_network(best.apart) == "student/a"


def test_without_networks_apart_the_monitored_one_decides_for_all_weights() -> None:
    best = after(EPOCHS, {})
    assert (best.epoch, best.accuracy, best.apart) == (3, 0.8, {})
    assert {value.item() for value in best.all_weights.values()} == {3.0}


def test_the_loss_of_each_network_decides_between_its_close_epochs() -> None:
    epochs = [
        (accuracy(900, 0.5), accuracy(900, 0.1)),
        (accuracy(901, 0.2), accuracy(901, 0.2)),
    ]
    best = after(epochs, APART)
    assert {name: own.epoch for name, own in best.apart.items()} == {"student/a": 2, "student/b": 1}
    assert best_network(best.apart) == "student/a"  # 901 right, more than 900


def test_weights_are_taken_once_an_epoch() -> None:
    """On several workers this is a collective call."""
    taken: list[int] = []

    def weights(epoch: int) -> dict[str, Tensor]:
        taken.append(epoch)
        return weights_of(epoch)

    after(EPOCHS, APART, weights)
    assert taken == [1, 2, 3]


def test_of_equally_good_networks_the_one_of_the_lower_loss_is_the_best() -> None:
    best = after([(accuracy(900, 0.5), accuracy(900, 0.4))], APART)
    assert best_network(best.apart) == "student/b"
