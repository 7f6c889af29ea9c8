"""Construction of a strategy by its name."""

from __future__ import annotations

from typing import Literal

from fourds_dist.training.distributed.world import World
from fourds_dist.training.strategies.base import AllReduce, Strategy
from fourds_dist.training.strategies.ddp import DDPStrategy
from fourds_dist.training.strategies.optim import OptimConfig


def make_strategy(
    kind: Literal["ddp", "deepspeed"],
    world: World,
    optim: OptimConfig,
    num_steps: int,
    *,
    deepspeed: str,
    all_reduce: AllReduce = "float32",
) -> Strategy:
    """Return a strategy by its name; DeepSpeed is imported only for "deepspeed".

    Args:
        num_steps: number of optimiser steps of the whole run, for the schedules.
        deepspeed: DeepSpeed's configuration, as launch.deepspeed.
        all_reduce: as launch.all_reduce, for DDP only; DeepSpeed's configuration has its own keys.

    Raises:
        ValueError: an invalid DeepSpeed configuration.
    """
    if kind == "ddp":
        return DDPStrategy(world, optim, num_steps, all_reduce)
    from fourds_dist.training.strategies.deepspeed import DeepSpeedStrategy

    return DeepSpeedStrategy(world, optim, num_steps, deepspeed)
