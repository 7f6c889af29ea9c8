"""Checks of a changed network: its logits for two images of noise are the former ones, changed as intended."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fourds_dist.models.network_mode import in_mode

NUM_IMAGES, NUM_CHANNELS = 2, 3


def noise_images(image_size: int) -> Tensor:
    """Return two images of noise, the same at every call: (2, 3, image_size, image_size) in [0, 1)."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(NUM_IMAGES, NUM_CHANNELS, image_size, image_size, generator=generator)


@torch.no_grad()
def run_layers(network: nn.Module, images: Tensor) -> tuple[list[tuple[str, int]], Tensor]:
    """Return the layers with direct parameters in the order in which they ran, each with the size of its output; and
    the logits."""
    ran: list[tuple[str, int]] = []
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
        with in_mode(network, training=False), torch.random.fork_rng(devices=[]):
            logits = network(images)
    finally:
        for handle in handles:
            handle.remove()
    return ran, logits


def gives(network: nn.Module, images: Tensor, expected: Tensor) -> bool:
    """Return whether the logits for these images are the expected ones, up to rounding."""
    scale = max(1.0, expected.abs().max().item())
    return torch.allclose(run_layers(network, images)[1], expected, rtol=1e-3, atol=1e-4 * scale)
