"""Results of finished cells: accuracies and costs, read from their folders, and differences of methods."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from fourds_dist.config.stage_names import STAGES, StageName
from fourds_dist.experiments.compare.early_stopping import EarlyStop
from fourds_dist.experiments.compare.plan import Cell, ComparisonPlan
from fourds_dist.experiments.compare.statistics import Mean, mean_of, mean_over
from fourds_dist.runs.events import Event, StageEnded, StageStarted, StepLogged
from fourds_dist.runs.layout import RunFile
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.finished_run import Run
from fourds_dist.stages.settings import Settings, stage_config


@dataclass(frozen=True)
class Result:
    """A finished cell."""

    accuracy: float | None
    """Accuracy of the student on the test split of the target; the validation split chose its weights. None without
    labels."""
    validation_accuracy: float | None
    """Validation result of the epoch whose weights the student has, by run.select_by."""
    train_s: float
    """Seconds of training after the source stage times the number of workers, without evaluation."""
    source_s: float
    """The same for the source stage, which cells share; 0 where its run was removed."""
    images_per_s: float
    """Images per second of distillation, of all workers together."""
    peak_memory_bytes: int | None
    """Peak memory of the device that held most; None on CPUs."""
    device: str
    balanced_accuracy: float | None = None
    """Balanced accuracy of the student on the test split of the target."""
    macro_f1: float | None = None
    """Macro F1 of the student there."""
    estimate: float | None = None
    """Estimated accuracy of the student there, which uses no target label; None: not computed."""
    before: float | None = None
    """Accuracy there of the student before distillation; None without labels."""


@dataclass(frozen=True)
class Results:
    """All finished cells of a comparison.

    Args:
        stopped: cells that were stopped early, which are in no mean and in no difference.
    """

    plan: ComparisonPlan
    cells: dict[Cell, Result]
    stopped: dict[Cell, EarlyStop] = field(default_factory=dict)

    def accuracies(self, regime: str, method: str) -> dict[Cell, float]:
        """Accuracies of one method in one regime, of the cells whose target has test labels."""
        return {
            cell: result.accuracy
            for cell, result in self.cells.items()
            if (cell.regime, cell.method) == (regime, method) and result.accuracy is not None
        }

    def of_pair(self, regime: str, method: str, pair: str) -> Mean | None:
        """Accuracy of a method on one pair of domains, over seeds."""
        found = [value for cell, value in self.accuracies(regime, method).items() if cell.pair == pair]
        return mean_of(found) if found else None

    def over_pairs(self, regime: str, method: str) -> Mean | None:
        """Mean accuracy of a method over pairs, with the interval over seeds whose pairs are all done."""
        by_seed: dict[int, list[float]] = {}
        for cell, value in self.accuracies(regime, method).items():
            by_seed.setdefault(cell.seed, []).append(value)
        whole = [values for values in by_seed.values() if len(values) == len(self.plan.config.all_pairs)]
        return mean_of([statistics.fmean(values) for values in whole]) if whole else None

    def differences(self, regime: str, method: str, baseline: str) -> dict[Cell, float]:
        """Method minus baseline, for every cell where both are done."""
        other = self.accuracies(regime, baseline)
        return {
            cell: value - other[cell._replace(method=baseline)]
            for cell, value in self.accuracies(regime, method).items()
            if cell._replace(method=baseline) in other
        }

    def difference_by_pair(self, regime: str, method: str, baseline: str) -> dict[str, Mean]:
        """Method minus baseline on every pair, over seeds."""
        return {pair: mean_of(found) for pair, found in self._by_pair(regime, method, baseline).items()}

    def difference(self, regime: str, method: str, baseline: str) -> Mean | None:
        """Method minus baseline over all pairs; None without a common cell."""
        by_pair = self._by_pair(regime, method, baseline)
        return mean_over(list(by_pair.values())) if by_pair else None

    def _by_pair(self, regime: str, method: str, baseline: str) -> dict[str, list[float]]:
        by_pair: dict[str, list[float]] = {}
        for cell, value in self.differences(regime, method, baseline).items():
            by_pair.setdefault(cell.pair, []).append(value)
        return by_pair

    def time_ratio(self, regime: str, method: str, baseline: str) -> float | None:
        """Device-seconds of training after the source stage, method over baseline, in the cells where both are done."""
        mine = other = 0.0
        for cell in self.differences(regime, method, baseline):
            mine += self.cells[cell].train_s
            other += self.cells[cell._replace(method=baseline)].train_s
        return mine / other if mine and other else None

    def mean_train_s(self, regime: str, method: str) -> float | None:
        """Mean device-seconds of training of a cell, after the source stage."""
        found = [r.train_s for c, r in self.cells.items() if (c.regime, c.method) == (regime, method)]
        return statistics.fmean(found) if found else None

    @property
    def kind_of_device(self) -> str:
        """The kind of device whose time was measured."""
        return "CPU" if self.devices in ("CPU", "none") else "device"

    @property
    def devices(self) -> str:
        """Names of all devices that trained."""
        return ", ".join(sorted({result.device for result in self.cells.values()})) or "none"

    @property
    def pairs(self) -> list[str]:
        """All pairs as text, done or not."""
        return list(dict.fromkeys(cell.pair for cell in self.plan.runs))


def read_results(plan: ComparisonPlan) -> Results:
    """Read every cell that is done or was stopped early."""
    sources: dict[str, float] = {}
    cells: dict[Cell, Result] = {}
    stopped: dict[Cell, EarlyStop] = {}
    for cell, settings in plan.runs.items():
        if not RunFolder(settings.run_url).exists(RunFile.SUMMARY):
            if (stop := plan.stop_of(cell)) is not None:
                stopped[cell] = stop
            continue
        source = plan.sources.get(cell)
        if source is not None and source.run_url not in sources:
            is_there = RunFolder(source.run_url).exists(RunFile.CONFIG)
            events = Run(source.run_url).events if is_there else []
            sources[source.run_url] = device_seconds(events, source, ["source"])
        cells[cell] = _result(settings, sources[source.run_url] if source else 0.0)
    return Results(plan, cells, stopped)


def _result(settings: Settings, source_s: float) -> Result:
    run = Run(settings.run_url)
    summary = run.summary
    assert summary is not None
    student, before = summary.student, summary.before
    assert student is not None
    peaks = [event.peak_memory_bytes for event in run.events if isinstance(event, StageEnded)]
    device = next((e.device for e in run.events if isinstance(e, StageStarted)), "unknown device")
    return Result(
        accuracy=student.target.value,
        validation_accuracy=summary.validation_accuracy,
        train_s=device_seconds(run.events, settings, [stage for stage in STAGES if stage != "source"]),
        source_s=source_s,
        images_per_s=summary.train_images_per_s,
        peak_memory_bytes=max(filter(None, peaks), default=None),
        device=device,
        balanced_accuracy=student.target.mean_per_class,
        macro_f1=student.target.macro_f1,
        estimate=student.estimate.value if student.estimate else None,
        before=before.target.value if before else None,
    )


def device_seconds(events: Iterable[Event], settings: Settings, stages: Iterable[StageName]) -> float:
    """Seconds of training in some stages times workers, from measurements between logging steps.

    A step that was repeated after a kill counts once.
    """
    seconds, wanted = 0.0, set(stages)
    step, num_workers = 0, 1
    batch_sizes: dict[str, int] = {stage: stage_config(stage, settings).global_batch_size for stage in wanted}
    for event in events:
        if event.stage not in wanted:
            continue
        if isinstance(event, StageStarted):
            step, num_workers = event.step, event.num_workers
        elif isinstance(event, StepLogged):
            images = (event.step - step) * batch_sizes[event.stage]
            seconds += num_workers * images / event.images_per_s
            step = event.step
    return seconds
