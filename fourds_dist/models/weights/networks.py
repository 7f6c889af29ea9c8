"""The configured teacher and student, and their initial weights."""

from __future__ import annotations

import itertools
import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from fourds_dist.config.effects import PLACE, WEIGHTS
from fourds_dist.io.light_torchvision import torchvision
from fourds_dist.models.backbones import BackboneConfig, build_backbone
from fourds_dist.models.hub import is_repository
from fourds_dist.models.timm_networks import is_timm
from fourds_dist.models.weights.class_order import last_layer
from fourds_dist.models.weights.files import read_file
from fourds_dist.models.weights.loading import fill, notify_remarks
from fourds_dist.models.weights.metadata import NetworkMetadata, class_order
from fourds_dist.models.weights.metadata_check import Metadata, MetadataCheck, Notify
from fourds_dist.models.weights.names import MatchedTensors, match_tensors
from fourds_dist.models.weights.published import converted, is_published, published_weights, pushed_student

_log = logging.getLogger(__name__)

MOST_LETTERS = 60
"""Longest name of a student."""


class TeacherConfig(BackboneConfig):
    """The large network, trained on the source and frozen afterwards."""

    role: ClassVar[str] = "teacher"

    arch: Annotated[str, WEIGHTS] = "resnet34"
    """Architecture: name of a classifier in torchvision.models, resnet10 (one basic block per stage), vit_mini_4 or
    vit_nano_4 (small ViTs for images of 16 to 64 px), `timm/NAME`, `hf-hub:owner/name`, `local-dir:PATH` (a folder with
    the files of such a repository), or an entry point `package.module:function` that takes num_classes."""

    checkpoint: Annotated[str | None, WEIGHTS] = None
    """Path or URL of a teacher trained on the source (.safetensors or a state dict), or hf://owner/name; the source
    stage then does not train the teacher."""

    metadata: Annotated[Metadata, WEIGHTS] = "check"
    """`check`: refuse weights whose file names other classes, another architecture or other preprocessing than the
    run's, reorder equal classes in another order, and take the keys image_px, mean and std that are null from the
    weights. `ignore`: use the weights as they are, with data.mean and data.std where mean and std are null, and log the
    differences."""

    start: Annotated[str, WEIGHTS.of("source")] = "random"
    """Initial weights of the source stage: `random` (or those that an entry point sets), `pretrained` (those that
    torchvision, timm or the hub publish for arch; `timm/NAME.TAG` as arch names timm's), `torchvision://NAME`,
    `hf://owner/name` (weights for a network of timm, or a student that `fourds export --push` wrote), or a path or URL.
    All layers but the last have to fit."""


class StudentConfig(BackboneConfig):
    """The small network, trained for the target."""

    role: ClassVar[str] = "student"

    start: Annotated[str, WEIGHTS] = "source"
    """Initial weights: `source` (trained on the source shards in the source stage), or a value of teacher.start."""

    metadata: Annotated[Metadata, WEIGHTS] = "check"
    """As teacher.metadata, for a file under student.start."""

    name: Annotated[str | None, PLACE] = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=MOST_LETTERS
    )
    """Name of the student among several (`students`), in metrics, tables and files; null: the last part of arch, with
    a number where it is not unique (resnet10, resnet10-2)."""


def student_names(students: Sequence[StudentConfig]) -> list[str]:
    """Return a unique name for each student: its own, or the last part of its arch.

    >>> student_names([StudentConfig(arch="timm/vit_tiny.in1k"), StudentConfig(), StudentConfig(stem="small")])
    ['vit_tiny-in1k', 'resnet18', 'resnet18-2']
    """
    taken = {student.name.casefold() for student in students if student.name}
    names = []
    for student in students:
        name = student.name
        if name is None:
            stem = re.sub(r"[^A-Za-z0-9_-]+", "-", re.split(r"[/:]", student.arch.rstrip("/"))[-1]).strip(
                "-_"
            )
            stem = stem[:MOST_LETTERS] or "student"
            numbered = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
            name = next(each for each in numbered if each.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names


class InitialNetwork(NamedTuple):
    """A network with its initial weights."""

    network: nn.Module

    is_untrained: bool
    """The network does not know the classes yet: all weights or those of the last layer are random, or all weights are
    ImageNet's."""


def build(
    config: BackboneConfig,
    num_classes: int,
    *,
    start: str = "random",
    key: str = "",
    image_size: int | None = None,
    run: NetworkMetadata | None = None,
    notify: Notify = _log.warning,
) -> nn.Module:
    """Return a network with its initial weights; see `build_initialised`."""
    options: dict[str, Any] = {"image_size": image_size, "run": run, "notify": notify}
    return build_initialised(config, num_classes, start=start, key=key, **options).network


def build_initialised(
    config: BackboneConfig,
    num_classes: int,
    *,
    start: str = "random",
    key: str = "",
    image_size: int | None = None,
    run: NetworkMetadata | None = None,
    notify: Notify = _log.warning,
) -> InitialNetwork:
    """Return a network with its initial weights, and whether it is untrained.

    Args:
        start: `random`, `pretrained`, `torchvision`, `torchvision://NAME`, `hf-hub:owner/name`, or a path or URL of
            weights. The last layer of a classifier for other classes stays random, which is reported; the positions of
            a ViT are interpolated.
        key: key of `start` in the configuration, for error messages.
        image_size: side of the square images in pixels, for networks of a fixed size.
        run: metadata that the run requires; None: the file's metadata are not checked.
        notify: receives one line per choice or omission.

    Raises:
        ValueError: unknown architecture, or weights that are unavailable or do not fit.
    """
    network = build_backbone(config, num_classes, image_size)
    if start == "random":
        return InitialNetwork(network, is_untrained=True)
    where = f"{key}={start}"
    if is_repository(start):
        start = pushed_student(start, key) or start
    is_download = is_published(start)
    file = (
        published_weights(config.arch, start, image_size, where)
        if is_download
        else read_file(start, what=key)
    )
    found = match_tensors(file.tensors, network.state_dict(), role=key.partition(".")[0])
    if not is_download and is_timm(config.arch):
        found = converted(found, file, network, config.arch, image_size, role=key.partition(".")[0])
    vision_transformer = torchvision.models.vision_transformer
    if isinstance(network, vision_transformer.VisionTransformer) and "encoder.pos_embedding" in found.weights:
        positions = vision_transformer.interpolate_embeddings(
            network.image_size, network.patch_size, OrderedDict(found.weights)
        )
        found.weights.update(positions)
    free = ["conv1.weight"] if config.stem == "small" else []
    policy: Metadata = getattr(config, "metadata", "check")
    of_file = NetworkMetadata.of_file(file.about, run=run, tensors=file.tensors, own=network.state_dict())
    check = None if run is None else MetadataCheck(file.where, of_file, run, key, policy, notify)
    hint = ""
    if check is not None:
        check.start()
        if policy == "check" and check.other_classes and image_size is not None:
            free += last_layer(network, num_classes, image_size)
        if check.other_architecture:
            hint = f"; the file was made for another network: {check.other_architecture}"
    is_whole = _load_body(network, found, num_classes, where, free=free, hint=hint, notify=notify)
    if is_download and config.arch in _FIRST_LAYER:
        _fold_input_transform(network, *_FIRST_LAYER[config.arch])
    if check is not None:
        check.reverse_channels(network, image_size)
        if is_whole and policy == "check":
            check.reorder(network, image_size)
    if not is_download:
        notify_remarks(found, file.where, notify)
    # Published weights are for the run's classes only if both have the same names.
    has_classes = not is_download or (run is not None and class_order(of_file, run) is not None)
    return InitialNetwork(network, is_untrained=not (is_whole and has_classes))


def metadata(config: BackboneConfig, classes: tuple[str, ...], **more: Any) -> dict[str, str]:
    """Return the metadata of a file of weights: architecture, stem, classes in the order of the outputs, and `more`."""
    values = {"arch": config.arch, "stem": config.stem, "classes": "\n".join(classes), **more}
    return {"format": "fourds_dist", **{name: str(value) for name, value in values.items()}}


def _load_body(
    network: nn.Module,
    found: MatchedTensors,
    num_classes: int,
    where: str,
    *,
    free: Sequence[str],
    hint: str,
    notify: Notify,
) -> bool:
    """Load the tensors that fit, and return whether the last layer is among them.

    Args:
        free: names of tensors that may differ in shape, besides those of a last layer for other classes.
        hint: end of the error message if other tensors differ.
    """
    own = network.state_dict()
    missing = [] if _is_one_layer(found.missing, own, num_classes) else found.missing
    if found.unknown or missing:
        lacks = f"{len(missing)} tensors are missing (first: {missing[0]})" if missing else ""
        unknown = found.unknown
        has = f"{len(unknown)} are unknown (first: {unknown[0]})" if unknown else ""
        kind = type(network).__name__
        raise ValueError(
            f"{where} does not fit the configured {kind}: {' and '.join(filter(None, (lacks, has)))}{hint}"
        )
    stem = {"conv1.weight"} & set(free)
    differing = [k for k in found.weights if own[k].shape != found.weights[k].shape]
    for name in differing:
        expected, actual = tuple(own[name].shape), tuple(found.weights[name].shape)
        is_last_layer = expected[:1] == (num_classes,) and expected[1:] == actual[1:]
        if not is_last_layer and name not in free:
            raise ValueError(
                f"{where}: {name} has shape {actual}, expected {expected}{hint or '; check arch and stem'}"
            )
    renamed = [k for k in free if k in found.weights and k not in differing and k not in stem]
    fill(network, found.without([*differing, *renamed]), where)
    if differing:
        notify(f"{where}: other shape in the file, initialised randomly: {', '.join(differing)}")
    if found.missing:
        notify(f"{where}: not in the file, initialised randomly: {', '.join(found.missing)}")
    if renamed:
        notify(f"{where}: last layer for other classes, initialised randomly: {', '.join(renamed)}")
    return set(differing) <= stem and not found.missing and not renamed


def _is_one_layer(names: Sequence[str], own: dict[str, Tensor], num_classes: int) -> bool:
    """Whether all tensors belong to one layer with a row for each class."""
    layers = {name.rpartition(".")[0] for name in names}
    return len(layers) == 1 and all(own[name].shape[:1] == (num_classes,) for name in names)


_FIRST_LAYER = {
    "googlenet": ("conv1.conv", "conv1.bn"),
    "inception_v3": ("Conv2d_1a_3x3.conv", "Conv2d_1a_3x3.bn"),
}
"""Networks whose ImageNet weights expect images in [-1, 1], computed by torchvision from normalised images."""


@torch.no_grad()
def _fold_input_transform(network: nn.Module, convolution: str, norm: str) -> None:
    """Change the first layer from images in [-1, 1] to images normalised by ImageNet's mean and deviation.

    The weight of the convolution includes the scale, and the running mean of the BatchNorm after it the shift. If the
    convolution pads (googlenet), the padding value at the border differs from before.
    """
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    weight: Any = network.get_submodule(convolution).weight
    running_mean: Any = network.get_submodule(norm).running_mean
    running_mean -= (weight * ((mean - 0.5) / 0.5)[:, None, None]).sum((1, 2, 3))
    weight *= (std / 0.5)[:, None, None]
