"""One forward and backward pass of a task without data: what training would refuse is refused before it starts.

The pass runs on PyTorch's meta device, which computes shapes and the graph of gradients but no numbers: it takes
moments for networks of any size. A network that cannot run there (it looks at the values of its maps) runs on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fourds_dist.method.output import Output

FAULTS = (AssertionError, RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError)
"""What a network may raise that does not go with its images or with the task."""


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
"""Operations after which probabilities are probabilities still."""


def call_on_blank_images(network: nn.Module, *, batch_size: int, side_px: int, training: bool = True) -> Any:
    """What a network gives for blank images, on its own device; the network stays as it was.

    The output has its graph of gradients.

    Args:
        training: in training mode; else in evaluation mode.

    Raises:
        Exception: what the network raises, of `FAULTS` as a rule.
    """
    device = next(network.parameters()).device
    values = {name: _copy(tensor, tensor.device) for name, tensor in network.named_buffers()}
    images = torch.zeros(batch_size, 3, side_px, side_px, device=device)
    with _in_mode(network, training), torch.random.fork_rng(devices=[]), torch.enable_grad():
        return functional_call(network, values, (images,))


def last_operation(network: nn.Module, *, side_px: int, training: bool) -> str | None:
    """Autograd's name of the operation that a network ends in ("Softmax", "Addmm"), changes of shape left out.

    A network all of whose parameters are frozen has one too. None: its output comes from no operation that autograd
    knows.

    Raises:
        Exception: what the network raises, of `FAULTS` as a rule.
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
    """Names of the learning parameters that no loss reaches, by one pass in training mode over blank images.

    The task is left as it was, gradients, buffers and random state included. A task on the meta device stays there.

    Args:
        batch_size: images of the pass.
        side_px: side of the images.

    Raises:
        Exception: what the pass raises on the CPU, of `FAULTS` as a rule.
    """
    try:
        return _without_gradient(task, batch_size, side_px, torch.device("meta"))
    except Exception:  # of the meta device or of the network: only the CPU can tell
        if any(parameter.is_meta for parameter in task.parameters()):
            raise
        return _without_gradient(task, batch_size, side_px, torch.device("cpu"))


def leave_unreached(task: nn.Module, *, num_images: int, side_px: int, tell: Callable[[str], None]) -> None:
    """Freeze the parameters that no loss reaches, and name them.

    One worker would leave them as they are, several would wait for their gradients.

    Args:
        tell: takes one line, where there are any.
    """
    try:
        names = parameters_without_gradient(task, batch_size=num_images, side_px=side_px)
    except Exception:  # what training itself refuses, it tells better
        return
    for name in names:
        task.get_parameter(name).requires_grad_(False)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        tell(f"{', '.join(names[:5])}{more}: no loss reaches these parameters, which stay as they are")


def _without_gradient(task: nn.Module, batch_size: int, side_px: int, device: torch.device) -> list[str]:
    values = {
        name: _copy(tensor, device) for name, tensor in [*task.named_parameters(), *task.named_buffers()]
    }
    images = torch.zeros(batch_size, 3, side_px, side_px, device=device)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    with _in_mode(task, True), torch.random.fork_rng(devices=[]), torch.enable_grad():
        output: Output = functional_call(task, values, (images, labels))
        output.loss.backward()
    learning = [name for name, parameter in task.named_parameters() if parameter.requires_grad]
    return [name for name in learning if values[name].grad is None]


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    copy = (
        torch.empty_like(tensor, device=device)
        if device.type == "meta"
        else tensor.detach().to(device, copy=True)
    )
    return copy.requires_grad_(tensor.requires_grad)


@contextmanager
def _in_mode(task: nn.Module, training: bool) -> Iterator[None]:
    before: dict[Any, bool] = {module: module.training for module in task.modules()}
    task.train(training)
    try:
        yield
    finally:
        for module, was_training in before.items():
            module.training = was_training
