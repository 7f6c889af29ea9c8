"""What trainings take, from the trainings so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fourds_dist.config.stage_names import STAGES, StageName
from fourds_dist.experiments.advise.lengths import Length
from fourds_dist.experiments.compare.results import device_seconds
from fourds_dist.runs.events import EpochEnded, Event, StageStarted
from fourds_dist.stages.settings import Settings

UNKNOWN = 1.25
"""Time of a stage that was not measured, as a multiple of the slowest measured stage."""


@dataclass(frozen=True)
class StageCost:
    """Seconds of a device for an image of a stage, and for the validation after an epoch."""

    per_image_s: float
    per_epoch_s: float


@dataclass
class Costs:
    """Costs by method and stage.

    Args:
        overhead_s: seconds of a run besides its stages.
    """

    overhead_s: float = 0.0
    _known: dict[tuple[str, StageName], StageCost] = field(default_factory=dict)

    def learn(self, method: str, events: Sequence[Event], settings: Settings) -> float:
        """Learn from the events of a run; returns the seconds of its stages with validation."""
        total = 0.0
        for stage in STAGES:
            of_stage = [event for event in events if event.stage == stage]
            started = [event for event in of_stage if isinstance(event, StageStarted)]
            epochs = [event for event in of_stage if isinstance(event, EpochEnded)]
            if not started or not epochs:
                continue
            first = started[0]
            images = epochs[-1].step * first.global_batch_size
            train_s = device_seconds(of_stage, settings, [stage]) / first.num_workers
            span_s = max(epochs[-1].time - started[-1].time, train_s)
            num_epochs = sum(event.step > started[-1].step for event in epochs)
            of_last_start_s = train_s * (epochs[-1].step - started[-1].step) / epochs[-1].step
            per_epoch_s = max(0.0, span_s - of_last_start_s) / max(1, num_epochs)
            self._known[method, stage] = StageCost(train_s / max(1, images), per_epoch_s)
            total += span_s
        return total

    def seconds(self, method: str, lengths: Mapping[StageName, Length]) -> float:
        """Return the predicted seconds of a run whose stages have these lengths."""
        return self.overhead_s + self.training_s(method, lengths)

    def training_s(self, method: str, lengths: Mapping[StageName, Length]) -> float:
        """Return the predicted seconds of stages, without the start of the run and its last evaluation."""
        total = 0.0
        for stage, length in lengths.items():
            cost = self._known.get((method, stage)) or self._slowest(stage)
            total += cost.per_image_s * length.shown + cost.per_epoch_s * length.epochs
        return total

    def _slowest(self, stage: StageName) -> StageCost:
        same = [cost for (_, known), cost in self._known.items() if known == stage]
        others = list(self._known.values())
        if same:
            return max(same, key=lambda cost: cost.per_image_s)
        if not others:
            return StageCost(0.0, 0.0)
        slowest = max(others, key=lambda cost: cost.per_image_s)
        return StageCost(UNKNOWN * slowest.per_image_s, slowest.per_epoch_s)
