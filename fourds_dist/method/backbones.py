"""Networks and their stages: torchvision classifiers, used as they are.

A stage is a named submodule whose output is read (and, in the teacher, rewritten by an adapter). `StageTaps` does both
through forward hooks, so a classifier needs no changes and its state dict keeps torchvision's names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from fourds_dist.config import Section

DEFAULT_STAGES = {
    "resnet": ("layer1", "layer2", "layer3", "layer4"),
    "resnext": ("layer1", "layer2", "layer3", "layer4"),
    "wide_resnet": ("layer1", "layer2", "layer3", "layer4"),
}
"""Stages by the beginning of an architecture's name; other families name theirs in the configuration."""


class BackboneConfig(Section):
    """A classifier of torchvision and the stages that 4Ds works on."""

    arch: str = "resnet18"
    """Architecture: a classifier's name in torchvision.models, or resnet10 (one basic block a stage)."""

    stem: Literal["imagenet", "small"] = "imagenet"
    """`imagenet`: as published (stride 4). `small`: 3x3 convolution of stride 2 and no pooling, for images of 32 to 96
    px (ResNets only)."""

    stages: tuple[str, ...] | None = None
    """Names of the submodules after which phases are compared and adapters sit; null: the family's own four."""


def _resnet10(num_classes: int) -> ResNet:
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


OWN_ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"resnet10": _resnet10}


def build_backbone(config: BackboneConfig, num_classes: int) -> nn.Module:
    """A classifier with random weights.

    Raises:
        ValueError: unknown architecture, or a stem that it cannot take.
    """
    if config.arch in OWN_ARCHITECTURES:
        network = OWN_ARCHITECTURES[config.arch](num_classes)
    else:
        known = torchvision.models.list_models(module=torchvision.models)
        if config.arch not in known:
            nearest = difflib.get_close_matches(config.arch, [*known, *OWN_ARCHITECTURES], n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
            raise ValueError(f"architecture {config.arch!r} is not a torchvision classifier; {hint}")
        network = torchvision.models.get_model(config.arch, weights=None, num_classes=num_classes)
    if config.stem == "small":
        if not isinstance(network, ResNet):
            raise ValueError(f"stem 'small' is for ResNets, not for {config.arch!r}; use stem 'imagenet'")
        network.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
    return network


def stage_names(config: BackboneConfig, network: nn.Module) -> tuple[str, ...]:
    """The configured stages, or the family's own, checked against the network.

    Raises:
        ValueError: a stage that the network does not have (the nearest that it has is named), or no stages known.
    """
    names = config.stages
    if names is None:
        family = max((f for f in DEFAULT_STAGES if config.arch.startswith(f)), key=len, default=None)
        if family is None:
            raise ValueError(f"no stages are known for {config.arch!r}: name some submodules under `stages`")
        names = DEFAULT_STAGES[family]
    modules = dict(network.named_modules())
    for name in names:
        if name not in modules or not name:
            nearest = difflib.get_close_matches(name, list(modules), n=1, cutoff=0.3)
            top = ", ".join(child for child, _ in network.named_children())
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ValueError(f"{config.arch} has no stage {name!r}; {hint}its parts are {top}")
    return names


class StageTaps:
    """Reads a network's stages during a forward pass and passes each on through `rewrite`, if given.

    `features` holds the outputs of the last forward pass as the stages gave them, before any rewriting.
    """

    def __init__(
        self, network: nn.Module, stages: Sequence[str], rewrite: nn.ModuleList | None = None
    ) -> None:
        self.features: list[Tensor] = []
        self._rewrite = rewrite
        for index, name in enumerate(stages):
            network.get_submodule(name).register_forward_hook(partial(self._tap, index))

    def _tap(self, index: int, module: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
        del module, args
        self.features.append(output)
        return self._rewrite[index](output) if self._rewrite else None


def stage_shapes(network: nn.Module, stages: Sequence[str], image_size: int) -> list[tuple[int, int, int]]:
    """(C, H, W) of every stage for square images of `image_size` pixels; one forward pass without data.

    Raises:
        ValueError: a stage whose output is not a map of shape (B, C, H, W).
    """
    shapes: list[tuple[int, int, int]] = []

    def note(name: str, module: nn.Module, args: tuple, output: Tensor) -> None:
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise ValueError(
                f"stage {name!r} gives no feature map of shape (B, C, H, W); choose another submodule"
            )
        shapes.append((output.shape[1], output.shape[2], output.shape[3]))

    handles = [network.get_submodule(n).register_forward_hook(partial(note, n)) for n in stages]
    was_training = network.training
    reference = next(network.parameters())
    try:
        network.eval()
        with torch.no_grad():
            network(torch.zeros(1, 3, image_size, image_size, device=reference.device, dtype=reference.dtype))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return shapes


def num_parameters(network: nn.Module) -> int:
    """Parameters of a module, buffers left out."""
    return sum(p.numel() for p in network.parameters())
