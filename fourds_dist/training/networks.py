"""Teacher and student as the configuration describes them, and where their first weights come from."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Annotated, Any, NamedTuple

import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from fourds_dist.effects import WEIGHTS
from fourds_dist.method.backbones import BackboneConfig, build_backbone
from fourds_dist.training.checkpoint import read_weights

_log = logging.getLogger(__name__)


class TeacherConfig(BackboneConfig):
    """The large network, trained on the source and frozen afterwards."""

    arch: Annotated[str, WEIGHTS] = "resnet34"
    """Architecture: a classifier's name in torchvision.models, resnet10 (one basic block a stage), `timm/NAME`, or an
    entry point `package.module:function` that is called with num_classes."""

    checkpoint: Annotated[str | None, WEIGHTS] = None
    """Path or URL of a teacher trained on the source (.safetensors or a state dict); its stage is then skipped."""

    start: Annotated[str, WEIGHTS.of("source")] = "random"
    """First weights of the source stage: `random` (an entry point's own), `torchvision` (ImageNet weights, fetched;
    `torchvision://NAME` for others than the default), or a path or URL. All but the last layer need to fit."""


class StudentConfig(BackboneConfig):
    """The small network that is to work on the target."""

    start: Annotated[str, WEIGHTS] = "source"
    """First weights: `source` (trained on the source shards in the teacher's stage), or as teacher.start."""


class Beginning(NamedTuple):
    """A network with its first weights."""

    network: nn.Module

    is_novice: bool
    """It does not know the classes yet: all its weights or its last layer's are random, or they are ImageNet's."""


def build(
    config: BackboneConfig,
    num_classes: int,
    *,
    start: str = "random",
    key: str = "",
    image_size: int | None = None,
) -> nn.Module:
    """A network with its first weights; see `begin`."""
    return begin(config, num_classes, start=start, key=key, image_size=image_size).network


def begin(
    config: BackboneConfig,
    num_classes: int,
    *,
    start: str = "random",
    key: str = "",
    image_size: int | None = None,
) -> Beginning:
    """A network with its first weights, and whether they know the classes.

    Args:
        start: `random`, `torchvision`, `torchvision://NAME`, or a path or URL of weights. A classifier's last layer
            made for other classes stays random, and the log says so; a ViT's positions are interpolated.
        key: of `start` in the configuration, for error messages.
        image_size: side of the square images in pixels, for networks of one fixed size.

    Raises:
        ValueError: unknown architecture, or weights that cannot be had or do not fit.
    """
    network = build_backbone(config, num_classes, image_size)
    if start == "random":
        return Beginning(network, is_novice=True)
    where = f"{key}={start}"
    is_fetched = start == "torchvision" or start.startswith("torchvision://")
    if is_fetched:
        weights = _torchvision_weights(
            config.arch, start.removeprefix("torchvision").removeprefix("://"), where
        )
    else:
        weights = read_weights(start, what=key)
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in weights:
        weights = interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(weights))
    free = ("conv1.weight",) if config.stem == "small" else ()
    is_whole = _load_body(network, weights, num_classes, where, free=free)
    return Beginning(network, is_novice=is_fetched or not is_whole)


def metadata(config: BackboneConfig, classes: tuple[str, ...], **more: Any) -> dict[str, str]:
    """What a file of weights says of itself: how to build its network and what its outputs mean."""
    about = {"arch": config.arch, "stem": config.stem, "classes": "\n".join(classes), **more}
    return {"format": "fourds_dist", **{name: str(value) for name, value in about.items()}}


def _torchvision_weights(arch: str, name: str, where: str) -> dict[str, Tensor]:
    try:
        names = [w.name for w in torchvision.models.get_model_weights(arch)]
    except ValueError:
        names = []
    if not names or (name and name not in names):
        known = f"there are {', '.join(names)}" if names else "take `random`, or a path to your own"
        raise ValueError(f"{where}: torchvision has no such weights for {arch!r}; {known}")
    try:
        return torchvision.models.get_model(arch, weights=name or "DEFAULT", progress=False).state_dict()
    except OSError as error:
        raise ValueError(
            f"{where}: the weights of {arch!r} cannot be fetched ({error}); give a path to them instead, or `random`"
        ) from None


def _load_body(
    network: nn.Module, weights: dict[str, Tensor], num_classes: int, where: str, *, free: tuple[str, ...]
) -> bool:
    """Load all that fits; only the last layer, for other classes, and the tensors named in `free` may differ.

    Gives whether the last layer fitted.
    """
    own = network.state_dict()
    unknown, missing = [k for k in weights if k not in own], [k for k in own if k not in weights]
    if unknown or missing:
        lacks = f"lacks {len(missing)} of its tensors (first: {missing[0]})" if missing else ""
        has = f"has {len(unknown)} that it does not know (first: {unknown[0]})" if unknown else ""
        kind = type(network).__name__
        raise ValueError(
            f"{where} does not fit the configured {kind}: it {' and '.join(filter(None, (lacks, has)))}"
        )
    differing = [k for k in own if own[k].shape != weights[k].shape]
    for name in differing:
        ours, theirs = tuple(own[name].shape), tuple(weights[name].shape)
        is_last_layer = ours[:1] == (num_classes,) and ours[1:] == theirs[1:]
        if not is_last_layer and name not in free:
            raise ValueError(f"{where}: {name} is {theirs} where {ours} is needed; check arch and stem")
    network.load_state_dict({k: own[k] if k in differing else weights[k] for k in own})
    if differing:
        _log.warning("%s: of another shape, left random: %s", where, ", ".join(differing))
    return set(differing) <= set(free)
