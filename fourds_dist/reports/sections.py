"""Sections of one run's report that are made from the run's events and summary, and the line charts of all pages."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fourds_dist.config.stage_names import STAGE_TITLES
from fourds_dist.inference.metrics import wilson
from fourds_dist.reports import charts
from fourds_dist.reports.charts import Chart
from fourds_dist.reports.page import ReportSection, ReportTable
from fourds_dist.runs.accuracy import LABEL_FREE, MEASURE_NAMES, NOT_SHARES, Accuracy, measure_text, percent
from fourds_dist.runs.events import EpochEnded, StageStarted, StepLogged
from fourds_dist.runs.layout import RunFile, display_name
from fourds_dist.runs.summary import RunSummary
from fourds_dist.stages.finished_run import Curve, Logged, Run, curve, names_in

STUDENT_RATIO = "student_ratio"
"""Name of the ratio in FourDs.log_values."""


WantedChart = tuple[str, str, Mapping[str, Curve], dict[str, Any]]
"""(name, title, curves, options of `charts.lines`)"""


def line_charts(wanted: Sequence[WantedChart]) -> list[Chart]:
    """Draw charts, without curves that have no points and without charts that have no curves."""
    drawn: list[Chart] = []
    for name, title, by_name, options in wanted:
        shown = {label: points for label, points in by_name.items() if points[0]}
        if shown:
            drawn.append(charts.lines(name, title, shown, **options))
    return drawn


def curves(
    events: Sequence[Logged], values_of: Callable[[Logged], Mapping[str, float | None]]
) -> dict[str, Curve]:
    """Return the curve of each value in the events, by its displayed name."""
    return {
        display_name(name): curve(events, lambda event, name=name: values_of(event).get(name))
        for name in names_in(values_of(event) for event in events)
    }


def accuracies(epochs: Sequence[EpochEnded]) -> dict[str, Curve]:
    """Return the curve of each network's validation accuracy, by its displayed name."""
    return curves(epochs, lambda epoch: {k: v.accuracy for k, v in epoch.validation.items()})


def results(run: Run) -> ReportSection:
    """Return the results of all networks as table and chart."""
    summary = run.summary
    if summary is None:
        return ReportSection("result", "Results", ["The run is not done and has no result yet."])
    rows = [
        (
            line.network,
            f"{line.num_parameters / 1e6:.2f} M",
            percent(line.source.value if line.source else None),
            percent(line.target.value),
            interval(line.target),
            *([str(line.estimate or "-")] if summary.estimate else []),
            percent(line.target.mean_per_class),
            percent(line.target.macro_f1),
            f"{line.target.images_per_s:.0f}",
        )
        for line in summary.lines
    ]
    estimated = ("estimated target accuracy",) if summary.estimate else ()
    measured = (
        "source accuracy",
        "target accuracy",
        "95 % interval",
        *estimated,
        "balanced accuracy",
        "macro F1",
    )
    columns = ("network", "parameters", *measured, "images/s")
    networks = [line.network for line in summary.lines]
    strong = networks.index(summary.student.network) if summary.student else None
    selected = MEASURE_NAMES[summary.selected_by]
    loss = "" if summary.selected_by in LABEL_FREE else " and loss"
    value = measure_text(summary.selected_by, summary.validation_accuracy)
    tested = summary.lines[0].target
    labelled = (
        "" if tested.num_samples == tested.num_evaluated else f", {tested.num_samples} of them with a label"
    )
    words = [
        f"Test split of the target: {tested.num_evaluated} images{labelled}; chance {summary.chance:.1%}. "
        f"{_student(summary)} has the weights of epoch {summary.selected_epoch}, selected on the validation split by "
        f"{selected}{loss} (validation {selected} {value}). images/s: inference on one worker."
    ]
    if summary.estimate:
        words.append(
            f"Estimated target accuracy: {summary.estimate.basis}; no target label is used. The interval has the "
            "errors of both samples and the difference of two estimators (average thresholded confidence, which is the "
            "estimate, and difference of confidences); an error that the change of domains causes in both is not in it."
        )
    return ReportSection(
        "result", "Results", words, [ReportTable(columns, rows, range(1, len(columns)), strong)]
    )


def _student(summary: RunSummary) -> str:
    return f"The best student, {summary.best_student}," if summary.best_student else "The student"


def interval(accuracy: Accuracy) -> str:
    """Return the 95 % confidence interval of an accuracy; "-" without labels."""
    if not accuracy.num_samples:
        return "-"
    low, high = wilson(accuracy.num_correct, accuracy.num_samples)
    return f"{low:.1%} to {high:.1%}"


def learning(run: Run) -> ReportSection | None:
    """Return the losses, accuracies and learning rates of all stages."""
    wanted: list[WantedChart] = []
    for stage in run.stages():
        steps, epochs, title = run.steps(stage), run.epochs(stage), STAGE_TITLES[stage].capitalize()
        validation_losses = curves(epochs, lambda epoch: {k: v.loss for k, v in epoch.validation.items()})
        rates = curves(steps, lambda step: step.learning_rates)
        wanted += [
            *_losses(stage, title, steps),
            (f"{stage}-accuracy", f"{title}: validation accuracy", accuracies(epochs), {"percent": True}),
            *_criteria(stage, title, epochs),
            (f"{stage}-validation-losses", f"{title}: validation loss", validation_losses, {"log": True}),
            (f"{stage}-rates", f"{title}: learning rates", rates, {"log": len(rates) > 1}),
        ]
    words = [
        "Each point is the mean over the steps since the previous point. The loss terms are unweighted; `loss` is "
        "their weighted sum."
    ]
    steps = run.steps("distill")
    ratio = {
        name: points for name, points in curves(steps, lambda step: step.method_values).items()
        if name.startswith("student ratio")
    }  # fmt: skip
    if ratio:
        title = "Warm-up of an untrained student"
        wanted.append((STUDENT_RATIO, title, ratio, {"percent": True, "least": 0}))
        words.append(
            "The student was untrained at the start of distillation. The ratio r follows its validation accuracy "
            "relative to the teacher's. The adapters' distillation loss is multiplied by r, and the sample weights "
            "w of the student's distillation loss become (1 - r) + r w."
        )
    drawn = line_charts(wanted)
    return ReportSection("learning", "Training curves", words, charts=drawn) if drawn else None


def _losses(stage: str, title: str, steps: Sequence[StepLogged]) -> list[WantedChart]:
    """Return a chart of the losses of a stage, and one for each of several students."""
    by_student: dict[str, dict[str, Curve]] = {"": {"loss": curve(steps, lambda step: step.loss)}}
    for name in names_in(step.losses for step in steps):
        term, _, student = name.partition("/")
        points = curve(steps, lambda step, name=name: step.losses.get(name))
        by_student.setdefault(student, {})[display_name(term)] = points
    return [
        (
            f"{stage}-losses-{student}" if student else f"{stage}-losses",
            f"{title}: training losses" + (f" of student {student}" if student else ""),
            found,
            {"log": True},
        )
        for student, found in by_student.items()
    ]


def _criteria(stage: str, title: str, epochs: Sequence[EpochEnded]) -> list[WantedChart]:
    """Return a chart of each label-free criterion of a stage."""
    names = names_in(v.criteria for epoch in epochs for v in epoch.validation.values())
    return [
        (
            f"{stage}-{by}",
            f"{title}: {MEASURE_NAMES.get(by, by)}, without labels",  # pyright: ignore[reportArgumentType, reportCallIssue]
            curves(epochs, lambda e, by=by: {k: v.criteria.get(by) for k, v in e.validation.items()}),
            {"percent": by in LABEL_FREE and by not in NOT_SHARES},
        )
        for by in names
    ]


def speed(run: Run) -> ReportSection | None:
    """Return the throughput and the data wait of all stages."""
    steps = {STAGE_TITLES[stage]: run.steps(stage) for stage in run.stages()}
    rates = {title: curve(logged, lambda step: step.images_per_s) for title, logged in steps.items()}
    waits = {title: curve(logged, lambda step: step.shares.data_wait) for title, logged in steps.items()}
    title = "Data wait (share of training time)"
    drawn = line_charts(
        [
            ("throughput", "Training throughput (images/s)", rates, {"least": 0}),
            ("wait", title, waits, {"percent": True, "least": 0}),
        ]
    )
    words = ["Throughput of all workers together, including data loading, without evaluation."]
    longest = max((share for _, shares in waits.values() for share in shares), default=0)
    if longest > 0.2:
        words.append(
            f"Up to {longest:.0%} of the time was spent waiting for data. More data.threads or "
            "launch.cpus_per_worker, data.cache_dir with data.cache_decoded_gib, or smaller images reduce the wait."
        )
    return ReportSection("speed", "Throughput", words, charts=drawn) if drawn else None


def events(run: Run) -> ReportSection:
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
        for event in run.notes()
    ]
    num_bad = max((event.num_bad_samples for event in run.events if isinstance(event, StepLogged)), default=0)
    words = [] if rows else ["No restarts, retries or other problems were logged."]
    if num_bad:
        words.append(f"{num_bad} broken images were replaced by neighbouring images; the log lists them.")
    tables = [ReportTable(("time (UTC)", "stage", "step", "event"), rows, {2})] if rows else []
    return ReportSection("events", "Events", words, tables)


def repeating(run: Run) -> ReportSection:
    """Return the commands to repeat the run and to use its student, and the configuration."""
    config, url = shlex.quote(run.folder.path(RunFile.CONFIG)), shlex.quote(run.url)
    named = " --student NAME" if run.settings.students else ""
    use = (
        f"python -m fourds_dist.evaluate {url}{named}\npython -m fourds_dist.predict {url} IMAGE...{named}\n"
        f"python -m fourds_dist.export {url} DEST{named}"
    )
    code = [
        ("Repeat the run", f"python -m fourds_dist.train {config} run.name={run.name}-again"),
        ("Use the student", use),
        ("Configuration", run.config_text),
    ]
    return ReportSection("repeat", "Reproduction", code=code)
