"""Several runs side by side: what came of each, in what they differ, and their reports folded below."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fourds_dist.results import charts
from fourds_dist.results.charts import Chart
from fourds_dist.results.examine import ADAPTED, STUDENT, TEACHER, Examination
from fourds_dist.results.page import Page, Section, Table
from fourds_dist.results.run import Curve, Run, curve
from fourds_dist.results.scores import wilson
from fourds_dist.results.sections import RunSections
from fourds_dist.runs.events import StepLogged
from fourds_dist.runs.layout import Network

Look = tuple[Examination | None, str]
MOST_DETAILED = 6
MOST_CURVES = 6
"""Runs whose reports are folded in, and whose curves share a chart; the best ones, where there are more."""


def comparison(runs: Sequence[Run], looks: Sequence[Look]) -> Page:
    """The page, the best run first."""
    order = sorted(range(len(runs)), key=lambda i: -_accuracy(runs[i]))
    runs, looks = [runs[i] for i in order], [looks[i] for i in order]
    names = _names(runs)
    done = [run for run in runs if run.outcome]
    sections = [
        _results(runs, names),
        _differences(runs, names),
        _curves(runs, names),
        _details(runs, names, looks),
    ]
    return Page(f"{len(runs)} runs side by side", _verdict(runs, names, done), [], [s for s in sections if s])


def _verdict(runs: Sequence[Run], names: Sequence[str], done: Sequence[Run]) -> str:
    if not done:
        return "None of these runs is done yet."
    told = f"Best: {names[0]}, whose student recognises {_accuracy(runs[0]):.1%} of its target's test images"
    if len(done) > 1:
        first, second = (_interval(run) for run in done[:2])
        apart = (
            "the intervals do not overlap"
            if first[0] > second[1]
            else "a difference within their 95 % intervals"
        )
        told += f"; next: {names[1]} with {_accuracy(done[1]):.1%}, {apart}"
    return told + f". {len(runs) - len(done)} not done." if len(done) < len(runs) else told + "."


def _results(runs: Sequence[Run], names: Sequence[str]) -> Section:
    rows, levels = [], {}
    for run, name in zip(runs, names, strict=True):
        if run.outcome is None:
            rows.append((name, "not done", *[""] * 5))
            continue
        lines = {line.network: line.target for line in run.outcome.lines}
        student = next(line for line in run.outcome.lines if line.network == STUDENT)
        levels[name] = (student.target.value, _interval(run))
        others = [f"{lines[n].value:.1%}" if n in lines else "-" for n in (TEACHER, ADAPTED)]
        size, speed = f"{student.num_parameters / 1e6:.2f} M", f"{run.outcome.train_images_per_s:.0f}"
        rows.append((name, f"{student.target.value:.1%}", *others, size, speed, str(run.outcome.num_workers)))
    columns = ("run", "student", "teacher", "with adapters", "student's size", "trained, images/s", "workers")
    drawn: list[Chart] = []
    if levels:
        chance = next(run.outcome.chance for run in runs if run.outcome)
        drawn.append(
            charts.intervals("all-accuracy", "Students on target", levels, reference=("chance", chance))
        )
    return Section("results", "Results", tables=[Table(columns, rows, frozenset(range(1, 7)))], charts=drawn)


def _differences(runs: Sequence[Run], names: Sequence[str]) -> Section:
    trees = [dict(_leaves(run.settings.model_dump(mode="json"))) for run in runs]
    keys = list(dict.fromkeys(key for tree in trees for key in tree))
    differing = [
        k for k in keys if len({repr(tree.get(k)) for tree in trees}) > 1 and k not in ("run.name", "run.dir")
    ]
    if not differing:
        return Section("differences", "Differences", ["The runs have one configuration."])
    rows = [(key, *(str(tree.get(key)) for tree in trees)) for key in differing]
    return Section("differences", "Differences", tables=[Table(("key", *names), rows)])


def _curves(runs: Sequence[Run], names: Sequence[str]) -> Section | None:
    steps = {name: run.steps("distill") for run, name in zip(runs, names, strict=True)}
    epochs = {name: run.epochs("distill") for run, name in zip(runs, names, strict=True)}

    def over_steps(value_of: Callable[[StepLogged], float | None]) -> dict[str, Curve]:
        return {name: curve(found, value_of) for name, found in steps.items()}

    def accuracies(network: Network) -> dict[str, Curve]:
        having = {name: [e for e in found if network in e.validation] for name, found in epochs.items()}
        return {n: curve(found, lambda e: e.validation[network].accuracy) for n, found in having.items()}

    wanted: list[tuple[str, str, dict[str, Curve], dict[str, Any]]] = [
        ("val-student", "Student's validation accuracy", accuracies(Network.STUDENT), {"percent": True}),
        (
            "val-teacher_adapted",
            "Adapted teacher's validation accuracy",
            accuracies(Network.TEACHER_ADAPTED),
            {"percent": True},
        ),
        (
            "student_ce",
            "Student's cross-entropy",
            over_steps(lambda step: step.losses.get("student_ce")),
            {"log": True},
        ),
        (
            "images_per_s",
            "Training images per second",
            over_steps(lambda step: step.images_per_s),
            {"least": 0},
        ),
        (
            "data_wait_share",
            "Share of time waiting for data",
            over_steps(lambda step: step.shares.data_wait),
            {"percent": True, "least": 0},
        ),
    ]
    drawn: list[Chart] = []
    for key, title, curves, options in wanted:
        shown = {name: found for name, found in curves.items() if found[0]}
        if shown:
            first = dict(list(shown.items())[:MOST_CURVES])
            drawn.append(charts.lines(f"all-{key}", title, first, **options))
    words = [f"The best {MOST_CURVES} of {len(runs)} runs."] if len(runs) > MOST_CURVES else []
    return Section("curves", "Curves", ["Distillation, by epoch.", *words], charts=drawn) if drawn else None


def _details(runs: Sequence[Run], names: Sequence[str], looks: Sequence[Look]) -> Section:
    parts: list[Section] = []
    for i, (run, name, (seen, missing)) in enumerate(zip(runs, names, looks, strict=True)):
        if i < MOST_DETAILED:
            inside = RunSections(run, seen, prefix=f"run{i}-", missing=missing).all()
            parts.append(Section(f"run{i}", name, parts=inside))
    words = (
        [f"Of the best {MOST_DETAILED}; every run's own folder has its report."]
        if len(runs) > MOST_DETAILED
        else []
    )
    return Section("runs", "Run by run", words, parts=parts)


def _names(runs: Sequence[Run]) -> list[str]:
    """Names where they tell the runs apart, else their places."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [run.url for run in runs]


def _accuracy(run: Run) -> float:
    if run.outcome is None:
        return -1.0
    return next(line.target.value for line in run.outcome.lines if line.network == STUDENT)


def _interval(run: Run) -> tuple[float, float]:
    assert run.outcome is not None
    target = next(line.target for line in run.outcome.lines if line.network == STUDENT)
    return wilson(target.num_correct, max(1, target.num_samples))


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, tree
