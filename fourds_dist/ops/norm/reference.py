"""The reference backend: PyTorch's batch_norm, sum and activation one after the other, with PyTorch's autograd."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda z: z,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
}
"""Name -> function from z, the normalised map plus the residual, to the result."""


def batch_norm_act(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    *,
    residual: Tensor | None,
    activation: str,
    training: bool,
    momentum: float | None,
    num_batches: Tensor | None,
    eps: float,
) -> Tensor:
    """See `fourds_dist.ops.norm.batch_norm_act`. With momentum None this waits for the device, as PyTorch does."""
    factor = momentum or 0.0
    if training and num_batches is not None:
        num_batches.add_(1)
        if momentum is None:
            factor = 1.0 / float(num_batches)
    z = F.batch_norm(x, running_mean, running_var, weight, bias, training, factor, eps)
    return ACTIVATIONS[activation](z if residual is None else z + residual)
