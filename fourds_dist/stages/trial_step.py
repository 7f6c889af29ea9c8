"""A forward and backward pass of a task without data, to detect errors before training.

The pass runs on PyTorch's meta device, which computes shapes and the autograd graph but no values, so the pass is fast
for networks of any size. A network that cannot run there (because it reads values) runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fourds_dist.method.output import Output
from fourds_dist.models.network_mode import in_mode

FAULTS = (AssertionError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError)
"""Exceptions of a network that does not fit its images or the task."""


_SHAPE_ONLY = (
    "Alias",
    "Clamp",
    "Clone",
    "Expand",
    "Permute",
    "ReshapeAlias",
    "Select",
    "Slice",
    "Squeeze",
    "T",
    "ToCopy",
    "Transpose",
    "UnsafeView",
    "Unsqueeze",
    "View",
)
"""Operations that change only the shape of a tensor, so that probabilities stay probabilities."""


def call_on_blank_images(network: nn.Module, *, batch_size: int, side_px: int, training: bool = True) -> Any:
    """Return the output of a network, with its autograd graph, for zero images on the network's device.

    The network stays unchanged.

    Args:
        training: True: training mode; False: evaluation mode.

    Raises:
        Exception: an exception of the network, usually one of `FAULTS`.
    """
    device = next(network.parameters()).device
    values = {name: _copy(tensor, tensor.device) for name, tensor in network.named_buffers()}
    images = torch.zeros(batch_size, 3, side_px, side_px, device=device)
    with in_mode(network, training=training), torch.random.fork_rng(devices=[]), torch.enable_grad():
        return functional_call(network, values, (images,))


def last_operation(network: nn.Module, *, side_px: int, training: bool) -> str | None:
    """Return autograd's name of a network's last operation ("Softmax", "Addmm"), apart from changes of shape.

    This includes networks with frozen parameters only. None: the output has no autograd operation.

    Raises:
        Exception: an exception of the network, usually one of `FAULTS`.
    """
    frozen = [p for p in network.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        output = call_on_blank_images(network, batch_size=2, side_px=side_px, training=training)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    node = output.grad_fn if isinstance(output, Tensor) else None
    while node is not None:
        name = node.name().rpartition("Backward")[0]
        if name not in _SHAPE_ONLY:
            return name
        node = node.next_functions[0][0]
    return None


def parameters_without_gradient(task: nn.Module, *, batch_size: int, side_px: int) -> list[str]:
    """Return the names of trainable parameters without a gradient, after one training pass over zero images.

    The task stays unchanged, including gradients, buffers, random state and device.

    Args:
        batch_size: number of images of the pass.
        side_px: side of the images in pixels.

    Raises:
        Exception: an exception of the pass on the CPU, usually one of `FAULTS`.
    """
    try:
        return _without_gradient(task, batch_size, side_px, torch.device("meta"))
    except Exception:  # caused by the meta device or by the network; a pass on the CPU decides
        if any(parameter.is_meta for parameter in task.parameters()):
            raise
        return _without_gradient(task, batch_size, side_px, torch.device("cpu"))


def freeze_unreached(
    task: nn.Module, *, num_images: int, side_px: int, notify: Callable[[str], None]
) -> None:
    """Freeze the parameters that no loss reaches, and report their names.

    With several workers an all-reduce would wait for their gradients.

    Args:
        notify: receives one line if there are such parameters.
    """
    try:
        names = parameters_without_gradient(task, batch_size=num_images, side_px=side_px)
    except Exception:  # training raises a clearer error
        return
    for name in names:
        task.get_parameter(name).requires_grad_(False)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        notify(f"{', '.join(names[:5])}{more}: no loss reaches these parameters, which stay unchanged")


def _without_gradient(task: nn.Module, batch_size: int, side_px: int, device: torch.device) -> list[str]:
    values = {
        name: _copy(tensor, device) for name, tensor in [*task.named_parameters(), *task.named_buffers()]
    }
    images = torch.zeros(batch_size, 3, side_px, side_px, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    with in_mode(task, training=True), torch.random.fork_rng(devices=[]), torch.enable_grad():
        output: Output = functional_call(task, values, (images, labels))
        output.loss.backward()
    trainable = [name for name, parameter in task.named_parameters() if parameter.requires_grad]
    return [name for name in trainable if values[name].grad is None]


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    copy = (
        torch.empty_like(tensor, device=device)
        if device.type == "meta"
        else tensor.detach().to(device, copy=True)
    )
    return copy.requires_grad_(tensor.requires_grad)
