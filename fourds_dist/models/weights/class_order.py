"""Change of the class order of a trained network by permuting the rows of its last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

NUM_IMAGES = 2


def reorder_classes(network: nn.Module, order: Sequence[int], image_size: int) -> list[str]:
    """Permute the rows of the last layer, so that class k of the network is its former class `order[k]`.

    A check on two images of noise compares the logits with the former ones in the new order.

    Args:
        image_size: side of the square images in pixels.

    Returns:
        Names of the changed tensors.

    Raises:
        ValueError: no layer has a row for each class; the network is unchanged.
    """
    images = torch.rand(NUM_IMAGES, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    layers, before = run_layers(network, images)
    wide = [name for name, output in layers if output == NUM_IMAGES * len(order)]
    for chosen in ([name for name, _ in layers[-1:]], wide):
        tensors = _rows(network, chosen, len(order))
        former = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        _assign(tensors, {name: tensor[list(order)] for name, tensor in former.items()})
        expected = before[:, list(order)]
        scale = max(1.0, expected.abs().max().item())
        if tensors and torch.allclose(run_layers(network, images)[1], expected, rtol=1e-3, atol=1e-4 * scale):
            return list(tensors)
        _assign(tensors, former)
    raise ValueError("no layer of the network has a row for each class")


def last_layer(network: nn.Module, num_classes: int, image_size: int) -> list[str]:
    """Return the names of the tensors with a row for each class in the layer that runs last."""
    layers, _ = run_layers(network, torch.zeros(NUM_IMAGES, 3, image_size, image_size))
    return list(_rows(network, [name for name, _ in layers[-1:]], num_classes))


@torch.no_grad()
def run_layers(network: nn.Module, images: Tensor) -> tuple[list[tuple[str, int]], Tensor]:
    """Return the layers with direct parameters in the order in which they ran, each with the size of its output; and
    the logits."""
    ran: list[tuple[str, int]] = []
    was_training = {module: module.training for module in network.modules()}
    handles = [
        module.register_forward_hook(
            lambda _m, _a, output, n=name: ran.append(
                (n, output.numel() if isinstance(output, Tensor) else 0)
            )
        )
        for name, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    try:
        network.eval()
        with torch.random.fork_rng(devices=[]):
            logits = network(images)
    finally:
        for module, training in was_training.items():
            module.training = training
        for handle in handles:
            handle.remove()
    return ran, logits


@torch.no_grad()
def _assign(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensor.copy_(values[name])


def _rows(network: nn.Module, layers: Sequence[str], num_classes: int) -> dict[str, Tensor]:
    """Return the parameters and buffers of the layers with the classes as first dimension, without duplicates."""
    found: dict[str, Tensor] = {}
    for layer in dict.fromkeys(layers):
        module = network.get_submodule(layer)
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            is_new = not any(tensor is other for other in found.values())
            if is_new and tensor.shape[:1] == (num_classes,):
                found[f"{layer}.{name}".lstrip(".")] = tensor
    return found
