"""Size and normalisation of images that weights say of themselves, before the weights are loaded."""

from __future__ import annotations

from typing import Any

import torch

from fourds_dist.models.backbones import BackboneConfig, build_backbone, size_options
from fourds_dist.models.hub import HUB
from fourds_dist.models.timm_networks import is_timm, resolve
from fourds_dist.models.weights.description import input_normaliser
from fourds_dist.models.weights.files import read_file
from fourds_dist.models.weights.metadata import NETWORK_KEYS, NetworkMetadata
from fourds_dist.models.weights.published import PRETRAINED, is_published, torchvision_weights

NO_WEIGHTS = ("random", "source")
"""Values of teacher.start and student.start that name no weights."""


def weights_input(config: BackboneConfig, start: str, key: str) -> dict[str, Any]:
    """Return `mean`, `std` and `image_px` of the images that weights were made for, as far as known.

    Published weights and files of networks of a fixed size (ViT) have a size. Networks of any size have one only if
    the file names a size other than that of the crop (`image_px` of a run).

    Args:
        start: a value of teacher.checkpoint, teacher.start or student.start.
        key: this key, for messages.

    Raises:
        ValueError: weights that do not exist, or a file that cannot be read.
    """
    if start in NO_WEIGHTS:
        return {}
    is_fixed = bool(size_options(config.arch, 1))
    found = (
        _published(config.arch, start, key) if is_published(start) else _of_file(config, start, key, is_fixed)
    )
    if not is_fixed and is_published(start):
        found.pop("image_px", None)
    return found


def _published(arch: str, start: str, key: str) -> dict[str, Any]:
    if start.startswith(HUB) or (start == PRETRAINED and is_timm(arch)):
        config = resolve(arch if start == PRETRAINED else start).config
        if config is None:
            return {}
        return {"mean": tuple(config.mean), "std": tuple(config.std), "image_px": config.input_size[-1]}
    transforms: Any = torchvision_weights(arch, start, f"{key}={start}").transforms()
    return {"mean": tuple(transforms.mean), "std": tuple(transforms.std), "image_px": transforms.crop_size[0]}


def _of_file(config: BackboneConfig, start: str, key: str, is_fixed: bool) -> dict[str, Any]:
    file = read_file(start, what=key)
    own: dict[str, Any] = {}
    if input_normaliser(
        file.tensors, own
    ):  # of the file's network, unless the run's network has the layer too
        with torch.random.fork_rng(devices=[]):
            own = build_backbone(config, num_classes=2, image_size=config.image_px).state_dict()
    said = NetworkMetadata.of_file(file.about, tensors=file.tensors, own=own).preprocessing
    found: dict[str, Any] = {name: tuple(said[name]) for name in NETWORK_KEYS if name in said}
    image_px = said.get("image_px")
    if isinstance(image_px, int) and (is_fixed or image_px != said.get("crop_px")):
        found["image_px"] = image_px
    return found
