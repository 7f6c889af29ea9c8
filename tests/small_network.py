"""A network so small that a whole run takes seconds: four blocks of convolution, normalisation and ReLU."""

from __future__ import annotations

from torch import nn

STAGES = ("block1", "block2", "block3", "block4")


def small(num_classes: int) -> nn.Sequential:
    """Entry point `tests.small_network:small`."""
    network, channels = nn.Sequential(), 3
    for i, width in enumerate((16, 32, 48, 64)):
        block = (
            nn.Conv2d(channels, width, 3, stride=1 if i == 0 else 2, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        network.add_module(STAGES[i], nn.Sequential(*block, nn.ReLU()))
        channels = width
    network.add_module(
        "head", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    )
    return network
