"""Values of keys that a run on image folders leaves out, chosen by the number and the size of the images.

The defaults of the configuration are the paper's, for photographs of 256 px and long training. Here they follow from
the images, and the run's config.yaml holds them. No key that is given changes.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from fourds_dist.config.loading import Draft
from fourds_dist.config.trees import flatten
from fourds_dist.data.datasets.inputs import ImageInput
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.io.terminal import say
from fourds_dist.io.url import split_pattern
from fourds_dist.launch.image_inputs import (
    DOMAINS,
    DomainName,
    FoundImages,
    ImageInputs,
    changed,
    place_of,
    refuse_changed_images,
    slug,
)
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.launch_config import is_cluster_named
from fourds_dist.stages.run_identity import begun_stages, held_settings
from fourds_dist.stages.settings import Settings
from fourds_dist.training.distributed.rank_variables import group_size

STRIDE_PX = 32
"""Images of common networks are multiples of this side."""
MOST_CROP_PX = 224
SMALL_PX = 96
"""Largest side for which the networks get the stem for small images."""
NUM_SAMPLED = 200
"""Images of each domain whose headers are read."""
IMAGES_SHOWN = 40_000
"""Images that a stage shows in all its epochs, within the limits of the numbers of epochs."""
EPOCHS = (15, 60)
"""Smallest and largest number of epochs."""
STEPS_PER_EPOCH = 20
"""Steps of an epoch for which the batch of a small data set is made smaller."""
BATCHES = (8, 64)
"""Smallest and largest global batch."""

_RESNETS = ("resnet", "resnext", "wide_resnet")


def with_images(settings: Settings, given: Draft) -> Settings:
    """Return the settings of a run, with dataset folders for its image folders and values for keys that are not given.

    The values are printed. A run that has started keeps the values in its folder. Nothing is written.

    Args:
        settings: with absolute paths.
        given: the keys that the user gives.

    Raises:
        ValueError: images that cannot be used; see `ImageInputs.find`.
        ConfigError: the run of this name has started with other images.
    """
    settings, found = ImageInputs(place_of(settings)).packed(settings)
    if found is None:
        return settings
    keys = {key for key, _ in flatten(given.tree)}
    settings = _named(settings, keys, found.images)
    refuse_changed_images(settings)
    if values := _in_folder(settings):
        return changed(settings, {key: value for key, value in values.items() if key not in keys})
    values = {key: v for key, v in _values(settings, keys, found.images).items() if key not in keys}
    if _is_first_rank():
        _show(settings, values, found)
    return changed(settings, values)


def _show(settings: Settings, values: Mapping[str, Any], found: FoundImages) -> None:
    """Print what was found and chosen."""
    for name, images in found.images.items():
        say(
            f"{name}: {len(images.files)} images of {len(found.classes)} classes in {images.path}",
            file=sys.stderr,
        )
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        sections.setdefault(key.partition(".")[0], []).append(f"{key}={_text(value)}")
    say(f"chosen for run.name={settings.run.name} (KEY=VALUE changes a value):", file=sys.stderr)
    for words in sections.values():
        say(f"  {' '.join(words)}", file=sys.stderr)
    if settings.teacher.start == "random" and settings.teacher.checkpoint is None:
        say(
            "  teacher.start=random (teacher.start=torchvision downloads ImageNet weights, which help with few "
            "photographs)",
            file=sys.stderr,
        )


def crop_of(side_px: float) -> int:
    """Return data.crop_px for images whose shorter side is about `side_px`.

    >>> [crop_of(side) for side in (8, 32, 100, 250, 4000)]
    [32, 32, 96, 224, 224]
    """
    return min(max(int(side_px) // STRIDE_PX * STRIDE_PX, STRIDE_PX), MOST_CROP_PX)


def batch_of(num_images: int) -> int:
    """Return the global batch for a number of training images: a power of two.

    >>> [batch_of(num) for num in (20, 400, 1_000_000)]
    [8, 16, 64]
    """
    least, most = BATCHES
    return min(max(1 << int(math.log2(max(num_images / STEPS_PER_EPOCH, 1))), least), most)


def epochs_of(num_images: int) -> int:
    """Return the number of epochs for a number of training images.

    >>> [epochs_of(num) for num in (400, 5000, 1_000_000)]
    [60, 15, 15]
    """
    least, most = EPOCHS
    return min(max(round(IMAGES_SHOWN / max(num_images, 1)), least), most)


def _values(
    settings: Settings, given: Collection[str], inputs: Mapping[DomainName, ImageInput]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    crop = settings.data.crop_px
    sides = [side for images in inputs.values() for side in images.sides(NUM_SAMPLED)]
    if sides and not {"data.crop_px", "data.resize_px"} & set(given):
        crop = crop_of(statistics.median(sides))
        values |= {"data.resize_px": round(crop * 8 / 7), "data.crop_px": crop}
    elif "data.crop_px" in given and "data.resize_px" not in given:
        values["data.resize_px"] = round(crop * 8 / 7)
    elif "data.resize_px" in given and "data.crop_px" not in given:
        crop = crop_of(settings.data.resize_px)
        values["data.crop_px"] = min(crop, settings.data.resize_px)
    is_small = values.get("data.crop_px", crop) <= SMALL_PX
    networks = (("teacher", "resnet18"), ("student", "resnet10"))  # several students are as given
    for network, small in networks[:1] if settings.students else networks:
        config = getattr(settings, network)
        is_given = getattr(config, "checkpoint", None) is not None or config.start not in ("random", "source")
        if is_small and not is_given:
            if f"{network}.arch" not in given:
                values[f"{network}.arch"] = small
            if values.get(f"{network}.arch", config.arch).startswith(_RESNETS):
                values[f"{network}.stem"] = "small"
    stages: tuple[tuple[str, DomainName], ...] = (("source_stage", "source"), ("distill_stage", "target"))
    for section, domain in stages:
        num_images = _num_train(settings, domain, inputs)
        if num_images is None:
            continue
        batch = batch_of(num_images)
        values |= {f"{section}.epochs": epochs_of(num_images), f"{section}.global_batch_size": batch}
        if settings.teacher.start == "random" and settings.teacher.checkpoint is None:
            batch = (
                getattr(settings, section).global_batch_size
                if f"{section}.global_batch_size" in given
                else batch
            )
            values |= {f"{section}.optim.lr": 0.05 * batch / 64, f"{section}.optim.schedule": "cosine"}
    if settings.adapt.method != "none" and "distill_stage.epochs" in values:
        for name in ("epochs", "global_batch_size"):
            values[f"adapt_stage.{name}"] = values[f"distill_stage.{name}"]
    if not (
        torch.cuda.is_available() or is_cluster_named() or any(key.startswith("launch.") for key in given)
    ):
        values["launch.runner"] = "inline"  # on all cores; a worker of Ray has one
    return values


def _num_train(settings: Settings, domain: DomainName, inputs: Mapping[DomainName, ImageInput]) -> int | None:
    """Return the number of training images of a domain; None: the domain has no data."""
    if domain in inputs:
        return inputs[domain].num_train
    url = getattr(settings, domain).url
    return None if url is None else read_manifest(split_pattern(url)[0]).num_samples("train")


def _named(settings: Settings, given: Collection[str], images: Mapping[DomainName, ImageInput]) -> Settings:
    """Return the settings with a name of the run that consists of the names of its domains."""
    if "run.name" in given:
        return settings
    parts = []
    for name in DOMAINS:
        url = getattr(settings, name).url
        if name in images:
            parts.append(slug(images[name].path))
        elif url is not None:
            parts.append(slug(Path(split_pattern(url)[0])))
    return (
        changed(settings, {"run.name": "-to-".join(parts)})
        if all(parts) and parts[0][0].isalnum()
        else settings
    )


def _in_folder(settings: Settings) -> dict[str, Any]:
    """Return the values of the keys that may be chosen in the folder of a run that has started; else empty."""
    folder = RunFolder(settings.run_url)
    if not folder.exists(RunFile.CONFIG):
        return {}
    former = held_settings(folder)
    values = dict(flatten(former.model_dump(mode="json")))
    keys = [key for key in _KEYS if not (former.students and key.startswith("student."))]
    return {key: values[key] for key in keys} if begun_stages(folder, former) else {}


_KEYS = (
    "launch.runner", "data.resize_px", "data.crop_px", "teacher.arch", "teacher.stem", "student.arch", "student.stem",
    *(
        f"{section}.{key}" for section in ("source_stage", "adapt_stage", "distill_stage")
        for key in ("epochs", "global_batch_size", "optim.lr", "optim.schedule")
    ),
)  # fmt: skip
"""Keys that are chosen."""


def _is_first_rank() -> bool:
    return (group_size() or 1) == 1 or os.environ["RANK"] == "0"


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
