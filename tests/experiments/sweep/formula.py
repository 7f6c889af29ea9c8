"""Trials that report a formula instead of training; this module is light, for each of their processes imports it."""

from __future__ import annotations

import math
import time
from typing import Any

NUM_EPOCHS = 4


def accuracy(params: dict[str, Any], epoch: int = NUM_EPOCHS) -> float:
    """Best at a learning rate of 0.03; the phase loss hardly matters."""
    quality = 1 - abs(math.log10(params["distill_stage.optim.lr"]) + 1.5) / 3
    return (quality - 0.01 * (params.get("method.phase_loss") == "squared")) * (1 - 0.5**epoch)


def quick(config: dict[str, Any]) -> None:
    """Four epochs at once."""
    from ray import tune

    for epoch in range(1, NUM_EPOCHS + 1):
        value = accuracy(config, epoch)
        tune.report({"epoch": epoch, "metric": value, **({"tested": value} if epoch == NUM_EPOCHS else {})})


def never_over_from_the_third_on(config: dict[str, Any]) -> None:
    """The first two trials are quick, the others end with their driver."""
    quick(config) if int(config["trial"].split("-")[1]) < 2 else time.sleep(10**6)
