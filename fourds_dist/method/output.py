"""The output of a task for a batch: one loss for backward, and named losses and logits for logs and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Predictor = Callable[[Tensor], Tensor]
"""Function of images (B, 3, H, W) to logits (B, K)."""


class Output(NamedTuple):
    """Losses and logits of one forward pass."""

    loss: Float[Tensor, ""]
    """Weighted sum of the losses, for backward."""

    losses: dict[str, Tensor]
    """Losses by name, unweighted, detached."""

    logits: dict[str, Tensor]
    """Logits (B, K) by network, detached."""

    @classmethod
    def of(
        cls, losses: dict[str, Tensor], weights: Mapping[str, float | Tensor], logits: dict[str, Tensor]
    ) -> Output:
        """Return the weighted sum of named losses with the losses and logits; the default weight is 1."""
        total = torch.stack([weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
        return cls(
            total,
            {name: value.detach() for name, value in losses.items()},
            {name: value.detach() for name, value in logits.items()},
        )
