"""Optimisers and their schedules (METHOD part 5): SGD for student and gate, AdamW for the adapters, a schedule each.

Schedules are functions of the share of the run that is done, so that they hold for any number of epochs and steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from fourds_dist.config import Section


class OptimConfig(Section):
    """Learning rates and schedules of one stage."""

    lr: float = Field(default=0.01, gt=0)
    """Learning rate of SGD (student and gate; in the source stage every network), for the whole global batch."""

    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""

    weight_decay: float = Field(default=5e-4, ge=0)
    """Weight decay of SGD."""

    schedule: Literal["steps", "cosine", "constant"] = "steps"
    """Decay of SGD's learning rate."""

    decay_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (1 / 3, 7 / 12, 5 / 6)
    """schedule=steps: shares of the run after which the rate is multiplied by decay_factor (epochs 40, 70, 100 of
    120)."""

    decay_factor: float = Field(default=0.1, gt=0, le=1)
    """schedule=steps: the multiplier at each of decay_at."""

    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the run over which SGD's rate rises linearly from 0."""

    adapter_lr: float = Field(default=1e-3, gt=0)
    """Learning rate of AdamW (adapters); decays to 0 by a cosine over the run, step by step."""

    adapter_eps: float = Field(default=1e-4, gt=0)
    """AdamW's epsilon."""

    adapter_weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""

    max_grad_norm: float | None = Field(default=None, gt=0)
    """Clip each optimiser's gradients to this L2 norm; null: no clipping."""


def sgd_factor(config: OptimConfig, done: float) -> float:
    """Multiplier of SGD's learning rate when the share `done` of the run, in [0, 1], has passed."""
    if done < config.warmup:
        return done / config.warmup
    if config.schedule == "steps":
        return config.decay_factor ** sum(done >= at for at in config.decay_at)
    if config.schedule == "cosine":
        return cosine_factor((done - config.warmup) / (1 - config.warmup))
    return 1.0


def cosine_factor(done: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Optimizers:
    """The optimisers of one task, stepped together.

    Args:
        groups: "student" -> parameters for SGD, "adapters" -> parameters for AdamW; either may be missing.
        num_steps: optimiser steps of the whole run, on which the schedules depend.
    """

    def __init__(self, groups: Mapping[str, list[nn.Parameter]], config: OptimConfig, num_steps: int) -> None:
        self._max_grad_norm = config.max_grad_norm
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._schedules: dict[str, LambdaLR] = {}
        fused = all(p.is_cuda for group in groups.values() for p in group)
        for name, parameters in groups.items():
            factor: Callable[[float], float]
            if name == "adapters":
                optimizer = torch.optim.AdamW(
                    parameters,
                    lr=config.adapter_lr,
                    eps=config.adapter_eps,
                    weight_decay=config.adapter_weight_decay,
                    fused=fused,
                )
                factor = cosine_factor
            else:
                optimizer = torch.optim.SGD(
                    parameters,
                    lr=config.lr,
                    momentum=config.momentum,
                    weight_decay=config.weight_decay,
                    fused=fused,
                )
                factor = lambda done: sgd_factor(config, done)  # noqa: E731
            self._optimizers[name] = optimizer
            self._schedules[name] = LambdaLR(optimizer, lambda step, f=factor: f(step / num_steps))

    def step(self) -> None:
        """Clip, update and advance the schedules."""
        for optimizer in self._optimizers.values():
            if self._max_grad_norm is not None:
                nn.utils.clip_grad_norm_(
                    [p for g in optimizer.param_groups for p in g["params"]], self._max_grad_norm
                )
            optimizer.step()
        for schedule in self._schedules.values():
            schedule.step()

    def learning_rates(self) -> dict[str, float]:
        """Current learning rate by group."""
        return {name: float(schedule.get_last_lr()[0]) for name, schedule in self._schedules.items()}

    def state_dict(self) -> dict[str, Any]:
        """State of optimisers and schedules."""
        return {
            name: {
                "optimizer": self._optimizers[name].state_dict(),
                "schedule": self._schedules[name].state_dict(),
            }
            for name in self._optimizers
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, part in state.items():
            self._optimizers[name].load_state_dict(part["optimizer"])
            self._schedules[name].load_state_dict(part["schedule"])
