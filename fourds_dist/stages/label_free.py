"""Evaluation of networks on a split of the target without its labels: criteria and estimates of the accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Protocol

from fourds_dist.data import Split, StreamConfig
from fourds_dist.method.output import Predictor
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.estimate import Estimate
from fourds_dist.stages.settings import Settings
from fourds_dist.stages.target_labels import has_labels
from fourds_dist.training.criteria import PredictionStatistics, StatisticsCollector, estimated_accuracy
from fourds_dist.training.distributed.world import World
from fourds_dist.training.evaluate import ImagesOfBatch


class Evaluator(Protocol):
    """Evaluation of the splits of a run over all workers, as `StageRunner` does."""

    settings: Settings
    world: World

    def split(self, domain: StreamConfig, split: Literal["train", "val", "test"]) -> Split: ...

    def evaluate(
        self,
        predictors: Mapping[str, Predictor],
        domain: StreamConfig,
        split: Literal["val", "test"],
        step: ImagesOfBatch,
        *,
        in_step_px: int | None = None,
        collector: StatisticsCollector | None = None,
    ) -> dict[str, Accuracy]: ...


def evaluate_label_free(
    stage: Evaluator,
    predictors: Mapping[str, Predictor],
    split: Literal["val", "test"],
    step: ImagesOfBatch,
    *,
    reference: str,
    in_step_px: int | None = None,
) -> tuple[dict[str, Accuracy], dict[str, Estimate]]:
    """Return the accuracies on a split of the target, with all label-free criteria, and estimates of the accuracies.

    The networks are calibrated on the validation split of the source; without source.url or labels there, estimates,
    `source_accuracy` and `confidence` are left out. This is a collective call; all ranks return the same.

    Args:
        reference: one of `predictors`, with which the others are compared for `agreement`.
    """
    settings, world = stage.settings, stage.world

    def collector(images: Split, of: str | None) -> StatisticsCollector:
        return StatisticsCollector(list(predictors), len(images.classes), reference=of)

    on_target = collector(stage.split(settings.target, split), reference)
    accuracies = stage.evaluate(
        predictors, settings.target, split, step, in_step_px=in_step_px, collector=on_target
    )
    target, source = on_target.collected(world), None
    of_source: dict[str, Accuracy] = {}
    if has_labels(settings.source, "val"):
        on_source = collector(stage.split(settings.source, "val"), None)
        of_source = stage.evaluate(
            predictors, settings.source, "val", step, in_step_px=in_step_px, collector=on_source
        )
        source = on_source.collected(world)
    estimates = {} if target is None or source is None else _estimates(source, target)
    criteria = {} if target is None else {name: of.criteria() for name, of in target.items()}
    # Rank 0 computes both: other devices could round differently, and all ranks need the same best epoch.
    criteria, estimates = world.gather((criteria, estimates))[0]
    for name, accuracy in of_source.items():
        if accuracy.value is not None:
            criteria[name]["source_accuracy"] = accuracy.value
    for name, estimate in estimates.items():
        criteria[name]["confidence"] = estimate.value
    return {name: replace(of, criteria=criteria[name]) for name, of in accuracies.items()}, estimates


def _estimates(
    source: Mapping[str, PredictionStatistics], target: Mapping[str, PredictionStatistics]
) -> dict[str, Estimate]:
    found = {name: estimated_accuracy(source[name].drawn, of.drawn) for name, of in target.items()}
    return {name: estimate for name, estimate in found.items() if estimate is not None}
