"""What is looked at before anything starts: data, networks and weights, each refused by name.

Starting workers takes minutes and training days; all of this takes seconds, in the driver, and reads no image.
"""

from __future__ import annotations

import logging

import torch

from fourds_dist.data import Split, check_same_classes, open_split
from fourds_dist.data.cache import CacheFolderError
from fourds_dist.data.manifest import read_manifest
from fourds_dist.data.url import split_pattern
from fourds_dist.settings import Settings
from fourds_dist.training.preflight_networks import check_networks
from fourds_dist.training.stage import SECTION, stage_config, train_splits, train_stream
from fourds_dist.training.stages import stages_to_run

_log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Refuse a configuration that cannot work.

    Raises:
        ValueError: naming the thing, the key and the remedy.
    """
    _check_needs(settings)
    classes = _check_shards(settings).classes
    _check_batches(settings)
    _check_launch(settings)
    check_networks(settings, len(classes), classes)


def check_before_packing(settings: Settings, num_classes: int) -> None:
    """The part of `check` that needs no data, for data sets that are still to be packed.

    Raises:
        ValueError: naming the thing, the key and the remedy.
    """
    _check_needs(settings)
    _check_launch(settings)
    check_networks(settings, num_classes)


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
    on_gpu = torch.cuda.is_available() if launch.runner == "inline" else launch.use_gpu
    check_device(settings, on_gpu=on_gpu)
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


def check_device(settings: Settings, *, on_gpu: bool | None) -> None:
    """Refuse ways to compute a step that the workers' devices do not have.

    Args:
        on_gpu: whether workers have GPUs; None: the cluster is not known yet.

    Raises:
        ValueError: naming the key.
    """
    step, workers = settings.step, settings.launch.max_workers
    if on_gpu is False and step.batch_norm == "synchronised":
        raise ValueError("step.batch_norm=synchronised needs GPUs; use step.batch_norm=averaged on CPUs")
    if step.cuda_graph and (on_gpu is False or workers > 1):
        raise ValueError(
            "step.cuda_graph=true works on one GPU; leave it out on CPUs and with several workers"
        )


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
            if name == "train" and settings.data.grey_range is None:
                _tell_ranges(first, split)
    _check_labels(settings)
    return first


def _tell_ranges(first: Split, second: Split) -> None:
    """Domains may come from instruments of different depth; a person should know how they are read."""
    if first.grey_range and second.grey_range and first.grey_range != second.grey_range:
        _log.info(
            "images of more than 8 bits are read by a range of each domain: %g to %g in %s, %g to %g in %s; "
            "data.grey_range gives one to both",
            *(*first.grey_range, first.url, *second.grey_range, second.url),
        )


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
        except CacheFolderError:
            raise
        except ValueError as error:
            size = stage_config(stage, settings).global_batch_size
            raise ValueError(f"{SECTION[stage]}.global_batch_size={size}: {error}") from None
