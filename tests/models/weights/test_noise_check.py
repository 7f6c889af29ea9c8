"""Logits for images of noise tell whether a changed network computes what was intended."""

from __future__ import annotations

import torch
from torch import nn

from fourds_dist.models.weights.noise_check import gives, noise_images, run_layers


def test_logits_are_compared_up_to_rounding() -> None:
    images = noise_images(8)
    assert torch.equal(images, noise_images(8))
    assert images.shape == (2, 3, 8, 8)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Dropout(), nn.Linear(4, 5)).train()
    layers, logits = run_layers(network, images)
    assert layers == [("0", 2 * 4), ("3", 2 * 5)]
    assert network.training
    assert gives(network, images, logits * (1 + 1e-5))
    assert not gives(network, images, logits.flip(1))
    assert not gives(network, images.flip(1), logits)
