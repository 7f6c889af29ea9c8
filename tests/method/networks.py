"""Small networks that tests name by an entry point, as a user names networks of his own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import VGG, VisionTransformer
from torchvision.models.vgg import cfgs, make_layers

VIT = "tests.method.networks:vit"
VIT_STAGES = tuple(f"encoder.layers.encoder_layer_{i}" for i in range(4))


def vit(num_classes: int, image_size: int = 32) -> nn.Module:
    """torchvision's ViT, five layers of width 24 on patches of 8 px."""
    network = VisionTransformer(
        image_size=image_size,
        patch_size=8,
        num_layers=5,
        num_heads=2,
        hidden_dim=24,
        mlp_dim=48,
        num_classes=num_classes,
    )
    nn.init.normal_(network.heads.head.weight, std=0.1)  # pyright: ignore  (zeros would hide everything before)
    return network


def vgg11_bn(num_classes: int) -> nn.Module:
    """torchvision's features under one linear layer; its own three, of 120 million weights, take long to fill."""
    features = make_layers(cfgs["A"], batch_norm=True)
    with torch.device("meta"):
        network = VGG(features, init_weights=False)
    network.classifier = nn.Linear(512 * 7 * 7, num_classes)  # pyright: ignore
    return network


class Recurrent(nn.Module):
    """One convolution that runs twice; not a classifier of any use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(images)).mean((2, 3))


def recurrent(num_classes: int) -> nn.Module:
    """Gives three classes whatever it is asked for."""
    del num_classes
    return Recurrent()


def without_classes() -> nn.Module:
    """Takes no num_classes."""
    return Recurrent()


def no_network(num_classes: int) -> Tensor:
    """Gives no network."""
    return torch.zeros(num_classes)
