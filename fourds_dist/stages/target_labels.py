"""What follows from the labels that a run may use: the criterion of each stage, the share of source images, the method.

These are the values of `select_by: auto`, `data.source_fraction: null` and keys of `method` that are null, which depend
on the manifests of the data.
"""

from __future__ import annotations

from typing import Literal

from fourds_dist.config.stage_names import StageName
from fourds_dist.data import StreamConfig
from fourds_dist.data.format.manifest import read_manifest
from fourds_dist.io.url import split_pattern
from fourds_dist.method.config import MethodConfig
from fourds_dist.method.presets import WITH_TARGET_LABELS
from fourds_dist.runs.accuracy import LABEL_FREE, LabelFree, Measure
from fourds_dist.stages.settings import Settings, stage_config

BEST_LABEL_FREE: LabelFree = "bnm"
"""Criterion of `auto` without labels; EXPERIMENTS.md of `method` has the comparison."""
WITHOUT_LABELS = 0.5
"""Share of source images in every batch where the target has no labels."""


def has_labels(domain: StreamConfig, split: Literal["train", "val", "test"]) -> bool:
    """Return whether a run may use labels of a split; False without a URL.

    Validation labels of a single class are not enough, as every network that predicts this class would be perfect.

    Raises:
        ValueError: the data set has no manifest.
    """
    is_hidden = {
        "train": domain.labels_per_class == 0,
        "val": domain.validation_labels == "ignore",
        "test": False,
    }
    if domain.url is None or is_hidden[split]:
        return False
    counts = read_manifest(split_pattern(domain.url)[0]).class_counts.get(split, ())
    return sum(map(bool, counts)) >= (min(2, len(counts)) if split == "val" else 1)


def criterion(name: StageName, settings: Settings) -> Measure:
    """Return the measure that selects the best epoch of a stage.

    The source stage has labels: a label-free run.select_by applies to the other stages.
    """
    by = stage_config(name, settings).select_by or settings.run.select_by
    if name == "source":
        return "accuracy" if by == "auto" or by in LABEL_FREE else by
    if by != "auto":
        return by
    return "accuracy" if has_labels(settings.target, "val") else BEST_LABEL_FREE


def computes_criteria(name: StageName, settings: Settings) -> bool:
    """Return whether a stage computes the label-free criteria at every evaluation."""
    if name == "source":
        return False
    is_asked = settings.run.criteria == "all" or criterion(name, settings) in LABEL_FREE
    return is_asked or not has_labels(settings.target, "val")


def source_fraction(settings: Settings) -> float:
    """Return the share of source images in the batches of the target's stages."""
    if settings.data.source_fraction is not None:
        return settings.data.source_fraction
    if settings.source.url is None or settings.target.url is None or has_labels(settings.target, "train"):
        return 0.0
    return WITHOUT_LABELS


def method_of(settings: Settings) -> MethodConfig:
    """Return the method, with the values that null stands for."""
    has_target = settings.target.url is not None
    return settings.method.for_target(has_labels=not has_target or has_labels(settings.target, "train"))


def label_free_method(given: MethodConfig, used: MethodConfig) -> str | None:
    """Return a line for the log about the values of null that differ from those with labels; None: there are none.

    Args:
        used: the method with the values that null stands for (`method_of`).
    """
    values = {key: getattr(used, key) for key in WITH_TARGET_LABELS if getattr(given, key) is None}
    changed = {key: value for key, value in values.items() if value != WITH_TARGET_LABELS[key]}
    if not changed:
        return None
    words = ", ".join(f"method.{key}={_word(value)}" for key, value in changed.items())
    return f"no training label of the target is used, so {words}; give these keys for other values"


def _word(value: bool | float | str) -> str:
    return str(value).lower() if isinstance(value, bool | str) else f"{value:g}"
