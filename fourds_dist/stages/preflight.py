"""Checks of data, networks and weights before a run starts.

The start of workers takes minutes and training takes days. The checks take seconds, in the driver, and read no images.
"""

from __future__ import annotations

import logging

import torch

from fourds_dist.data import Split, StreamConfig, check_same_classes, open_split
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.data.io.disk_cache import CacheFolderError
from fourds_dist.io.url import split_pattern
from fourds_dist.runs.accuracy import LABEL_FREE
from fourds_dist.stages.network_inputs import with_network_inputs
from fourds_dist.stages.preflight_networks import check_networks
from fourds_dist.stages.settings import SECTION, Settings, stage_config
from fourds_dist.stages.sinks.trackers import check_trackers
from fourds_dist.stages.stages import stages_to_run
from fourds_dist.stages.target_labels import criterion, has_labels, source_fraction
from fourds_dist.stages.train_streams import train_splits, train_stream
from fourds_dist.training.step import NO_CUDA_GRAPH
from fourds_dist.training.weight_average import PARTITIONED_WEIGHTS

_log = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Check a configuration before the run.

    Raises:
        ValueError: the problem, with the key and the remedy.
    """
    _check_needs(settings)
    classes = _check_shards(settings).classes
    _check_batches(settings)
    _check_launch(settings)
    check_networks(settings, len(classes), classes)


def check_before_packing(settings: Settings, num_classes: int) -> None:
    """Run the part of `check` that needs no data, before the data sets are packed.

    Raises:
        ValueError: the problem, with the key and the remedy.
    """
    _check_needs(settings)
    _check_launch(settings)
    check_networks(with_network_inputs(settings), num_classes)


def _check_needs(settings: Settings) -> None:
    """Check that there is a stage to run, and that the domains of the stages have URLs."""
    if not stages_to_run(settings):
        raise ValueError(
            f"run.until={settings.run.until} leaves nothing to run: the teacher is given, and the student does not "
            "start from the source; remove run.until"
        )
    if settings.target.url is None and settings.run.until != "source":
        raise ValueError("target.url is not set: give the target domain's shards")
    if settings.source.url is None and "source" in stages_to_run(settings):
        raise ValueError(
            "source.url is not set: give the source domain's shards, or a trained teacher as teacher.checkpoint "
            "together with a student.start other than `source`"
        )


def _check_launch(settings: Settings) -> None:
    """Check trackers and the options of DeepSpeed, and that collectives wait longer than retries of storage."""
    check_trackers(settings.tracking)
    launch, step = settings.launch, settings.step
    on_gpu = torch.cuda.is_available() if launch.runner == "inline" else launch.use_gpu
    check_device(settings, on_gpu=on_gpu)
    if settings.run.retry_timeout_s >= launch.collective_timeout_s:
        raise ValueError(
            f"launch.collective_timeout_s={launch.collective_timeout_s:g} is not above run.retry_timeout_s="
            f"{settings.run.retry_timeout_s:g}: other workers would time out while one retries storage; raise "
            "launch.collective_timeout_s or lower run.retry_timeout_s"
        )
    if launch.strategy == "ddp":
        return
    from fourds_dist.training.distributed.world import World
    from fourds_dist.training.strategies.build import make_strategy

    excluded = {
        "step.max_nonfinite_steps": step.max_nonfinite_steps > 0,
        "step.compile": step.compile,
    }
    for key in (key for key, is_set in excluded.items() if is_set):
        raise ValueError(f"{key} does not go with launch.strategy=deepspeed; remove {key}, or use `ddp`")
    for stage in stages_to_run(settings):
        optim, world = stage_config(stage, settings).optim, World(0, 1, torch.device("cpu"))
        strategy = make_strategy("deepspeed", world, optim, 1, deepspeed=launch.deepspeed)
        if step.cuda_graph and not strategy.can_capture:
            raise ValueError(NO_CUDA_GRAPH)
        if stage_config(stage, settings).ema_decay is not None and strategy.in_step:
            raise ValueError(f"{SECTION[stage]}.{PARTITIONED_WEIGHTS}")


def check_device(settings: Settings, *, on_gpu: bool | None) -> None:
    """Check that the workers' devices support the options of a step.

    Args:
        on_gpu: whether workers have GPUs; None: unknown before the cluster is started.

    Raises:
        ValueError: an unsupported option, with its key.
    """
    step = settings.step
    if on_gpu is False and step.batch_norm == "synchronised":
        raise ValueError("step.batch_norm=synchronised needs GPUs; use step.batch_norm=averaged on CPUs")
    if step.cuda_graph and on_gpu is False:
        raise ValueError(NO_CUDA_GRAPH)
    if settings.data.decoders == "gpu" and on_gpu is False:
        raise ValueError("data.decoders=gpu needs GPUs; use data.decoders=auto on CPUs")


def _check_shards(settings: Settings) -> Split:
    """Check that all splits of both domains are complete, have the same classes, and have the labels that they need.

    Return the first training split.
    """
    domains = [domain for domain in (settings.target, settings.source) if domain.url is not None]
    first = open_split(domains[0], "train", seed=settings.run.seed)
    for domain in domains:
        for name in ("train", "val", "test"):
            split = open_split(domain, name, seed=settings.run.seed)
            check_same_classes(split, first)
            split.check_shards()
            if name == "train":
                _log_small_images(split, settings.data.resize_px)
                if settings.data.grey_range is None:
                    _log_grey_ranges(first, split)
    _check_labels(settings)
    return first


def _log_small_images(split: Split, resize_px: int) -> None:
    """Log that images were packed with a smaller side than that to which the run resizes them."""
    if split.max_side is not None and split.max_side < resize_px:
        _log.warning(
            "%s was packed with --max-side %d, and data.resize_px=%d enlarges its images again; pack them larger, or "
            "lower data.resize_px and data.crop_px",
            *(split.url, split.max_side, resize_px),
        )


def _log_grey_ranges(first: Split, second: Split) -> None:
    """Log the grey ranges if those of both domains differ, as with instruments of different bit depth."""
    if first.grey_range and second.grey_range and first.grey_range != second.grey_range:
        _log.info(
            "images of more than 8 bits have one grey range per domain: %g to %g in %s, %g to %g in %s; "
            "data.grey_range sets one range for both",
            *(*first.grey_range, first.url, *second.grey_range, second.url),
        )


def _check_labels(settings: Settings) -> None:
    """Check that there are labels for the criterion of each stage, and labels to learn from."""
    stages, target = stages_to_run(settings), settings.target
    if "source" in stages and not _has_any_label(settings.source, "val"):
        raise ValueError(
            f"source.url={settings.source.url} has a 'val' split without a single label, and labels are needed to "
            "choose the best epoch by; only images of the target may be unlabelled: pack or index that split again, "
            "with labels"
        )
    for stage in stages:
        if stage == "source":
            continue
        key = (
            "run.select_by"
            if stage_config(stage, settings).select_by is None
            else f"{SECTION[stage]}.select_by"
        )
        by = criterion(stage, settings)
        if by not in LABEL_FREE and not _has_any_label(target, "val"):
            raise ValueError(
                f"{key}={by} needs labels, and target.url={target.url} has a 'val' split without a single label; set "
                f"{key}=auto, or pack or index that split again, with labels"
            )
        if by in ("source_accuracy", "confidence") and not _has_any_label(settings.source, "val"):
            raise ValueError(
                f"{key}={by} needs labels of the source, and source.url={settings.source.url} has a 'val' split "
                f"without a single label; set {key}=auto, or pack or index that split again, with labels"
            )
    fraction = source_fraction(settings)
    if settings.adapt.method == "cdan" and (has_labels(target, "train") or not fraction):
        raise ValueError(
            "adapt.method=cdan takes labelled images for the source and unlabelled ones for the target: set "
            "target.labels_per_class=0, source.url, and data.source_fraction above 0 or null"
        )
    if has_labels(target, "train") or fraction > 0:
        return
    method = settings.method
    needs = {
        "adapt": settings.adapt.method == "fine_tune",
        "distill": not method.needs_teacher and method.preset != "adabn",
    }
    for stage in (stage for stage in stages if needs.get(stage)):
        without_teacher = f"method.preset={settings.method.preset}, without a teacher,"
        key = "adapt.method=fine_tune" if stage == "adapt" else without_teacher
        raise ValueError(
            f"{key} learns from labels only, and target.url={target.url} has no training label that is used; use "
            "another method, or add labelled source images by source.url and data.source_fraction=0.5"
        )


def _has_any_label(domain: StreamConfig, split: str) -> bool:
    return domain.url is not None and any(
        read_manifest(split_pattern(domain.url)[0]).class_counts.get(split, ())
    )


def _check_batches(settings: Settings) -> None:
    """Check that every stage has enough images for a global batch, and a batch enough images for all workers."""
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
