"""What is looked at before anything starts: data, networks and weights, each refused by name.

Starting workers takes minutes and training days; all of this takes seconds, in the driver, and reads no image.
"""

from __future__ import annotations

import torch
from torch import nn

from fourds_dist.data import Split, check_same_classes, open_split
from fourds_dist.data.manifest import read_manifest
from fourds_dist.data.url import split_pattern
from fourds_dist.method.backbones import stage_names
from fourds_dist.method.recompute import recompute_blocks
from fourds_dist.settings import Settings
from fourds_dist.training.checkpoint import load_weights
from fourds_dist.training.networks import build
from fourds_dist.training.stage import SECTION, stage_config, train_splits, train_stream
from fourds_dist.training.stages import stages_to_run


def check(settings: Settings) -> None:
    """Refuse a configuration that cannot work.

    Raises:
        ValueError: naming the thing, the key and the remedy.
    """
    _check_needs(settings)
    _check_networks(settings, num_classes=len(_check_shards(settings).classes))
    _check_batches(settings)
    _check_launch(settings)


def check_before_packing(settings: Settings, num_classes: int) -> None:
    """The part of `check` that needs no data, for data sets that are still to be packed.

    Raises:
        ValueError: naming the thing, the key and the remedy.
    """
    _check_needs(settings)
    _check_networks(settings, num_classes)
    _check_launch(settings)


def _check_needs(settings: Settings) -> None:
    """There is something to run, and the domains that it needs are named."""
    if not stages_to_run(settings):
        raise ValueError(
            f"run.until={settings.run.until} leaves nothing to run: the teacher is given, and the student does not "
            "start from the source; take it out"
        )
    if settings.target.url is None and settings.run.until != "source":
        raise ValueError("target.url is not set: give the target domain's shards")
    if settings.source.url is None and "source" in stages_to_run(settings):
        raise ValueError(
            "source.url is not set: give the source domain's shards, or a trained teacher as teacher.checkpoint "
            "together with a student.start other than `source`"
        )


def _check_launch(settings: Settings) -> None:
    """DeepSpeed is not asked for what it cannot do; storage is waited for without the other workers giving up."""
    launch, step = settings.launch, settings.step
    if settings.run.patience_s >= launch.collective_timeout_s:
        raise ValueError(
            f"launch.collective_timeout_s={launch.collective_timeout_s:g} is not above run.patience_s="
            f"{settings.run.patience_s:g}: workers would give up the one that waits for storage"
        )
    if launch.strategy == "ddp":
        return
    from fourds_dist.training.strategy import make_strategy
    from fourds_dist.training.world import World

    asked = {
        "step.max_bad_steps": step.max_bad_steps > 0,
        "step.compile": step.compile,
        "step.cuda_graph": bool(step.cuda_graph),
    }
    for key in (key for key, is_asked in asked.items() if is_asked):
        raise ValueError(f"{key} does not go with launch.strategy=deepspeed; leave it out, or take `ddp`")
    for stage in stages_to_run(settings):
        optim, here = stage_config(stage, settings).optim, World(0, 1, torch.device("cpu"))
        make_strategy("deepspeed", here, optim, 1, deepspeed=launch.deepspeed)


def _check_shards(settings: Settings) -> Split:
    """Every split of both domains is there, whole, of one class list, and with labels where it judges.

    Gives the first training split.
    """
    domains = [domain for domain in (settings.target, settings.source) if domain.url is not None]
    first = open_split(domains[0], "train", seed=settings.run.seed)
    for domain in domains:
        for name in ("train", "val", "test"):
            split = open_split(domain, name, seed=settings.run.seed)
            check_same_classes(split, first)
            split.check_shards()
    _check_labels(settings)
    return first


def _check_labels(settings: Settings) -> None:
    """What networks are chosen and tested on has labels; without, accuracy would be 0 in every epoch."""
    judges = [("source", "val")] if "source" in stages_to_run(settings) else []
    if settings.run.until != "source":
        judges += [("target", "val"), ("target", "test")]
    for domain, name in judges:
        url = getattr(settings, domain).url
        if not any(read_manifest(split_pattern(url)[0]).class_counts[name]):
            use = "choose the best epoch by" if name == "val" else "test the networks on"
            raise ValueError(
                f"{domain}.url={url} has a {name!r} split without a single label, and labels are needed to {use}; only "
                "training images can do without: pack or index that split again, with labels"
            )


def _check_batches(settings: Settings) -> None:
    """Every stage has enough images for a global batch, and its batch enough for all workers."""
    for stage in stages_to_run(settings):
        splits = train_splits(stage, settings)
        try:
            workers = settings.launch.max_workers
            for rank in (0, workers - 1):
                train_stream(stage, settings, splits, rank, workers)
        except ValueError as error:
            size = stage_config(stage, settings).global_batch_size
            raise ValueError(f"{SECTION[stage]}.global_batch_size={size}: {error}") from None


def _check_networks(settings: Settings, num_classes: int) -> None:
    """Both networks can be built, have the stages that are compared, and fit the weights they start from."""
    networks: dict[str, nn.Module] = {}
    stages: dict[str, tuple[str, ...]] = {}
    trains_teacher = "source" in stages_to_run(settings) and settings.teacher.checkpoint is None
    starts = {
        "teacher": settings.teacher.start if trains_teacher else "random",
        "student": "random" if settings.student.start == "source" else settings.student.start,
    }
    for name, config in (("teacher", settings.teacher), ("student", settings.student)):
        side = settings.data.crop_px
        try:
            network = build(config, num_classes, start=starts[name], key=f"{name}.start", image_size=side)
            networks[name], stages[name] = network, stage_names(config, network)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if settings.step.activation_checkpointing and not recompute_blocks(network):
            raise ValueError(
                f"{name}: {config.arch} is no list of blocks that could run again; leave out "
                "step.activation_checkpointing"
            )
    if len(stages["teacher"]) != len(stages["student"]):
        raise ValueError(
            f"teacher has {len(stages['teacher'])} stages {stages['teacher']}, student {len(stages['student'])} "
            f"{stages['student']}; name as many of each under teacher.stages and student.stages"
        )
    if settings.teacher.checkpoint is not None:
        load_weights(settings.teacher.checkpoint, networks["teacher"], what="teacher.checkpoint")
