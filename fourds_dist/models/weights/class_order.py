"""Change of the class order of a trained network by permuting the rows of its last layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fourds_dist.models.weights.noise_check import NUM_IMAGES, gives, noise_images, run_layers


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
    images = noise_images(image_size)
    layers, before = run_layers(network, images)
    wide = [name for name, output in layers if output == NUM_IMAGES * len(order)]
    for chosen in ([name for name, _ in layers[-1:]], wide):
        tensors = _rows(network, chosen, len(order))
        former = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        _assign(tensors, {name: tensor[list(order)] for name, tensor in former.items()})
        if tensors and gives(network, images, before[:, list(order)]):
            return list(tensors)
        _assign(tensors, former)
    raise ValueError("no layer of the network has a row for each class")


def last_layer(network: nn.Module, num_classes: int, image_size: int) -> list[str]:
    """Return the names of the tensors with a row for each class in the layer that runs last.

    A module that contains other layers ends after these; its own parameters, such as the class token and the positions
    of a ViT, are no layer.
    """
    layers, _ = run_layers(network, torch.zeros(NUM_IMAGES, 3, image_size, image_size))
    names = [name for name, _ in layers]
    for name in reversed(names):
        rows = _rows(network, [name], num_classes)
        contains_others = any(
            other != name and f"{other}.".startswith(name and f"{name}.") for other in names
        )
        if rows or not contains_others:
            return list(rows)
    return []


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
