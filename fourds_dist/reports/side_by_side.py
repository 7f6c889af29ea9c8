"""Report of several runs side by side: results, differing configuration keys, training curves, folded reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fourds_dist.config.loading import flatten
from fourds_dist.inference.metrics import wilson
from fourds_dist.reports import charts
from fourds_dist.reports.analysis import ADAPTED, STUDENT, TEACHER, PredictionAnalysis
from fourds_dist.reports.charts import Chart
from fourds_dist.reports.page import ReportPage, ReportSection, ReportTable
from fourds_dist.reports.sections import RunSections
from fourds_dist.runs.events import StepLogged
from fourds_dist.runs.layout import Network
from fourds_dist.stages.finished_run import Curve, Run, curve

AnalysisOrReason = tuple[PredictionAnalysis | None, str]
"""The analysis of a run, or None and why there is none."""
MOST_DETAILED = 6
"""Largest number of runs, best first, whose reports are folded into the page."""
MOST_CURVES = 6
"""Largest number of runs, best first, per chart."""


def comparison(runs: Sequence[Run], analyses: Sequence[AnalysisOrReason]) -> ReportPage:
    """Return the page of several runs, in descending order of the student's accuracy."""
    order = sorted(range(len(runs)), key=lambda i: -_accuracy(runs[i]))
    runs, analyses = [runs[i] for i in order], [analyses[i] for i in order]
    names = _names(runs)
    done = [run for run in runs if run.summary]
    sections = [
        _results(runs, names),
        _differences(runs, names),
        _curves(runs, names),
        _details(runs, names, analyses),
    ]
    return ReportPage(
        f"{len(runs)} runs side by side", _verdict(runs, names, done), [], [s for s in sections if s]
    )


def _verdict(runs: Sequence[Run], names: Sequence[str], done: Sequence[Run]) -> str:
    if not done:
        return "None of these runs is done yet."
    text = f"Best run: {names[0]}, with a student accuracy of {_accuracy(runs[0]):.1%} on the target's test split"
    if len(done) > 1:
        first, second = (_interval(run) for run in done[:2])
        overlap = "do not overlap" if first[0] > second[1] else "overlap"
        text += f"; second: {names[1]}, with {_accuracy(done[1]):.1%}; their 95 % intervals {overlap}"
    return text + f". {len(runs) - len(done)} runs are not done." if len(done) < len(runs) else text + "."


def _results(runs: Sequence[Run], names: Sequence[str]) -> ReportSection:
    rows, levels = [], {}
    for run, name in zip(runs, names, strict=True):
        if run.summary is None:
            rows.append((name, "not done", *[""] * 5))
            continue
        lines = {line.network: line.target for line in run.summary.lines}
        student = next(line for line in run.summary.lines if line.network == STUDENT)
        levels[name] = (student.target.value, _interval(run))
        others = [f"{lines[n].value:.1%}" if n in lines else "-" for n in (TEACHER, ADAPTED)]
        size, speed = f"{student.num_parameters / 1e6:.2f} M", f"{run.summary.train_images_per_s:.0f}"
        rows.append((name, f"{student.target.value:.1%}", *others, size, speed, str(run.summary.num_workers)))
    columns = (
        "run",
        "student",
        "teacher",
        "teacher with adapters",
        "student parameters",
        "training images/s",
        "workers",
    )
    drawn: list[Chart] = []
    if levels:
        chance = next(run.summary.chance for run in runs if run.summary)
        drawn.append(
            charts.intervals(
                "all-accuracy", "Student: target test accuracy", levels, reference=("chance", chance)
            )
        )
    words = ["Top-1 accuracy of the networks on the target's test split."]
    table = ReportTable(columns, rows, frozenset(range(1, 7)))
    return ReportSection("results", "Results", words, [table], drawn)


def _differences(runs: Sequence[Run], names: Sequence[str]) -> ReportSection:
    trees = [dict(flatten(run.settings.model_dump(mode="json"))) for run in runs]
    keys = list(dict.fromkeys(key for tree in trees for key in tree))
    differing = [
        k for k in keys if len({repr(tree.get(k)) for tree in trees}) > 1 and k not in ("run.name", "run.dir")
    ]
    if not differing:
        return ReportSection("differences", "Differences", ["All runs have the same configuration."])
    rows = [(key, *(str(tree.get(key)) for tree in trees)) for key in differing]
    return ReportSection("differences", "Differences", tables=[ReportTable(("key", *names), rows)])


def _curves(runs: Sequence[Run], names: Sequence[str]) -> ReportSection | None:
    steps = {name: run.steps("distill") for run, name in zip(runs, names, strict=True)}
    epochs = {name: run.epochs("distill") for run, name in zip(runs, names, strict=True)}

    def over_steps(value_of: Callable[[StepLogged], float | None]) -> dict[str, Curve]:
        return {name: curve(logged, value_of) for name, logged in steps.items()}

    def accuracies(network: Network) -> dict[str, Curve]:
        validated = {name: [e for e in ended if network in e.validation] for name, ended in epochs.items()}
        return {n: curve(ended, lambda e: e.validation[network].accuracy) for n, ended in validated.items()}

    wanted: list[tuple[str, str, dict[str, Curve], dict[str, Any]]] = [
        ("val-student", "Student: validation accuracy", accuracies(Network.STUDENT), {"percent": True}),
        (
            "val-teacher_adapted",
            "Teacher with adapters: validation accuracy",
            accuracies(Network.TEACHER_ADAPTED),
            {"percent": True},
        ),
        (
            "student_ce",
            "Student: cross-entropy",
            over_steps(lambda step: step.losses.get("student_ce")),
            {"log": True},
        ),
        (
            "images_per_s",
            "Training throughput (images/s)",
            over_steps(lambda step: step.images_per_s),
            {"least": 0},
        ),
        (
            "data_wait_share",
            "Data wait (share of training time)",
            over_steps(lambda step: step.shares.data_wait),
            {"percent": True, "least": 0},
        ),
    ]
    drawn: list[Chart] = []
    for key, title, curves, options in wanted:
        shown = {name: points for name, points in curves.items() if points[0]}
        if shown:
            best = dict(list(shown.items())[:MOST_CURVES])
            drawn.append(charts.lines(f"all-{key}", title, best, **options))
    if not drawn:
        return None
    words = [f"The best {MOST_CURVES} of {len(runs)} runs."] if len(runs) > MOST_CURVES else []
    return ReportSection("curves", "Training curves", ["Distillation stage, by epoch.", *words], charts=drawn)


def _details(
    runs: Sequence[Run], names: Sequence[str], analyses: Sequence[AnalysisOrReason]
) -> ReportSection:
    parts: list[ReportSection] = []
    for i, (run, name, (analysis, missing)) in enumerate(zip(runs, names, analyses, strict=True)):
        if i < MOST_DETAILED:
            inside = RunSections(run, analysis, prefix=f"run{i}-", missing=missing).all()
            parts.append(ReportSection(f"run{i}", name, parts=inside))
    words = []
    if len(runs) > MOST_DETAILED:
        words = [f"Reports of the best {MOST_DETAILED} runs; the report of each run is in its folder."]
    return ReportSection("runs", "Reports of the runs", words, parts=parts)


def _names(runs: Sequence[Run]) -> list[str]:
    """Return the names of the runs if they are unique, else their URLs."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [run.url for run in runs]


def _accuracy(run: Run) -> float:
    if run.summary is None:
        return -1.0
    return next(line.target.value for line in run.summary.lines if line.network == STUDENT)


def _interval(run: Run) -> tuple[float, float]:
    assert run.summary is not None
    target = next(line.target for line in run.summary.lines if line.network == STUDENT)
    return wilson(target.num_correct, max(1, target.num_samples))
