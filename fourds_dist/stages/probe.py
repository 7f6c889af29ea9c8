"""The source stage for teachers that know no classes: a linear probe, and training of the last stage of the network.

Features of a frozen body depend on no training step, so each image passes through the body once. With `data.cache_dir`
they stay on the node's disk, and a restarted run, or another one with the same body and images, reads them from there.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from fourds_dist.data import evaluation_batches
from fourds_dist.data.stream.preprocessing import Preprocessing
from fourds_dist.models.backbones import stage_names
from fourds_dist.models.class_names import check_class_names, check_same_tower, load_image_text_model
from fourds_dist.models.hub import is_repository
from fourds_dist.models.timm_networks import FOLDER
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.stages.network_inputs import predictor
from fourds_dist.stages.runner import StageRunner, fingerprint_of
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import criterion
from fourds_dist.stages.train_streams import class_weights_of, train_splits
from fourds_dist.stages.trial_step import call_on_blank_images
from fourds_dist.training.evaluate import PlainImages
from fourds_dist.training.linear_probe import (
    Features,
    Probe,
    accuracy_of_layer,
    features,
    fit_last_layer,
    freeze_up_to,
    last_linear,
)


def probe_teacher(stage: StageRunner, teacher: nn.Module) -> Probe:
    """Fit the last layer of the teacher to its features of the source's images; a collective call.

    Raises:
        ValueError: a network without a Linear as last layer, or a training split without labels.
    """
    settings, world = stage.settings, stage.world
    num_classes = len(stage.split(settings.source, "train").classes)
    layer = last_linear(teacher, num_classes, stage.inputs["teacher"].image_px, what="teacher")
    teacher.to(world.device)
    train, val = (_features(stage, teacher, layer, name) for name in ("train", "val"))
    weights = None
    if settings.source.class_weights == "balanced":
        weights = class_weights_of(train_splits("source", settings), 0.0).to(world.device)
    probe = fit_last_layer(
        layer, train, val, world, measure=criterion("source", settings), class_weights=weights
    )
    stage.notify(
        f"linear probe of the teacher: {probe.num_images} images, {probe.num_features} features, penalty {probe.l2:g}; "
        f"accuracy {probe.accuracy.value:.1%} on the source's validation split"
    )
    return probe


def text_model(settings: Settings) -> str:
    """Return the image-text model whose text tower gives the last layer (source_stage.train=class_names).

    Raises:
        ValueError: neither source_stage.text_model nor the teacher names a repository or a folder.
    """
    given = settings.source_stage.text_model
    names = (given,) if given is not None else (settings.teacher.start, settings.teacher.arch)
    for name in names:
        if is_repository(name) or name.startswith(FOLDER):
            return name
    raise ValueError(
        f"source_stage.train=class_names: {' and '.join(names)} name no image-text model; set source_stage.text_model "
        "to hf-hub:owner/name or local-dir:PATH, the model of open_clip with the teacher's weights as image tower"
    )


def name_teacher(stage: StageRunner, teacher: nn.Module) -> Accuracy:
    """Set the last layer of the teacher from the class names of the source; a collective call.

    Returns:
        The accuracy on the validation split of the source, whose images also give the mean norm of the embeddings.

    Raises:
        ValueError: class names that are no words, or a text model that is not that of the teacher's weights.
    """
    settings, world, config = stage.settings, stage.world, stage.settings.source_stage
    classes, side = stage.split(settings.source, "train").classes, stage.inputs["teacher"].image_px
    check_class_names(classes)
    name = text_model(settings)
    layer = last_linear(teacher, len(classes), side, what="teacher")
    model = load_image_text_model(name)
    check_same_tower(model, teacher, layer, side)
    teacher.to(world.device)
    val = _features(stage, teacher, layer, "val")
    projection_ED = model.projection(layer.in_features).to(world.device)
    embeddings_KE = model.class_embeddings(classes, config.templates).to(world.device)
    norm_N = (val.values @ projection_ED.T).norm(dim=1).double()
    total, num = world.sum(torch.stack([norm_N.sum(), torch.tensor(len(norm_N)).to(norm_N)])).tolist()
    if not num:
        raise ValueError("the source's validation split has no labelled images to judge the class names by")
    with torch.no_grad():
        layer.weight.copy_(embeddings_KE @ projection_ED * (model.scale * num / total))
        if layer.bias is not None:
            layer.bias.zero_()
    bias_K = torch.zeros(len(classes), device=world.device)
    accuracy = accuracy_of_layer(val, layer.weight.detach(), bias_K, world)
    stage.notify(
        f"last layer of the teacher from {len(classes)} class names in {len(config.templates)} templates by "
        f"{name}: accuracy {accuracy.value:.1%} on the source's validation split"
    )
    return accuracy


def freeze_before_last_stage(stage: StageRunner, teacher: nn.Module) -> list[nn.Module]:
    """Freeze the teacher up to its last stage but one, and return the frozen modules."""
    *_, before, _ = stage_names(stage.settings.teacher, teacher)
    side = stage.inputs["teacher"].image_px
    return freeze_up_to(
        teacher,
        before,
        lambda: call_on_blank_images(teacher, batch_size=2, side_px=side, training=False),
    )


def _features(
    stage: StageRunner, teacher: nn.Module, layer: nn.Linear, name: Literal["train", "val"]
) -> Features:
    settings, world = stage.settings, stage.world
    split = stage.split(settings.source, name)
    is_bfloat16 = settings.step.uses_bfloat16(world.device)
    images = PlainImages(world.device, settings.data.mean, settings.data.std, autocast=is_bfloat16)
    body = [
        parameter for parameter in teacher.parameters() if all(parameter is not p for p in layer.parameters())
    ]
    preprocessing = Preprocessing.of(settings.data, split.grey_range, stage.inputs["teacher"]).to_json()
    key = [
        settings.teacher.arch,
        fingerprint_of(body),
        split.fingerprint,
        preprocessing,
        is_bfloat16,
        world.size,
    ]
    file = _cache_file(settings.data.cache_dir, key, f"{name}-{world.rank}")
    if file is not None and (cached := _read(file, layer.in_features)) is not None:
        return Features(cached.values.to(world.device), cached.labels.to(world.device))
    batches = evaluation_batches(
        split,
        settings.data,
        batch_size_per_rank=settings.step.eval_batch_size_per_rank,
        rank=world.rank,
        world_size=world.size,
    )
    network = predictor(teacher, stage.conversions.get("teacher"))
    found = features(network, layer, batches, images, world.device)
    if file is not None:
        _write(file, found)
    return found


def _cache_file(cache_dir: str | None, key: object, name: str) -> Path | None:
    if cache_dir is None:
        return None
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
    return Path(cache_dir) / "features" / f"{digest}-{name}.safetensors"


def _read(file: Path, num_features: int) -> Features | None:
    """Return cached features; None without a complete file."""
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError):
        return None
    found = Features(tensors["values"], tensors["labels"])
    return found if found.values.shape == (len(found.labels), num_features) else None


def _write(file: Path, found: Features) -> None:
    """Write features; a cache that cannot be written costs the next run another pass, and this run nothing."""
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in found._asdict().items()}, partial)
        partial.replace(file)
    except (OSError, SafetensorError):
        partial.unlink(missing_ok=True)
