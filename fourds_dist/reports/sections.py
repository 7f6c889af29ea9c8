"""Sections of one run's report, made from the run's events, summary and analysis."""

from __future__ import annotations

import shlex
import time

from fourds_dist.config.stage_names import STAGE_TITLES
from fourds_dist.inference.metrics import wilson
from fourds_dist.reports import charts
from fourds_dist.reports.analysis import STUDENT, PredictionAnalysis
from fourds_dist.reports.analysis_sections import AnalysisSections
from fourds_dist.reports.charts import Chart
from fourds_dist.reports.page import ReportSection, ReportTable
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import EpochEnded, StageStarted, StepLogged
from fourds_dist.runs.layout import RunFile, display_name
from fourds_dist.runs.summary import CHOSEN_BY
from fourds_dist.stages.finished_run import Run, curve, names_in

STUDENT_RATIO = "student_ratio"
"""Name of the ratio in FourDs.log_values."""


class RunSections:
    """Sections of one run.

    Args:
        prefix: prefix of the names of sections and PNG files, unique per run of a page.
        missing: why there is no analysis.
    """

    def __init__(
        self, run: Run, analysis: PredictionAnalysis | None, *, prefix: str = "", missing: str = ""
    ) -> None:
        self.run, self._prefix = run, prefix
        self._analysis = AnalysisSections(run, analysis, prefix=prefix, missing=missing)

    def all(self) -> list[ReportSection]:
        """Return the sections in reading order, without empty ones."""
        sections = (
            self.result(),
            self._analysis.classes(),
            self._analysis.mistakes(),
            self.learning(),
            self._analysis.adapters(),
            self.speed(),
            self.events(),
            self.repeating(),
        )
        return [section for section in sections if section is not None]

    def result(self) -> ReportSection | None:
        """Return the results of all networks as table and chart."""
        summary = self.run.summary
        if summary is None:
            return ReportSection(
                self._name("result"), "Results", ["The run is not done and has no result yet."]
            )
        num = summary.lines[0].target.num_samples
        rows = [
            (
                line.network,
                f"{line.num_parameters / 1e6:.2f} M",
                _percent(line.source),
                _percent(line.target),
                _mean(line.target),
                f"{line.target.images_per_s:.0f}",
            )
            for line in summary.lines
        ]
        student_rows = [i for i, line in enumerate(summary.lines) if line.network == STUDENT]
        columns = (
            "network",
            "parameters",
            "source accuracy",
            "target accuracy",
            "mean per-class accuracy",
            "images/s",
        )
        table = ReportTable(
            columns, rows, frozenset({1, 2, 3, 4, 5}), student_rows[0] if student_rows else None
        )
        levels = {
            line.network: (line.target.value, wilson(line.target.num_correct, max(1, num)))
            for line in summary.lines
        }
        drawn = charts.intervals(
            self._name("accuracy"), "Target test accuracy", levels, reference=("chance", summary.chance)
        )
        words = [
            f"Test split of the target: {num} images. Bands are 95 % confidence intervals. The student has the weights "
            f"of epoch {summary.selected_epoch}, selected on the validation split by {CHOSEN_BY[summary.selected_by]} "
            f"and loss (validation accuracy {summary.validation_accuracy:.1%}). images/s: inference on one worker."
        ]
        return ReportSection(self._name("result"), "Results", words, [table], [drawn])

    def learning(self) -> ReportSection | None:
        """Return the losses, accuracies and learning rates of all stages."""
        drawn: list[Chart] = []
        for stage in self.run.stages():
            title = STAGE_TITLES[stage].capitalize()
            steps, epochs = self.run.steps(stage), self.run.epochs(stage)
            networks = names_in(epoch.validation for epoch in epochs)
            losses = {"loss": curve(steps, lambda step: step.loss)} | {
                name.replace("_", " "): curve(steps, lambda step, name=name: step.losses.get(name))
                for name in names_in(step.losses for step in steps)
            }
            values = {
                display_name(name): curve(epochs, lambda epoch, name=name: _accuracy_of(epoch, name))
                for name in networks
            }
            validation_losses = {
                display_name(name): curve(epochs, lambda epoch, name=name: _loss_of(epoch, name))
                for name in networks
            }
            validation_losses = {name: points for name, points in validation_losses.items() if points[0]}
            rates = {
                display_name(name): curve(steps, lambda step, name=name: step.learning_rates.get(name))
                for name in names_in(step.learning_rates for step in steps)
            }
            if steps:
                name = self._name(f"{stage}-losses")
                drawn.append(charts.lines(name, f"{title}: training losses", losses, log=True))
            if values:
                name = self._name(f"{stage}-accuracy")
                drawn.append(charts.lines(name, f"{title}: validation accuracy", values, percent=True))
            if validation_losses:
                name = self._name(f"{stage}-validation-losses")
                is_curve = any(len(xs) > 1 for xs, _ in validation_losses.values())
                drawn.append(charts.lines(name, f"{title}: validation loss", validation_losses, log=is_curve))
            if rates:
                name = self._name(f"{stage}-rates")
                drawn.append(charts.lines(name, f"{title}: learning rates", rates, log=len(rates) > 1))
        words = [
            "Each point is the mean over the steps since the previous point. The loss terms are unweighted; `loss` is "
            "their weighted sum."
        ]
        steps = self.run.steps("distill")
        if any(STUDENT_RATIO in step.method_values for step in steps):
            ratio = {"student ratio": curve(steps, lambda step: step.method_values.get(STUDENT_RATIO))}
            title = "Warm-up of an untrained student"
            drawn.append(charts.lines(self._name("student_ratio"), title, ratio, percent=True, least=0))
            words.append(
                "The student was untrained at the start of distillation. The ratio r follows its validation accuracy "
                "relative to the teacher's. The adapters' distillation loss is multiplied by r, and the sample weights "
                "w of the student's distillation loss become (1 - r) + r w."
            )
        return (
            ReportSection(self._name("learning"), "Training curves", words, charts=drawn) if drawn else None
        )

    def speed(self) -> ReportSection | None:
        """Return the throughput and the data wait of all stages."""
        drawn: list[Chart] = []
        steps = {STAGE_TITLES[stage]: self.run.steps(stage) for stage in self.run.stages()}
        rates = {title: curve(logged, lambda step: step.images_per_s) for title, logged in steps.items()}
        waits = {title: curve(logged, lambda step: step.shares.data_wait) for title, logged in steps.items()}
        rates, waits = ({k: v for k, v in d.items() if v[0]} for d in (rates, waits))
        if not rates:
            return None
        drawn.append(charts.lines(self._name("throughput"), "Training throughput (images/s)", rates, least=0))
        title = "Data wait (share of training time)"
        drawn.append(charts.lines(self._name("wait"), title, waits, percent=True, least=0))
        words = ["Throughput of all workers together, including data loading, without evaluation."]
        longest = max(max(values) for _, values in waits.values()) if waits else 0
        if longest > 0.2:
            words.append(
                f"Up to {longest:.0%} of the time was spent waiting for data. More data.threads or "
                "launch.cpus_per_worker, data.cache_dir, or smaller images reduce the wait."
            )
        return ReportSection(self._name("speed"), "Throughput", words, charts=drawn)

    def events(self) -> ReportSection:
        """Return the restarts, retries and other problems of the run."""
        rows = [
            (
                time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.time)),
                STAGE_TITLES[event.stage],
                str(event.step),
                f"resumed from step {event.step}: {event.text}"
                if isinstance(event, StageStarted)
                else event.text,
            )
            for event in self.run.notes()
        ]
        num_bad = max(
            (event.num_bad_samples for event in self.run.events if isinstance(event, StepLogged)), default=0
        )
        words = [] if rows else ["No restarts, retries or other problems were logged."]
        if num_bad:
            words.append(f"{num_bad} broken images were replaced by neighbouring images; the log lists them.")
        tables = [ReportTable(("time (UTC)", "stage", "step", "event"), rows, frozenset({2}))] if rows else []
        return ReportSection(self._name("events"), "Events", words, tables)

    def repeating(self) -> ReportSection:
        """Return the commands to repeat the run and to use its student, and the configuration."""
        config, url = (shlex.quote(p) for p in (self.run.folder.path(RunFile.CONFIG), self.run.url))
        name = f"run.name={self.run.name}-again"
        command = f"python -m fourds_dist.train {config} {name}"
        use = (
            f"python -m fourds_dist.evaluate {url}\npython -m fourds_dist.predict {url} IMAGE...\n"
            f"python -m fourds_dist.export {url} DEST"
        )
        code = [
            ("Repeat the run", command),
            ("Use the student", use),
            ("Configuration", self.run.config_text),
        ]
        return ReportSection(self._name("repeat"), "Reproduction", code=code)

    def _name(self, name: str) -> str:
        return self._prefix + name


def _percent(accuracy: Accuracy | None) -> str:
    return "-" if accuracy is None else f"{accuracy.value:.1%}"


def _mean(accuracy: Accuracy) -> str:
    return "-" if accuracy.mean_per_class is None else f"{accuracy.mean_per_class:.1%}"


def _accuracy_of(epoch: EpochEnded, network: str) -> float | None:
    return epoch.validation[network].accuracy if network in epoch.validation else None


def _loss_of(epoch: EpochEnded, network: str) -> float | None:
    return epoch.validation[network].loss if network in epoch.validation else None
