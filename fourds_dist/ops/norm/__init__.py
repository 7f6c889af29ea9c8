"""Batch normalisation with the residual sum and the activation that follow it, in as few passes as the bytes ask for.

    from fourds_dist.ops.norm import batch_norm_act

    y = batch_norm_act(x, running_mean, running_var, weight, bias, residual=r, activation="relu", training=True)

`operators.py` has the function and the registered operators, `reference.py` PyTorch's functions one after the other,
`eager.py` the hand-derived form in PyTorch, `fused.py` and `kernels.py` the Triton kernels. fourds_dist/ops/README.md
describes the design.
"""

from fourds_dist.ops.norm.operators import batch_norm_act
from fourds_dist.ops.norm.reference import ACTIVATIONS

__all__ = ["ACTIVATIONS", "batch_norm_act"]
