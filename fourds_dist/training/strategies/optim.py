"""Optimisers and schedules (Eq. 26 to 28): SGD for student and gate, AdamW for the adapters, with one schedule each.

Schedules are functions of the completed fraction of the run, independent of the numbers of epochs and steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fourds_dist.config.effects import RATES, WEIGHTS
from fourds_dist.config.section import ConfigSection
from fourds_dist.training.checkpoint.learning_state import CheckpointRefusedError


class OptimConfig(ConfigSection):
    """Learning rates and schedules of one stage."""

    lr: Annotated[float, RATES] = Field(default=0.01, gt=0)
    """Learning rate of SGD (student and gate; in the source stage all networks), for the global batch."""

    momentum: Annotated[float, RATES] = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""

    weight_decay: Annotated[float, RATES] = Field(default=5e-4, ge=0)
    """Weight decay of SGD."""

    schedule: Annotated[Literal["steps", "cosine", "constant"], WEIGHTS] = "steps"
    """Decay of SGD's learning rate."""

    decay_at: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], WEIGHTS] = (1 / 3, 7 / 12, 5 / 6)
    """schedule=steps: fractions of the run after which the rate is multiplied by decay_factor (epochs 40, 70, 100 of
    120)."""

    decay_factor: Annotated[float, WEIGHTS] = Field(default=0.1, gt=0, le=1)
    """schedule=steps: the multiplier at each of decay_at."""

    warmup: Annotated[float, WEIGHTS] = Field(default=0.0, ge=0, lt=1)
    """Fraction of the run during which SGD's rate increases linearly from 0."""

    adapter_lr: Annotated[float, RATES.of("distill")] = Field(default=1e-3, gt=0)
    """Learning rate of AdamW (adapters); decays to 0 by a cosine over the steps of the run."""

    adapter_eps: Annotated[float, RATES.of("distill")] = Field(default=1e-4, gt=0)
    """AdamW's epsilon."""

    adapter_weight_decay: Annotated[float, RATES.of("distill")] = Field(default=0.01, ge=0)
    """AdamW's decoupled weight decay."""

    max_grad_norm: Annotated[float | None, RATES] = Field(default=None, gt=0)
    """Clip each optimiser's gradients to this L2 norm; null: no clipping."""


def sgd_factor(config: OptimConfig, done: float) -> float:
    """Return the multiplier of SGD's learning rate at the completed fraction `done` of the run, in [0, 1] (Eq. 27)."""
    if done < config.warmup:
        return done / config.warmup
    if config.schedule == "steps":
        return config.decay_factor ** sum(done >= at for at in config.decay_at)
    if config.schedule == "cosine":
        return cosine_factor((done - config.warmup) / (1 - config.warmup))
    return 1.0


def cosine_factor(done: float) -> float:
    """Return half a cosine from 1 to 0 (Eq. 28)."""
    return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def learning_rate(group: str, config: OptimConfig, done: float) -> float:
    """Return the rate of "adapters" (AdamW) or any other group (SGD) at the completed fraction `done` of the run."""
    if group == "adapters":
        return config.adapter_lr * cosine_factor(done)
    return config.lr * sgd_factor(config, done)


class TaskOptimizers:
    """The optimisers of one task, stepped together; their rates depend only on the step.

    Args:
        groups: "student" -> parameters for SGD, "adapters" -> parameters for AdamW; either may be missing.
        num_steps: number of optimiser steps of the whole run, for the schedules.
    """

    def __init__(self, groups: Mapping[str, list[nn.Parameter]], config: OptimConfig, num_steps: int) -> None:
        self._config, self._num_steps = config, num_steps
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._fused = fused = all(p.is_cuda for group in groups.values() for p in group)
        for name, parameters in groups.items():
            if name == "adapters":
                self._optimizers[name] = torch.optim.AdamW(
                    parameters, eps=config.adapter_eps, weight_decay=config.adapter_weight_decay, fused=fused
                )
            else:
                self._optimizers[name] = torch.optim.SGD(
                    parameters, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
                )
        self._set_step(0)

    def step(self, *, unless: Tensor | None = None) -> None:
        """Clip, update and advance the schedules.

        Args:
            unless: scalar on the parameters' device; if true, weights and state of the optimisers stay unchanged. Fused
                optimisers read the scalar on the device, without synchronisation.
        """
        skips = unless is not None and not self._fused and bool(unless)
        for optimizer in self._optimizers.values() if not skips else ():
            if unless is not None and self._fused:
                optimizer.found_inf = unless.float()  # pyright: ignore[reportAttributeAccessIssue]  (as torch.amp does)
            if self._config.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(
                    [p for g in optimizer.param_groups for p in g["params"]], self._config.max_grad_norm
                )
            optimizer.step()
        self._set_step(self._step + 1)

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rate by group."""
        return {name: float(optimizer.param_groups[0]["lr"]) for name, optimizer in self._optimizers.items()}

    def state_by_name(self, module: nn.Module) -> dict[str, dict[str, Tensor]]:
        """Return CPU copies of every parameter's state ("momentum_buffer", "exp_avg", ...) by its name in `module`."""
        names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
        return {
            names[p]: {k: v.detach().to("cpu", copy=True) for k, v in state.items() if isinstance(v, Tensor)}
            for optimizer in self._optimizers.values()
            for p, state in optimizer.state.items()
        }

    def load_by_name(self, module: nn.Module, state: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Load the result of `state_by_name`, and set the schedules to a step of the run.

        Raises:
            ValueError: state of parameters that these optimisers do not train.
        """
        names: dict[Tensor, str] = {p: name for name, p in module.named_parameters()}
        left = set(state)
        for optimizer in self._optimizers.values():
            parameters = [p for g in optimizer.param_groups for p in g["params"]]
            plain = optimizer.state_dict()  # parameters by number, in the order of the groups
            values = {i: dict(state[names[p]]) for i, p in enumerate(parameters) if state.get(names[p])}
            optimizer.load_state_dict({**plain, "state": values})
            left -= {names[p] for p in parameters}
        if left:
            raise CheckpointRefusedError(
                f"the checkpoint belongs to another model: nothing here trains {min(left)}"
            )
        self._set_step(step)

    def _set_step(self, step: int) -> None:
        self._step = step
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(name, self._config, step / self._num_steps)
