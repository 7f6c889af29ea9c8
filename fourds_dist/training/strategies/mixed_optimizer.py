"""One optimiser with SGD and AdamW groups, for engines that accept one optimiser only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

KINDS = {"sgd": ("momentum_buffer",), "adamw": ("exp_avg", "exp_avg_sq")}
"""Kind of a group -> names of the state tensors of its parameters."""


class MixedOptimizer(torch.optim.Optimizer):
    """SGD for some groups and AdamW for others, by torch.optim's functions; parameters may be slices by ZeRO.

    Args:
        groups: dictionaries with "params", "kind" ("sgd" or "adamw"), "weight_decay", and "momentum" or "eps".
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": 0.0, "betas": (0.9, 0.999), "eps": 1e-8})

    def create_state(self, parameter: Tensor, kind: str) -> None:
        """Create the state of one parameter, or of a slice of several parameters, before its first step."""
        state: dict[str, Any] = {key: torch.zeros_like(parameter) for key in KINDS[kind]}
        self.state[parameter] = state | ({"step": torch.tensor(0.0)} if kind == "adamw" else {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Update all parameters with a gradient. Parameters have step counters, as ZeRO calls this for each group."""
        del closure
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if p not in self.state:
                    self.create_state(p, group["kind"])
            grads = [p.grad for p in params]
            own: dict[str, Any] = {
                "lr": group["lr"],
                "weight_decay": group["weight_decay"],
                "maximize": False,
                "foreach": False,  # `foreach` needs memory for a copy of all weights
            }
            if group["kind"] == "sgd":
                (buffers,) = self._states(params, "momentum_buffer")
                sgd(params, grads, buffers, momentum=group["momentum"], dampening=0.0, nesterov=False, **own)
            else:
                means, squares, steps = self._states(params, "exp_avg", "exp_avg_sq", "step")
                beta1, beta2 = group["betas"]
                adamw(params, grads, means, squares, [], steps, amsgrad=False, beta1=beta1, beta2=beta2,
                      eps=group["eps"], **own)  # fmt: skip

    def _states(self, params: list[Tensor], *keys: str) -> list[list[Any]]:
        return [[self.state[p][key] for p in params] for key in keys]
