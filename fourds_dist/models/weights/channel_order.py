"""Change of a network for images in BGR, as OpenCV reads them, to images in RGB."""

from __future__ import annotations

import torch
from torch import nn

from fourds_dist.models.weights.noise_check import NUM_CHANNELS, gives, noise_images, run_layers


@torch.no_grad()
def reverse_channels(network: nn.Module, image_size: int) -> str:
    """Reverse the input channels of the first layer, so that RGB images give the former outputs of BGR images.

    A check on two images of noise compares the logits with the former ones of the reversed images.

    Args:
        image_size: side of the square images in pixels.

    Returns:
        Name of the changed tensor.

    Raises:
        ValueError: no first layer has three input channels; the network is unchanged.
    """
    images = noise_images(image_size)
    layers, expected = run_layers(network, images.flip(1))
    for layer in dict.fromkeys(name for name, _ in layers):
        weight = getattr(network.get_submodule(layer), "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim != 4 or weight.shape[1] != NUM_CHANNELS:
            continue
        former = weight.detach().clone()
        weight.copy_(former.flip(1))
        if gives(network, images, expected):
            return f"{layer}.weight"
        weight.copy_(former)
    raise ValueError("no convolution of the network reads the three channels of the images")
