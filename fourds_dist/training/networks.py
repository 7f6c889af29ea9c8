"""Teacher and student as the configuration describes them, and where their first weights come from."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from fourds_dist.effects import WEIGHTS
from fourds_dist.method.backbones import BackboneConfig, build_backbone
from fourds_dist.training.class_order import last_layer
from fourds_dist.training.weights import (
    Metadata,
    Tell,
    check_start,
    fill,
    put_in_order,
    tell_remarks,
)
from fourds_dist.training.weights_about import About, other_architecture, other_classes
from fourds_dist.training.weights_file import WeightsFile, read_file
from fourds_dist.training.weights_names import Found, find_tensors

_log = logging.getLogger(__name__)


class TeacherConfig(BackboneConfig):
    """The large network, trained on the source and frozen afterwards."""

    arch: Annotated[str, WEIGHTS] = "resnet34"
    """Architecture: a classifier's name in torchvision.models, resnet10 (one basic block a stage), `timm/NAME`, or an
    entry point `package.module:function` that is called with num_classes."""

    checkpoint: Annotated[str | None, WEIGHTS] = None
    """Path or URL of a teacher trained on the source (.safetensors or a state dict); its stage is then skipped."""

    metadata: Annotated[Metadata, WEIGHTS] = "check"
    """`check`: weights whose file names other classes, another architecture or other preprocessing than the run's are
    refused; the same classes in another order are reordered. `ignore`: weights are taken as they are, and a line says
    so."""

    start: Annotated[str, WEIGHTS.of("source")] = "random"
    """First weights of the source stage: `random` (an entry point's own), `torchvision` (ImageNet weights, fetched;
    `torchvision://NAME` for others than the default), or a path or URL. All but the last layer need to fit."""


class StudentConfig(BackboneConfig):
    """The small network that is to work on the target."""

    start: Annotated[str, WEIGHTS] = "source"
    """First weights: `source` (trained on the source shards in the teacher's stage), or as teacher.start."""

    metadata: Annotated[Metadata, WEIGHTS] = "check"
    """As teacher.metadata, for a file under student.start."""


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
    run: About | None = None,
    tell: Tell = _log.warning,
) -> nn.Module:
    """A network with its first weights; see `begin`."""
    options: dict[str, Any] = {"image_size": image_size, "run": run, "tell": tell}
    return begin(config, num_classes, start=start, key=key, **options).network


def begin(
    config: BackboneConfig,
    num_classes: int,
    *,
    start: str = "random",
    key: str = "",
    image_size: int | None = None,
    run: About | None = None,
    tell: Tell = _log.warning,
) -> Beginning:
    """A network with its first weights, and whether they know the classes.

    Args:
        start: `random`, `torchvision`, `torchvision://NAME`, or a path or URL of weights. A classifier's last layer
            made for other classes stays random, which is told; a ViT's positions are interpolated.
        key: of `start` in the configuration, for error messages.
        image_size: side of the square images in pixels, for networks of one fixed size.
        run: what the run needs the network to be; None: what a file says of itself is not looked at.
        tell: takes a line on whatever was chosen or left out.

    Raises:
        ValueError: unknown architecture, or weights that cannot be had or do not fit.
    """
    network = build_backbone(config, num_classes, image_size)
    if start == "random":
        return Beginning(network, is_novice=True)
    where = f"{key}={start}"
    is_fetched = start == "torchvision" or start.startswith("torchvision://")
    if is_fetched:
        name = start.removeprefix("torchvision").removeprefix("://")
        file = WeightsFile(where, _torchvision_weights(config.arch, name, where), {})
    else:
        file = read_file(start, what=key)
    found = find_tensors(file.tensors, network.state_dict(), role=key.partition(".")[0])
    if isinstance(network, VisionTransformer) and "encoder.pos_embedding" in found.weights:
        positions = interpolate_embeddings(network.image_size, network.patch_size, OrderedDict(found.weights))
        found.weights.update(positions)
    free = ["conv1.weight"] if config.stem == "small" else []
    metadata: Metadata = getattr(config, "metadata", "check")
    about = About.of_file(file.about, run=run, tensors=file.tensors, own=network.state_dict())
    if run is not None:
        check_start(file, about, run, key, metadata, tell)
        if metadata == "check" and other_classes(about, run) and image_size is not None:
            free += last_layer(network, num_classes, image_size)
    other = None if run is None else other_architecture(about, run)
    hint = "" if other is None else f"; it was made for another network: {other}"
    is_whole = _load_body(network, found, num_classes, where, free=free, hint=hint, tell=tell)
    if is_fetched and config.arch in _FIRST_LAYER:
        _fold_input_transform(network, *_FIRST_LAYER[config.arch])
    elif not is_fetched:
        if is_whole and run is not None and metadata == "check":
            put_in_order(network, file, about, run, image_size, tell)
        tell_remarks(found, file.where, tell)
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
    network: nn.Module,
    found: Found,
    num_classes: int,
    where: str,
    *,
    free: Sequence[str],
    hint: str,
    tell: Tell,
) -> bool:
    """Load all that fits; only the last layer, for other classes, and the tensors named in `free` may differ.

    Args:
        hint: ends the message where something else differs.

    Gives whether the last layer fitted.
    """
    own = network.state_dict()
    missing = [] if _is_one_layer(found.missing, own, num_classes) else found.missing
    if found.unknown or missing:
        lacks = f"lacks {len(missing)} of its tensors (first: {missing[0]})" if missing else ""
        unknown = found.unknown
        has = f"has {len(unknown)} that it does not know (first: {unknown[0]})" if unknown else ""
        kind = type(network).__name__
        raise ValueError(
            f"{where} does not fit the configured {kind}: it {' and '.join(filter(None, (lacks, has)))}{hint}"
        )
    stem = {"conv1.weight"} & set(free)
    differing = [k for k in found.weights if own[k].shape != found.weights[k].shape]
    for name in differing:
        ours, theirs = tuple(own[name].shape), tuple(found.weights[name].shape)
        is_last_layer = ours[:1] == (num_classes,) and ours[1:] == theirs[1:]
        if not is_last_layer and name not in free:
            raise ValueError(
                f"{where}: {name} is {theirs} where {ours} is needed{hint or '; check arch and stem'}"
            )
    renamed = [k for k in free if k in found.weights and k not in differing and k not in stem]
    fill(network, found.without([*differing, *renamed]), where)
    if differing:
        tell(f"{where}: of another shape, left random: {', '.join(differing)}")
    if found.missing:
        tell(f"{where}: not in the file, left random: {', '.join(found.missing)}")
    if renamed:
        tell(f"{where}: of a last layer for other classes, left random: {', '.join(renamed)}")
    return set(differing) <= stem and not found.missing and not renamed


def _is_one_layer(names: Sequence[str], own: dict[str, Tensor], num_classes: int) -> bool:
    """Whether tensors are of one layer whose rows are the classes."""
    layers = {name.rpartition(".")[0] for name in names}
    return len(layers) == 1 and all(own[name].shape[:1] == (num_classes,) for name in names)


_FIRST_LAYER = {
    "googlenet": ("conv1.conv", "conv1.bn"),
    "inception_v3": ("Conv2d_1a_3x3.conv", "Conv2d_1a_3x3.bn"),
}
"""Networks whose ImageNet weights expect images in [-1, 1], which torchvision makes of normalised ones."""


@torch.no_grad()
def _fold_input_transform(network: nn.Module, convolution: str, norm: str) -> None:
    """Make the first layer take images normalised by ImageNet's mean and deviation instead of images in [-1, 1].

    A convolution is linear: its weight takes the scale and the running mean of the normalisation behind it the shift.
    Where the convolution pads (googlenet), pixels at the border see another padding than before.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    weight: Any = network.get_submodule(convolution).weight
    running_mean: Any = network.get_submodule(norm).running_mean
    running_mean -= (weight * ((mean - 0.5) / 0.5)[:, None, None]).sum((1, 2, 3))
    weight *= (std / 0.5)[:, None, None]
