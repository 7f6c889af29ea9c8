"""Networks as they are, keeping less for their backward pass: the layers of `ops.lean` in the place of PyTorch's.

Classes of modules change, nothing else: parameters, names, hooks, results and gradients stay. What autograd keeps in a
step of ResNet34 -> ResNet18 at 224 px in bfloat16, counted, in units of one 64x56x56 map of the batch (98 MiB at 256):

                                   PyTorch's   lean
    student                             29.6   22.1   a pool keeps neither its input nor its indices
    teacher above its first adapter,    23.8   15.7   ReLUs keep bits, frozen convolutions no inputs; what is left are
      and adapters                                    the inputs of BatchNorm and of the Fourier operators
    images in float32                    1.5      0   made in bfloat16, which the student keeps anyway
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear  # a MultiheadAttention's last
from torchvision.models import ResNet

from fourds_dist.ops.lean import frozen_conv2d, relu_, relu_max_pool


def keep_less(task: nn.Module) -> None:
    """Let the networks in `task` keep less. To be called once it is known which parameters learn.

    Max-pools are replaced everywhere, a ReLU right before one in ResNets, in-place ReLUs and convolutions in networks
    that are frozen as a whole (the teacher).
    """
    for module in list(task.modules()):
        if isinstance(module, ResNet):
            _merge_stem(module)
        if type(module) is nn.MaxPool2d and module.dilation in (1, (1, 1)) and not module.return_indices:
            module.__class__ = LeanMaxPool2d
    for network in task.children():
        parameters = list(network.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            _freeze(network)


def hold_frozen_in(dtype: torch.dtype, task: nn.Module) -> None:
    """Hold frozen filters and matrices in the type that autocast casts them to in every step, with the same results.

    Of a teacher in float32 autocast's copies come on top: 6 bytes a weight, where bfloat16 alone takes 2. Norms,
    positions and other parameters, which autocast leaves alone, stay as they are; so do layers of other kinds than
    PyTorch's own, which may compute with their weights. (PyTorch's attention takes another path on CPUs then.) To be
    called once it is known which parameters learn, and before `keep_less`.
    """
    for module in task.modules():
        if type(module) in (nn.Conv2d, nn.Linear, NonDynamicallyQuantizableLinear, nn.MultiheadAttention):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and parameter.dtype == torch.float32:
                    parameter.data = parameter.data.to(dtype)


class LeanMaxPool2d(nn.MaxPool2d):
    """Max-pooling that keeps a byte for each result."""

    relu = False

    def forward(self, input: Tensor) -> Tensor:
        assert self.stride is not None
        kernel, stride, padding = (_pair(x) for x in (self.kernel_size, self.stride, self.padding))
        return relu_max_pool(input, kernel, stride, padding, relu=self.relu, ceil_mode=self.ceil_mode)


class LeanReluMaxPool2d(LeanMaxPool2d):
    """Max-pooling that does the work of the ReLU before it."""

    relu = True


class LeftToPool(nn.ReLU):
    """A ReLU that the pool behind it computes."""

    def forward(self, input: Tensor) -> Tensor:
        return input


class LeanReLU(nn.ReLU):
    """An in-place ReLU that keeps a bit for each number."""

    def forward(self, input: Tensor) -> Tensor:
        return relu_(input)


class FrozenConv2d(nn.Conv2d):
    """A convolution that does not learn and keeps no input."""

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
    """In a ResNet the ReLU of the stem is followed by the pool; one that somebody listens to stays."""
    relu, pool = network.relu, network.maxpool
    is_plain = type(relu) is nn.ReLU and type(pool) is nn.MaxPool2d
    if is_plain and not relu._forward_hooks and pool.dilation in (1, (1, 1)) and not pool.return_indices:
        relu.__class__, pool.__class__ = LeftToPool, LeanReluMaxPool2d


def _freeze(network: nn.Module) -> None:
    for module in network.modules():
        if type(module) is nn.ReLU and module.inplace:
            module.__class__ = LeanReLU
        elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and module.padding != "same":
            module.__class__ = FrozenConv2d


def _pair(x: int | tuple[int, ...]) -> tuple[int, int]:
    return (x, x) if isinstance(x, int) else (x[0], x[1])
