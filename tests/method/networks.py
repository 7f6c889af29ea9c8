"""Small networks that tests name by an entry point, as a user names networks of his own."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

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


class Convolutions(nn.Module):
    """Two stages, `a` and `b`, and a head; the others below vary it.

    Args:
        num_channels: of the images.
    """

    def __init__(self, num_classes: int, num_channels: int = 3) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(num_channels, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, num_classes)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.b(self.a(images)).mean((2, 3)))


def convolutions(num_classes: int) -> nn.Module:
    """As it is."""
    return Convolutions(num_classes)


def of_grey_images(num_classes: int) -> nn.Module:
    """Takes images of one channel."""
    return Convolutions(num_classes, num_channels=1)


def with_idle_layer(num_classes: int) -> nn.Module:
    """Has a layer that its forward pass never calls."""
    network = Convolutions(num_classes)
    network.projection = nn.Linear(8, 8)
    return network


def tied(num_classes: int) -> nn.Module:
    """Two layers share one weight, and two another."""
    network = Convolutions(num_classes)
    network.b[0].weight = nn.Parameter(torch.randn(8, 8, 3, 3) / 9)  # pyright: ignore
    network.b.append(nn.Conv2d(8, 8, 3, 1, 1))  # pyright: ignore
    network.b[3].weight = network.b[0].weight  # pyright: ignore
    network.b[3].bias = network.b[0].bias  # pyright: ignore
    return network


def lazy(num_classes: int) -> nn.Module:
    """Its head finds its size at the first pass."""
    network = Convolutions(num_classes)
    network.head = nn.LazyLinear(num_classes)
    return network


class _InTraining(Convolutions):
    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


def two_outputs_in_training(num_classes: int) -> nn.Module:
    """Gives a tuple in training, and its logits otherwise."""
    return _InTraining(num_classes)


class _Named(Convolutions):
    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(logits=super().forward(images))


def named_logits(num_classes: int) -> nn.Module:
    """Gives an object with .logits."""
    return _Named(num_classes)


class _Stateful(Convolutions):
    def get_extra_state(self) -> dict:
        return {"a": 1}

    def set_extra_state(self, state: dict) -> None:
        del state


def with_extra_state(num_classes: int) -> nn.Module:
    """Has a dictionary in its state dict."""
    return _Stateful(num_classes)


class _Blind(Convolutions):
    def forward(self, images: Tensor) -> Any:
        self.b(self.a(images))
        return self.head(self.a(images[:, :, ::2]).mean((2, 3)))


def blind(num_classes: int) -> nn.Module:
    """What its stage `b` gives does not reach the logits; `a` runs twice."""
    return _Blind(num_classes)


class _Judging(Convolutions):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images * 2 if images.sum().item() > 1e9 else images)


def looks_at_values(num_classes: int) -> nn.Module:
    """Cannot run where tensors have no values."""
    return _Judging(num_classes)


class _Ending(Convolutions):
    """Ends in an activation, in training, in evaluation, or in both."""

    def __init__(self, num_classes: int, end: Callable[[Tensor], Tensor], modes: tuple[bool, ...]) -> None:
        super().__init__(num_classes)
        self.end, self.modes = end, modes

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return self.end(logits) if self.training in self.modes else logits


def ends_in_softmax(num_classes: int) -> nn.Module:
    """Returns probabilities, reshaped and clamped above zero."""
    return _Ending(
        num_classes, lambda z: nn.Softmax(1)(z[..., None]).squeeze(-1).clamp(min=1e-7), (True, False)
    )


def ends_in_softmax_in_evaluation(num_classes: int) -> nn.Module:
    """Gives logits in training, and probabilities otherwise, as some detectors' classifiers do."""
    return _Ending(num_classes, nn.Softmax(1), (False,))


def ends_in_sigmoid(num_classes: int) -> nn.Module:
    """Returns an independent probability for each class."""
    return _Ending(num_classes, torch.sigmoid, (True, False))


def ends_in_log_softmax(num_classes: int) -> nn.Module:
    """Gives logarithms of probabilities."""
    return _Ending(num_classes, nn.LogSoftmax(1), (True, False))


def gives_answers(num_classes: int) -> nn.Module:
    """Gives the likeliest class as zeros and a one."""
    return _Ending(
        num_classes, lambda z: nn.functional.one_hot(z.argmax(1), num_classes).float(), (True, False)
    )


def frozen(num_classes: int) -> nn.Module:
    """All its parameters are frozen."""
    return Convolutions(num_classes).requires_grad_(False)


def frozen_but_its_head(num_classes: int) -> nn.Module:
    """Its last layer learns, and nothing else."""
    network = Convolutions(num_classes).requires_grad_(False)
    network.head.requires_grad_(True)
    return network


def not_finite(num_classes: int) -> nn.Module:
    """One of its first weights is no number."""
    network = Convolutions(num_classes)
    with torch.no_grad():
        network.head.weight[1, 2] = torch.nan
    return network


def of_half_precision(num_classes: int) -> nn.Module:
    """Its weights are float16."""
    return Convolutions(num_classes).half()


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
