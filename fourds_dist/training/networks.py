"""Teacher and student as the configuration describes them, and where their first weights come from."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from fourds_dist.method.backbones import BackboneConfig, build_backbone
from fourds_dist.training.checkpoint import load_weights


class TeacherConfig(BackboneConfig):
    """The large network, trained on the source and frozen afterwards."""

    arch: str = "resnet34"
    """Architecture: a classifier's name in torchvision.models, or resnet10 (one basic block a stage)."""

    checkpoint: str | None = None
    """Path or URL of a teacher trained on the source (.safetensors or a state dict); its stage is then skipped."""

    start: str = "random"
    """First weights of the source stage: `random`, `torchvision` (ImageNet weights, fetched), or a path or URL."""


class StudentConfig(BackboneConfig):
    """The small network that is to work on the target."""

    start: str = "source"
    """First weights: `source` (trained on the source shards in the teacher's stage), `random`, `torchvision`, or a
    path or URL."""


def build(config: BackboneConfig, num_classes: int, *, start: str = "random", key: str = "") -> nn.Module:
    """A network with its first weights.

    Args:
        start: `random`, `torchvision`, or a path or URL of weights.
        key: of `start` in the configuration, for error messages.

    Raises:
        ValueError: unknown architecture, or weights that cannot be had or do not fit.
    """
    network = build_backbone(config, num_classes)
    if start == "torchvision":
        _load_torchvision(config, network, key)
    elif start != "random":
        load_weights(start, network, what=key)
    return network


def metadata(config: BackboneConfig, classes: tuple[str, ...], **more: Any) -> dict[str, str]:
    """What a file of weights says of itself: how to build its network and what its outputs mean."""
    about = {"arch": config.arch, "stem": config.stem, "classes": "\n".join(classes), **more}
    return {"format": "fourds_dist", **{name: str(value) for name, value in about.items()}}


def _load_torchvision(config: BackboneConfig, network: nn.Module, key: str) -> None:
    """ImageNet weights for everything that has the published shape: all but the classifier's last layer."""
    try:
        weights = torchvision.models.get_model_weights(config.arch)["DEFAULT"].get_state_dict(progress=False)
    except (ValueError, KeyError):
        raise ValueError(f"{key}=torchvision: torchvision has no weights for {config.arch!r}") from None
    except OSError as error:
        raise ValueError(
            f"{key}=torchvision: the weights of {config.arch!r} cannot be fetched ({error}); "
            "give a path to them instead, or `random`"
        ) from None
    own = network.state_dict()
    network.load_state_dict(
        {k: v if v.shape == own[k].shape else own[k] for k, v in weights.items() if k in own}, strict=False
    )
