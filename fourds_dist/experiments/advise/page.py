"""The page of an answer, and its tables on the terminal."""

from __future__ import annotations

from rich.console import Console

from fourds_dist.experiments.advise.advice import Advice, time_text
from fourds_dist.experiments.advise.clock import span
from fourds_dist.experiments.advise.domains import DomainCounts
from fourds_dist.io.tables import print_table
from fourds_dist.io.terminal import words
from fourds_dist.reports import charts
from fourds_dist.reports.page import ReportPage, ReportSection, ReportTable

RACE_COLUMNS = ("method", "validation", "at length", "at full length", "time")


def show(advice: Advice, console: Console) -> None:
    """Print the answer."""
    for sentence in advice.sentences():
        console.print(words(sentence), soft_wrap=True)
    print_table(console, "race of methods", RACE_COLUMNS, _race_rows(advice))


def page(advice: Advice, title: str, advised: str, command: str) -> ReportPage:
    """Return the page.

    Args:
        advised: text of the recommended configuration.
        command: trains it.
    """
    facts = [
        ("labels of the target", f"{advice.target.labels} of {advice.target.train} training images"),
        ("budget", f"{span(advice.spent_s)} of {span(advice.budget_s)}"),
        ("device", advice.device),
    ]
    sections = [
        _recommended(advice, advised, command),
        _race(advice),
        _data(advice),
        _helps(advice),
        _missing(advice),
    ]
    present = [each for each in sections if each]
    return ReportPage(title, " ".join(advice.sentences()), facts, present, "python -m fourds_dist.advise")


def _recommended(advice: Advice, advised: str, command: str) -> ReportSection:
    said = [
        "The interval holds if the full training goes as those of our own comparisons; see the README of advise."
    ]
    if advice.is_estimated:
        said.append(
            "The target has no validation labels, so accuracies are estimated from confidences. Such estimates do not "
            "rank methods; the order of methods is mainly that of our own tables."
        )
    return ReportSection(
        "recommended", "Recommended", said, code=[("train", command), ("advised.yaml", advised)]
    )


def _race_rows(advice: Advice) -> list[tuple[str, ...]]:
    mean = [row.belief.points for row in advice.ranking]
    return [
        (
            row.title,
            f"{row.accuracies[-1][1]:.1%}" if row.accuracies else "-",
            f"{row.accuracies[-1][0]:.0%}" if row.accuracies else "-",
            f"{row.belief.points - max(mean):+.1f} ± {row.belief.sd:.1f}",
            time_text(row.hours),
        )
        for row in advice.ranking
    ]


def _race(advice: Advice) -> ReportSection:
    kind = "estimated accuracy" if advice.is_estimated else "accuracy on the validation split"
    curves = {
        row.title: ([fraction for fraction, _ in row.accuracies], [value for _, value in row.accuracies])
        for row in advice.ranking
        if row.accuracies
    }
    tables = [ReportTable(RACE_COLUMNS, _race_rows(advice), {1, 2, 3, 4}, strong=0)]
    if advice.tried:
        rows = [(name, f"{points:+.1f} ± {sd:.1f}") for name, points, sd in advice.tried]
        tables.append(ReportTable(("other settings of the best", "points"), rows, {1}))
    return ReportSection(
        "race",
        "Race of methods",
        [
            "Short trainings on a part of the images, then longer ones of the better half. At full length: expected "
            "points below the best, with the standard deviation, from these trainings and from our own tables."
        ],
        tables,
        [charts.lines("race", f"{kind} by length", curves, x="fraction of the full training", percent=True)]
        if curves
        else [],
    )


def _data(advice: Advice) -> ReportSection:
    rows = [_counts("target", advice.target)]
    if advice.source is not None:
        rows.insert(0, _counts("source", advice.source))
    columns = ("domain", "train", "val", "test", "labels used", "largest / smallest class")
    tables = [ReportTable(columns, rows, {1, 2, 3, 4, 5})]
    said = []
    if (gap := advice.gap) is not None:
        measured = [
            ("teacher on the source", _share(gap.on_source), ""),
            ("teacher on the target", _share(gap.on_target), ""),
            ("teacher on the target, estimated without labels", str(gap.estimate or "-"), ""),
            (
                "domain classifier",
                _share(gap.separability),
                "50 %: the domains look alike to the teacher; 100 %: disjoint",
            ),
            (
                "amplitude spectra",
                _number(gap.amplitude_db, " dB"),
                f"between halves of the source: {_number(gap.amplitude_within_db, ' dB')}",
            ),
            (
                "phase of the mean images",
                _number(gap.phase, ""),
                f"between halves of the source: {_number(gap.phase_within, '')}; 1: unrelated",
            ),
        ]
        tables.append(ReportTable(("distance of the domains", "value", ""), measured, {1}))
        said.append(
            f"Measured on {gap.num_source} source and {gap.num_target} target images of the validation splits."
        )
    return ReportSection("data", "Data", said, tables)


def _counts(name: str, counts: DomainCounts) -> tuple[str, ...]:
    balance = f"{counts.largest / counts.smallest:.1f}" if counts.smallest else "-"
    return (name, *(f"{num}" for num in (counts.train, counts.val, counts.test, counts.labels)), balance)


def _helps(advice: Advice) -> ReportSection:
    rows = [(effect.what, f"{effect.points:+.1f} ± {effect.sd:.1f}") for effect in advice.effects]
    tables = [ReportTable(("left out", "points of accuracy"), rows, {1})] if rows else []
    return ReportSection(
        "help",
        "What would help more",
        [
            advice.help_sentence(),
            "Measured by leaving out a half, at the length of the last round. Twice as much should add at most that.",
        ],
        tables,
    )


def _missing(advice: Advice) -> ReportSection | None:
    rows = [(what, "no time within the budget") for what in advice.left_out]
    rows += list(advice.failures.items())
    return (
        ReportSection("missing", "Not measured", tables=[ReportTable(("part", "why"), rows)])
        if rows
        else None
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2g}{unit}"
