"""What a task gives for a batch: one loss to call backward on, and named losses and logits to look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Predictor = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) to logits (B, K)."""


class Output(NamedTuple):
    """Of one forward pass."""

    loss: Float[Tensor, ""]
    """To call backward on: the weighted sum of the losses."""

    losses: dict[str, Tensor]
    """By name, unweighted, detached."""

    logits: dict[str, Tensor]
    """By network, detached."""

    @classmethod
    def of(
        cls, losses: dict[str, Tensor], weights: Mapping[str, float | Tensor], logits: dict[str, Tensor]
    ) -> Output:
        """Join named losses by weight (1 where none is given)."""
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return cls(
            total,
            {name: value.detach() for name, value in losses.items()},
            {name: value.detach() for name, value in logits.items()},
        )
