"""Report of several runs side by side: results, differing configuration keys, training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fourds_dist.config.trees import flatten
from fourds_dist.reports.analysis import ADAPTED, STUDENT, TEACHER
from fourds_dist.reports.page import ReportPage, ReportSection, ReportTable
from fourds_dist.reports.sections import WantedChart, accuracies, interval, line_charts
from fourds_dist.runs.accuracy import percent
from fourds_dist.runs.layout import Network, display_name, with_student
from fourds_dist.stages.finished_run import Run, curve

MOST_CURVES = 6
"""Largest number of runs, best first, per chart."""


def comparison(runs: Sequence[Run]) -> ReportPage:
    """Return the page of several runs, in descending order of the student's accuracy; unfinished runs come last."""
    ordered = sorted(runs, key=_accuracy, reverse=True)
    is_unique = len({run.name for run in runs}) == len(runs)
    named = {run.name if is_unique else run.url: run for run in ordered}
    num_done = sum(run.summary is not None for run in runs)
    verdict = "None of these runs is done yet."
    if num_done:
        best = f"a student accuracy of {_shown(ordered[0])} on the target's test split"
        verdict = f"Best run: {next(iter(named))}, with {best}."
        left = len(runs) - num_done
        verdict += f" {left} {'run is' if left == 1 else 'runs are'} not done." if left else ""
    sections = [_results(named), _differences(named), _curves(named)]
    return ReportPage(f"{len(runs)} runs side by side", verdict, [], [s for s in sections if s])


def _results(runs: Mapping[str, Run]) -> ReportSection:
    rows: list[tuple[str, ...]] = []
    for name, run in runs.items():
        if run.summary is None:
            rows.append((name, "not done", *[""] * 8))
            continue
        lines = {line.network: line for line in run.summary.lines}
        student = run.summary.student
        assert student is not None
        teachers = (percent(lines[n].target.value) if n in lines else "-" for n in (TEACHER, ADAPTED))
        size, speed = f"{student.num_parameters / 1e6:.2f} M", f"{run.summary.train_images_per_s:.0f}"
        others = (student.target.mean_per_class, student.target.macro_f1)
        accuracy = (
            _shown(run),
            interval(student.target),
            *map(percent, others),
        )
        rows.append((name, *accuracy, *teachers, size, speed, str(run.summary.num_workers)))
    more = ("student parameters", "training images/s", "workers")
    measured = (STUDENT, "95 % interval", "balanced accuracy", "macro F1")
    table = ReportTable(("run", *measured, TEACHER, ADAPTED, *more), rows, range(1, 10))
    words = (
        "Top-1 accuracy of the networks on the target's test split; 95 % confidence interval, balanced accuracy and "
        "macro F1 of the student (of several students of one run the best one on the validation split)."
    )
    return ReportSection("results", "Results", [words], [table])


def _differences(runs: Mapping[str, Run]) -> ReportSection:
    trees = [dict(flatten(run.settings.model_dump(mode="json"))) for run in runs.values()]
    keys = dict.fromkeys(key for tree in trees for key in tree if key not in ("run.name", "run.dir"))
    differing = [key for key in keys if len({repr(tree.get(key)) for tree in trees}) > 1]
    if not differing:
        return ReportSection("differences", "Differences", ["All runs have the same configuration."])
    rows = [(key, *(str(tree.get(key)) for tree in trees)) for key in differing]
    return ReportSection("differences", "Differences", tables=[ReportTable(("key", *runs), rows)])


def _curves(runs: Mapping[str, Run]) -> ReportSection | None:
    best = dict(list(runs.items())[:MOST_CURVES])
    measured = {name: accuracies(run.epochs("distill")) for name, run in best.items()}
    students = {name: run.main_student for name, run in best.items()}
    losses = {
        name: curve(
            run.steps("distill"), lambda s, of=students[name]: s.losses.get(with_student("student_ce", of))
        )
        for name, run in best.items()
    }
    wanted: list[WantedChart] = [("all-student_ce", "Student: cross-entropy", losses, {"log": True})]
    for network in (STUDENT, ADAPTED):
        shown = {
            name: display_name(Network.STUDENT.of_student(students[name])) if network == STUDENT else network
            for name in measured
        }
        by_run = {name: of_run[shown[name]] for name, of_run in measured.items() if shown[name] in of_run}
        title = f"{network.capitalize()}: validation accuracy"
        wanted.append((f"all-accuracy-{network}".replace(" ", "-"), title, by_run, {"percent": True}))
    most = f" The best {MOST_CURVES} of {len(runs)} runs." if len(runs) > MOST_CURVES else ""
    words = f"Distillation stage, by epoch.{most} The report in each run's folder has its other curves."
    drawn = line_charts(wanted)
    return ReportSection("curves", "Training curves", [words], charts=drawn) if drawn else None


def _accuracy(run: Run) -> float:
    """Return the student's accuracy on the target's test split, or its estimate; negative: none, or not done."""
    student = run.summary.student if run.summary else None
    if student is None:
        return -1.0
    estimated = student.estimate.value if student.estimate else -0.5
    return estimated if student.target.value is None else student.target.value


def _shown(run: Run) -> str:
    """Return the student's accuracy as text, or its estimate."""
    student = run.summary.student if run.summary else None
    if student is None:
        return "-"
    return str(student.estimate or "-") if student.target.value is None else percent(student.target.value)
