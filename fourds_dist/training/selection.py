"""The best epoch after one more epoch: one for the whole task, or one for each of several networks.

Networks that learn in one step without an effect on each other (several students) have their best epochs at different
times. The weights that they share, and no network has alone (adapters, statistics of the teacher), are those of the
epoch with the best mean over these networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from torch import Tensor

from fourds_dist.runs.accuracy import LABEL_FREE, Accuracy, Measure
from fourds_dist.training.train_state import Best


def best_after(
    best: Best,
    accuracies: Mapping[str, Accuracy],
    *,
    monitored: str,
    selected_apart: Mapping[str, str],
    select_by: Measure,
    step: int,
    epoch: int,
    weights: Callable[[], dict[str, Tensor]],
) -> Best:
    """Return the best weights after an epoch.

    Args:
        accuracies: validation results by network.
        monitored: network that determines the best epoch of the whole task.
        selected_apart: as `Task.selected_apart`; not empty: each of these networks determines the best epoch of its own
            weights, and `monitored` has no effect.
        select_by: measure of the best weights; the loss decides between close epochs only with a measure of labels.
        weights: returns the weights of the epoch; a collective call, made at most once.
    """
    weights = cache(weights)
    networks = list(selected_apart) or [monitored]
    measured = [accuracies[name].measured(select_by) for name in networks]
    losses = [None if select_by in LABEL_FREE else accuracies[name].loss_or_infinity for name in networks]

    def of(former: Best, value: float, error: float, loss: float | None, prefix: str) -> Best:
        return former.after(
            value, error, loss, step, epoch,
            lambda: {name: tensor for name, tensor in weights().items() if name.startswith(prefix)},
        )  # fmt: skip

    apart = {
        name: of(best.apart.get(name, Best()), value, error, loss, prefix)
        for (name, prefix), (value, error), loss in zip(
            selected_apart.items(), measured, losses, strict=False
        )
    }
    prefixes, num = tuple(selected_apart.values()), len(networks)
    shared = best.after(
        sum(value for value, _ in measured) / num,
        sum(error for _, error in measured) / num,
        None if losses[0] is None else sum(loss or 0.0 for loss in losses) / num,
        step,
        epoch,
        lambda: {name: tensor for name, tensor in weights().items() if not name.startswith(prefixes)},
    )
    return replace(shared, apart=apart)


def best_network(selected: Mapping[str, Best]) -> str:
    """Return the network with the highest measure on the validation split; of equal ones that of the lowest loss."""

    def order(name: str) -> tuple[float, float]:
        loss = selected[name].loss
        return selected[name].accuracy, -math.inf if loss is None else -loss

    return max(selected, key=order)
