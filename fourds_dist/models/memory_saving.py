"""Networks with the layers of `ops.memory_saving` instead of PyTorch's, which store less for the backward pass.

Only the classes of modules change; parameters, names, hooks, results and gradients stay. README.md in this folder has
the memory of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear  # a MultiheadAttention's last

from fourds_dist.io.light_torchvision import torchvision
from fourds_dist.ops.memory_saving import frozen_conv2d, relu_, relu_max_pool

ResNet = torchvision.models.ResNet


def save_activation_memory(task: nn.Module) -> None:
    """Reduce the activation memory of the networks in `task`. Call this after requires_grad is set.

    This replaces max-pools in all networks, the ReLU before the max-pool in ResNets, and in-place ReLUs and
    convolutions in networks without trainable parameters (the teacher).
    """
    for module in list(task.modules()):
        if isinstance(module, ResNet):
            _merge_stem(module)
        if type(module) is nn.MaxPool2d and module.dilation in (1, (1, 1)) and not module.return_indices:
            module.__class__ = MemorySavingMaxPool2d
    for network in task.children():
        parameters = list(network.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            _freeze(network)


def cast_frozen_weights(dtype: torch.dtype, task: nn.Module) -> None:
    """Store frozen filters and matrices in the type to which autocast casts them in every step, with equal results.

    A frozen weight then takes 2 bytes in bfloat16, instead of 6 in float32 with the copy of autocast. Parameters that
    autocast does not cast (norms, positions) stay as they are, and so do layers of classes outside PyTorch, which may
    compute with their weights. PyTorch's attention takes another code path on CPUs then. Call this after requires_grad
    is set and before `save_activation_memory`.
    """
    for module in task.modules():
        if type(module) in (nn.Conv2d, nn.Linear, NonDynamicallyQuantizableLinear, nn.MultiheadAttention):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and parameter.dtype == torch.float32:
                    parameter.data = parameter.data.to(dtype)


class MemorySavingMaxPool2d(nn.MaxPool2d):
    """Max-pooling that stores one byte per output for the backward pass."""

    relu = False

    def forward(self, input: Tensor) -> Tensor:
        assert self.stride is not None
        kernel, stride, padding = (_pair(x) for x in (self.kernel_size, self.stride, self.padding))
        return relu_max_pool(input, kernel, stride, padding, relu=self.relu, ceil_mode=self.ceil_mode)


class MemorySavingReluMaxPool2d(MemorySavingMaxPool2d):
    """Max-pooling fused with the ReLU before it."""

    relu = True


class FusedIntoPool(nn.ReLU):
    """A ReLU that the max-pool after it computes; the module itself is the identity."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class MemorySavingReLU(nn.ReLU):
    """An in-place ReLU that stores one bit per element for the backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        return relu_(input)


class FrozenConv2d(nn.Conv2d):
    """A convolution with frozen weights that stores no input for the backward pass."""

    def forward(self, input: Tensor) -> Tensor:
        padding = (0, 0) if isinstance(self.padding, str) else self.padding  # "valid"
        return frozen_conv2d(
            input,
            self.weight,
            self.bias,
            _pair(self.stride),
            _pair(padding),
            _pair(self.dilation),
            self.groups,
        )


def _merge_stem(network: ResNet) -> None:
    """Fuse the ReLU and the max-pool of a ResNet's stem, unless the ReLU has a forward hook."""
    relu, pool = network.relu, network.maxpool
    is_plain = type(relu) is nn.ReLU and type(pool) is nn.MaxPool2d
    if is_plain and not relu._forward_hooks and pool.dilation in (1, (1, 1)) and not pool.return_indices:
        relu.__class__, pool.__class__ = FusedIntoPool, MemorySavingReluMaxPool2d


def _freeze(network: nn.Module) -> None:
    for module in network.modules():
        if type(module) is nn.ReLU and module.inplace:
            module.__class__ = MemorySavingReLU
        elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and module.padding != "same":
            module.__class__ = FrozenConv2d


def _pair(x: int | tuple[int, ...]) -> tuple[int, int]:
    return (x, x) if isinstance(x, int) else (x[0], x[1])
