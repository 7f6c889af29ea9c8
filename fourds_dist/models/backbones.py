"""Networks by name: torchvision's classifiers, timm's, and entry points; and the default names of their stages.

    resnet34                   a classifier of torchvision.models, or resnet10 (one basic block per stage)
    vit_mini_4                 a small plain ViT with patches of 4 px, or vit_nano_4, for images of 16 to 64 px
    timm/convnext_atto         a model of timm, if timm is installed; hf-hub:owner/name, local-dir:PATH (timm_networks)
    package.module:function    a function that takes num_classes (and optionally image_size) and returns the network

Each of them can be teacher or student. README.md in this folder explains the choice of the stages.

tests/models/test_pairs.py trains these pairs for a step (teacher > student), besides ResNets among themselves:

    resnet18 > mobilenet_v3_small, mobilenet_v3_small > resnet10, convnext_tiny > resnet10, resnet10 > convnext_tiny,
    swin_t > mobilenet_v2, mobilenet_v2 > swin_t, swin_v2_t > efficientnet_b0, efficientnet_b0 > swin_v2_t,
    vgg11_bn > shufflenet_v2_x0_5, shufflenet_v2_x0_5 > vgg11_bn, densenet121 > regnet_y_400mf,
    regnet_y_400mf > densenet121, a ViT > mnasnet0_5, mnasnet0_5 > a ViT, a ViT > resnet10
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn.parameter import is_lazy

from fourds_dist.config.effects import WEIGHTS
from fourds_dist.config.entry_point import entry_point
from fourds_dist.config.section import ConfigSection
from fourds_dist.data.stream.config import MOST_PX, DataConfig
from fourds_dist.data.stream.network_input import NetworkInput
from fourds_dist.io.error_text import error_line
from fourds_dist.io.light_torchvision import torchvision
from fourds_dist.models import timm_networks
from fourds_dist.models.stage_finder import find_stages

ResNet = torchvision.models.ResNet


def _numbered(prefix: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{number}" for number in numbers)


DEFAULT_STAGES: dict[str, tuple[str, ...]] = {
    "resnet": _numbered("layer", 1, 2, 3, 4),
    "resnext": _numbered("layer", 1, 2, 3, 4),
    "wide_resnet": _numbered("layer", 1, 2, 3, 4),
    "regnet": _numbered("trunk_output.block", 1, 2, 3, 4),
    "densenet": _numbered("features.denseblock", 1, 2, 3, 4),
    "vgg11": _numbered("features.", 5, 10, 15, 20),
    "vgg13": _numbered("features.", 9, 14, 19, 24),
    "vgg16": _numbered("features.", 9, 16, 23, 30),
    "vgg19": _numbered("features.", 9, 18, 27, 36),
    "vgg11_bn": _numbered("features.", 7, 14, 21, 28),
    "vgg13_bn": _numbered("features.", 13, 20, 27, 34),
    "vgg16_bn": _numbered("features.", 13, 23, 33, 43),
    "vgg19_bn": _numbered("features.", 13, 26, 39, 52),
    "mobilenet_v2": _numbered("features.", 3, 6, 13, 17),
    "mobilenet_v3_small": _numbered("features.", 1, 3, 8, 11),
    "mobilenet_v3_large": _numbered("features.", 3, 6, 12, 15),
    "mnasnet": _numbered("layers.", 8, 9, 11, 13),
    "shufflenet_v2": ("maxpool", "stage2", "stage3", "stage4"),
    "efficientnet_b": _numbered("features.", 2, 3, 5, 7),
    "efficientnet_v2_s": _numbered("features.", 2, 3, 5, 6),
    "efficientnet_v2": _numbered("features.", 2, 3, 5, 7),
    "convnext": _numbered("features.", 1, 3, 5, 7),
    "swin": _numbered("features.", 1, 3, 5, 7),
    "vit_mini": _numbered("encoder.layers.encoder_layer_", 0, 2, 3, 4),
    "vit_nano": _numbered("encoder.layers.encoder_layer_", 0, 1, 2, 3),
    "vit_b": _numbered("encoder.layers.encoder_layer_", 2, 5, 8, 10),
    "vit_l": _numbered("encoder.layers.encoder_layer_", 5, 11, 17, 22),
    "vit_h": _numbered("encoder.layers.encoder_layer_", 7, 15, 23, 30),
}
"""Stages of torchvision's networks by prefix of the name (the longest matching one). Those of timm's networks are found
by a forward pass (`stage_finder`); the configuration names those of others."""


Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BackboneConfig(ConfigSection):
    """A classifier, the images that it takes, and its stages for 4Ds."""

    role: ClassVar[str] = "network"
    """Name of the section in the configuration, for messages."""

    arch: Annotated[str, WEIGHTS] = "resnet18"
    """Architecture: name of a classifier in torchvision.models, resnet10 (one basic block per stage), vit_mini_4 or
    vit_nano_4 (small ViTs for images of 16 to 64 px), `timm/NAME`, `hf-hub:owner/name`, `local-dir:PATH` (a folder with
    the files of such a repository), or an entry point `package.module:function` that takes num_classes."""

    stem: Annotated[Literal["imagenet", "small"], WEIGHTS] = "imagenet"
    """`imagenet`: as published (stride 4). `small`: 3x3 convolution of stride 2 and no pooling, for images of 32 to 96
    px (ResNets only)."""

    stages: Annotated[tuple[str, ...] | None, WEIGHTS.of("distill")] = None
    """Names of the submodules whose outputs the losses compare and the adapters rewrite; null: the defaults of the
    family."""

    image_px: Annotated[int | None, WEIGHTS] = Field(default=None, ge=1, le=MOST_PX)
    """Side of the images that the network takes, resized on the device from the crops of data.crop_px. null: the size
    of the weights, if their positions have one size (ViT) or their file names one; otherwise data.crop_px."""

    mean: Annotated[tuple[Finite, Finite, Finite] | None, WEIGHTS] = None
    """Mean per channel of the network's images, for values in [0, 1]. null: that of the weights (torchvision's, timm's,
    or by the metadata of a file), otherwise data.mean."""

    std: Annotated[tuple[Positive, Positive, Positive] | None, WEIGHTS] = None
    """Standard deviation per channel of the network's images, as mean; otherwise data.std."""

    def network_input(self, data: DataConfig) -> NetworkInput:
        """Return the size and the normalisation of the network's images: the own values, else those of `data`."""
        return NetworkInput(self.image_px or data.crop_px, self.mean or data.mean, self.std or data.std)

    @property
    def size_key(self) -> str:
        """Return the key that decides the size of the network's images."""
        return "data.crop_px" if self.image_px is None else f"{self.role}.image_px"


def _resnet10(num_classes: int) -> ResNet:
    return ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=num_classes)


SMALL_VITS: dict[str, dict[str, Any]] = {
    "vit_mini_4": {"patch_size": 4, "num_layers": 6, "num_heads": 3, "hidden_dim": 96, "mlp_dim": 192},
    "vit_nano_4": {"patch_size": 4, "num_layers": 5, "num_heads": 2, "hidden_dim": 64, "mlp_dim": 128},
}
"""Arguments of torchvision's VisionTransformer: plain ViTs for small images (0.46 and 0.17 million weights)."""


def _small_vit(arch: str, num_classes: int, image_size: int = 224) -> nn.Module:
    vit = torchvision.models.VisionTransformer
    return vit(image_size=image_size, num_classes=num_classes, **SMALL_VITS[arch])


OWN_ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "resnet10": _resnet10,
    **{arch: partial(_small_vit, arch) for arch in SMALL_VITS},
}


def build_backbone(config: BackboneConfig, num_classes: int, image_size: int | None = None) -> nn.Module:
    """Return a classifier with random weights, or with the weights that an entry point sets.

    Args:
        image_size: side of the square images in pixels, for networks of a fixed size (ViT); None: the default size.

    Raises:
        ValueError: unknown architecture, an entry point that returns no network, or an unsupported stem or size.
    """
    arch = config.arch
    if arch in OWN_ARCHITECTURES:
        options = size_options(arch, image_size)
        if options and image_size is not None:
            _check_patches(arch, int(arch.rpartition("_")[2]), image_size, config.size_key)
        network = OWN_ARCHITECTURES[arch](num_classes, **options)
    elif timm_networks.is_timm(arch):
        network = timm_networks.build(arch, num_classes, image_size, key=config.size_key)
        _check_timm_patches(network, arch, image_size, config.size_key)
    elif ":" in arch:
        network = _from_entry_point(arch, num_classes, image_size)
    else:
        network = _from_torchvision(arch, num_classes, image_size, config.size_key)
    if config.stem == "small":
        if not isinstance(network, ResNet):
            raise ValueError(f"stem 'small' is for ResNets, not for {arch!r}; use stem 'imagenet'")
        network.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    if image_size is not None and any(is_lazy(p) for p in network.parameters()):
        _initialise_lazy_layers(network, arch, image_size, config.size_key)
    return network


def size_options(arch: str, image_size: int | None) -> dict[str, Any]:
    """Return the keyword argument for the image size; empty for networks of any size, or without a given size.

    The entry point or the package of `arch` has to be importable.
    """
    if image_size is None:
        return {}
    if timm_networks.is_timm(arch):
        return timm_networks.size_options(timm_networks.resolve(arch), image_size)
    if ":" in arch:
        module_name, _, function_name = arch.partition(":")
        function = getattr(importlib.import_module(module_name), function_name)
        return {"image_size": image_size} if "image_size" in inspect.signature(function).parameters else {}
    return {"image_size": image_size} if arch.startswith("vit_") else {}


def _initialise_lazy_layers(network: nn.Module, arch: str, image_size: int, key: str) -> None:
    """Determine the sizes of lazy layers (nn.LazyLinear) by one forward pass."""
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, image_size, image_size))
    except (AssertionError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{arch} does not take images of {image_size} px ({str(error).splitlines()[0]}); change {key} or arch"
        ) from None
    network.train(was_training)


def _from_torchvision(arch: str, num_classes: int, image_size: int | None, key: str) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if arch not in known:
        nearest = difflib.get_close_matches(arch, [*known, *OWN_ARCHITECTURES], n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"
        raise ValueError(
            f"architecture {arch!r} is not a torchvision classifier; {hint} "
            "(others: timm/NAME or package.module:function)"
        )
    options = size_options(arch, image_size)
    if options and image_size is not None:
        _check_patches(arch, int(arch.rpartition("_")[2]), image_size, key)
    if arch in ("googlenet", "inception_v3"):
        # With auxiliary heads they would return more than the logits in training mode.
        options |= {"aux_logits": False, "init_weights": True}
    return torchvision.models.get_model(arch, weights=None, num_classes=num_classes, **options)


def _check_patches(arch: str, patch: int, image_size: int, key: str) -> None:
    if image_size % patch:
        near = max(patch, round(image_size / patch) * patch)
        raise ValueError(
            f"{arch} splits images into patches of {patch} px, and {image_size} is not a multiple; set {key}={near}"
        )


def _check_timm_patches(network: nn.Module, arch: str, image_size: int | None, key: str) -> None:
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    side = patch if isinstance(patch, int) else patch[0] if isinstance(patch, tuple) and patch else None
    if image_size is not None and side:
        _check_patches(arch, side, image_size, key)


def _from_entry_point(arch: str, num_classes: int, image_size: int | None) -> nn.Module:
    function = entry_point(arch, what="architecture", takes="num_classes")
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    if "num_classes" not in parameters and not takes_any:
        raise ValueError(
            f"architecture {arch!r} does not take num_classes; name a function that takes num_classes"
        )
    options = size_options(arch, image_size)
    network = function(num_classes=num_classes, **options)
    if not isinstance(network, nn.Module):
        raise ValueError(  # noqa: TRY004
            f"architecture {arch!r} returned a {type(network).__name__}, not a torch.nn.Module"
        )
    return network


def stage_names(config: BackboneConfig, network: nn.Module) -> tuple[str, ...]:
    """Return the configured stages, or the defaults of the family, after a check against the network.

    Raises:
        ValueError: a stage that the network does not have (the message suggests the nearest name), a duplicate, or no
            known stages.
    """
    names, reason = config.stages, ""
    if names is None:
        try:
            names = _default_stages(config.arch, network)
        except Exception as error:  # of the network, in a forward pass
            reason = f" ({error_line(error)})"
        if names is None:
            parts = ", ".join(child for child, _ in network.named_children())
            raise ValueError(
                f"no default stages are known for {config.arch!r}{reason}; name submodules under `stages` (top-level: "
                f"{parts})"
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"stages {list(names)} of {config.arch} are empty or have duplicates; name each submodule once"
        )
    modules = dict(network.named_modules())
    for name in names:
        if name not in modules or not name:
            nearest = difflib.get_close_matches(name, list(modules), n=1, cutoff=0.3)
            top = ", ".join(child for child, _ in network.named_children())
            hint = f"did you mean {nearest[0]!r}? " if nearest else ""
            raise ValueError(
                f"{config.arch} has no submodule {name!r}; {hint}its top-level submodules are {top}"
            )
    return names


def _default_stages(arch: str, network: nn.Module) -> tuple[str, ...] | None:
    if timm_networks.is_timm(arch):
        size = timm_networks.native_size(network)
        return None if size is None else find_stages(network, size)
    family = max((f for f in DEFAULT_STAGES if arch.startswith(f)), key=len, default=None)
    return None if family is None or ":" in arch else DEFAULT_STAGES[family]


def num_parameters(network: nn.Module) -> int:
    """Return the number of parameters of a module, without buffers."""
    return sum(p.numel() for p in network.parameters())
