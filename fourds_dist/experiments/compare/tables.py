"""Tables of a comparison: accuracies and costs by method, and paired differences; for a terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from fourds_dist.experiments.compare.results import Result, Results
from fourds_dist.experiments.compare.statistics import Mean
from fourds_dist.io.tables import print_table

MOST_PAIRS = 3
"""The largest number of pairs with columns of their own on a terminal; Markdown has all pairs."""


@dataclass(frozen=True)
class ResultTable:
    """Text by rows and columns; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def markdown(self) -> str:
        """The table in Markdown, with its title as a heading."""
        lines = [self.columns, ("---", *["---:"] * (len(self.columns) - 1)), *self.rows]
        return f"### {self.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def show(self, console: Console) -> None:
        """Print the table."""
        print_table(console, self.title, self.columns, self.rows)


def tables(results: Results, *, most_pairs: int | None = None) -> list[ResultTable]:
    """Make tables for every regime with results: accuracies of methods, other measures, and differences.

    Args:
        most_pairs: with more pairs, pairs have no columns and the worst pair no interval; None: no limit.
    """
    known = {cell.regime for cell in (*results.cells, *results.stopped)}
    regimes = [regime for regime in results.plan.config.regimes if regime in known]
    return [
        table
        for r in regimes
        for table in (
            _methods(results, r, most_pairs),
            *_measures(results, r),
            _differences(results, r, brief=most_pairs is not None),
        )
    ]


def headline(results: Results) -> str:
    """Return a sentence for each regime: how far the method is from the best baseline; empty without results."""
    lines = []
    for regime in results.plan.config.regimes:
        accuracies = {
            method: over.value
            for method in results.plan.config.methods
            if (over := results.over_pairs(regime, method))
        }
        found = [
            (method, baseline, difference)
            for method, baseline in comparisons(results)
            if method in accuracies
            and baseline in accuracies
            and (difference := results.difference(regime, method, baseline))
        ]
        if not found:
            continue
        method, baseline, difference = max(found, key=lambda each: (accuracies[each[0]], accuracies[each[1]]))
        points = f"{abs(100 * difference.value):.1f} points{_interval(difference, _points)}"
        where = "above" if difference.value >= 0 else "below"
        lines.append(
            f"{regime}: {_words(method)} has {_percent(accuracies[method])} %, {points} {where} the best baseline, "
            f"{_words(baseline)} with {_percent(accuracies[baseline])} %."
        )
    return "\n".join(lines)


def summary(results: Results) -> str:
    """What the tables contain and how to read them, in some lines."""
    config, num = results.plan.config, len(results.cells)
    return (
        f"{num} of {len(results.plan.runs)} cells done: {_count(config.methods, 'method')}, "
        f"{_count(config.all_pairs, 'pair')} of domains, {_count(config.seeds, 'seed')}, "
        f"{_count(config.regimes, 'regime')}. Device: {results.devices}.\n"
        "Accuracies of the student on the target's test split, in percent, its weights chosen on the validation split; "
        "[95 % interval] by Student's t: of a mean over seeds, of a difference over pairs, each by its mean over "
        "seeds (of a single pair: over seeds); pairs that share domains make it somewhat narrow. "
        f"{results.kind_of_device} time: training of a cell without evaluation and without the source stage, which "
        "cells share; cells that run at once share their device, so compare times of one run of this command alone."
        f"{_on_stopped(results)}"
    )


def _on_stopped(results: Results) -> str:
    rule, num = results.plan.config.early_stopping, len(results.stopped)
    if rule is None or not num:
        return ""
    return (
        f"\n{num} {'cell was' if num == 1 else 'cells were'} stopped early, more than {rule.margin_points:g} points of "
        "validation accuracy below the best method of the same pair, seed and regime. No mean and no difference "
        "contains them; what the tables show of their methods is too good."
    )


def as_csv(results: Results) -> str:
    """All finished cells, one a line."""
    out = io.StringIO()
    fields: list[str] = []
    for cell, result in results.cells.items():
        row = {**cell._asdict(), **asdict(result)}
        if not fields:
            fields = list(row)
            csv.writer(out, lineterminator="\n").writerow(fields)
        csv.writer(out, lineterminator="\n").writerow(row.values())
    return out.getvalue()


def as_tree(results: Results, failures: dict[str, str]) -> dict[str, Any]:
    """All results as plain values for JSON; accuracies are in [0, 1]."""
    config = results.plan.config
    return {
        "name": config.name,
        "devices": results.devices,
        "num_cells": len(results.plan.runs),
        "cells": [{**cell._asdict(), **asdict(result)} for cell, result in results.cells.items()],
        "methods": [
            {
                "regime": regime,
                "method": method,
                "accuracy": _plain(results.over_pairs(regime, method)),
                "train_s": results.mean_train_s(regime, method),
            }
            for regime in config.regimes
            for method in config.methods
        ],
        "differences": [
            {
                "regime": regime,
                "method": method,
                "baseline": baseline,
                "difference": _plain(results.difference(regime, method, baseline)),
                "num_better": sum(value > 0 for value in found.values()),
                "by_pair": {
                    pair: _plain(mean)
                    for pair, mean in results.difference_by_pair(regime, method, baseline).items()
                },
            }
            for regime in config.regimes
            for method, baseline in comparisons(results)
            if (found := results.differences(regime, method, baseline))
        ],
        "stopped": [{**cell._asdict(), **asdict(stop)} for cell, stop in results.stopped.items()],
        "failures": failures,
    }


def comparisons(results: Results) -> Iterator[tuple[str, str]]:
    """(method, baseline) of all comparisons."""
    config = results.plan.config
    return ((method, baseline) for method in config.compared for baseline in config.all_baselines)


def _methods(results: Results, regime: str, most_pairs: int | None) -> ResultTable:
    pairs, config = results.pairs, results.plan.config
    shown = pairs if most_pairs is None or len(pairs) <= most_pairs else []
    measured = [r for cell, r in results.cells.items() if cell.regime == regime]
    has_memory = any(r.peak_memory_bytes for r in measured)
    has_estimates = any(r.estimate is not None for r in measured)
    rows = []
    for method in config.methods:
        num_stopped = sum((cell.regime, cell.method) == (regime, method) for cell in results.stopped)
        costs = [r for c, r in results.cells.items() if (c.regime, c.method) == (regime, method)]
        if not costs and not num_stopped:
            continue
        of_pairs = [results.of_pair(regime, method, pair) for pair in shown]
        over = results.over_pairs(regime, method)
        peak = max((r.peak_memory_bytes or 0 for r in costs), default=0)
        rows.append(
            (
                _words(method),
                *(_percent(mean.value) if mean else "-" for mean in of_pairs),
                f"{_percent(over.value)}{_interval(over)}{_share(over.num, config.seeds, 'seed')}"
                if over
                else "-",
                f"{len(costs)}, {num_stopped} stopped" if num_stopped else str(len(costs)),
                _duration(results.mean_train_s(regime, method) or 0.0) if costs else "-",
                *([_estimates(costs)] if has_estimates else []),
                f"{sum(r.images_per_s for r in costs) / len(costs):.0f}" if costs else "-",
                *([f"{peak / 2**30:.1f}" if peak else "-"] if has_memory else []),
            )
        )
    if has_estimates:
        rows.append(_before(results, regime, shown, num_columns=len(rows[0]) if rows else 0))
    time = f"{results.kind_of_device} time"
    columns = (
        "method",
        *shown,
        "mean over pairs",
        "cells",
        time,
        *(["estimated without labels"] if has_estimates else []),
        "images/s",
        *(["GiB"] if has_memory else []),
    )
    return ResultTable(f"{regime}: accuracy", columns, rows)


def _before(results: Results, regime: str, pairs: Sequence[str], num_columns: int) -> tuple[str, ...]:
    """Return a row of the student before distillation, the model of the source, as means over all cells."""
    of_pair: dict[str, list[float]] = {}
    for cell, result in results.cells.items():
        if cell.regime == regime and result.before is not None:
            of_pair.setdefault(cell.pair, []).append(result.before)
    means = {pair: statistics.fmean(values) for pair, values in of_pair.items()}
    row = ["before distillation", *(_percent(means[pair]) if pair in means else "-" for pair in pairs)]
    row.append(_percent(statistics.fmean(means.values())) if means else "-")
    return (*row, *["-"] * (num_columns - len(row)))


def _estimates(results: Sequence[Result]) -> str:
    """Return the mean estimate of the accuracy, and its mean absolute error where there are labels."""
    known = [(r.estimate, r.accuracy) for r in results if r.estimate is not None]
    if not known:
        return "-"
    errors = [abs(estimate - accuracy) for estimate, accuracy in known if accuracy is not None]
    error = f", off by {100 * statistics.fmean(errors):.1f}" if errors else ""
    return f"~{_percent(statistics.fmean(estimate for estimate, _ in known))}{error}"


def _measures(results: Results, regime: str) -> list[ResultTable]:
    """Return a table of all measures, as means over cells; no table for results of earlier versions alone."""
    rows = []
    for method in results.plan.config.methods:
        found = [
            (result.accuracy, result.balanced_accuracy, result.macro_f1)
            for cell, result in results.cells.items()
            if (cell.regime, cell.method) == (regime, method)
            and result.accuracy is not None
            and result.balanced_accuracy is not None
            and result.macro_f1 is not None
        ]
        if found:
            means = (statistics.fmean(values) for values in zip(*found, strict=True))
            rows.append((_words(method), *map(_percent, means), str(len(found))))
    columns = ("method", "accuracy", "balanced accuracy", "macro F1", "cells")
    return [ResultTable(f"{regime}: measures, means over cells", columns, rows)] if rows else []


def _differences(results: Results, regime: str, *, brief: bool) -> ResultTable:
    config = results.plan.config
    has_pairs = len(config.all_pairs) > 1
    rows = []
    for method, baseline in comparisons(results):
        found = results.differences(regime, method, baseline)
        mean = results.difference(regime, method, baseline)
        if mean is None:
            continue
        by_pair = results.difference_by_pair(regime, method, baseline)
        worst = min(by_pair, key=lambda pair: by_pair[pair].value)
        text = f"{worst} {_points(by_pair[worst].value)}"
        ratio = results.time_ratio(regime, method, baseline)
        rows.append(
            (
                f"{_words(method)} - {_words(baseline)}",
                f"{_points(mean.value)}{_interval(mean, _points)}{_share(len(by_pair), config.all_pairs, 'pair')}",
                f"{sum(value > 0 for value in found.values())} of {len(found)}",
                *([text if brief else f"{text}{_interval(by_pair[worst], _points)}"] if has_pairs else []),
                f"x {ratio:.2f}" if ratio else "-",
            )
        )
    columns = ("difference", "points", "better in", *(["worst pair"] if has_pairs else []), "time")
    return ResultTable(f"{regime}: paired differences", columns, rows)


def _plain(mean: Mean | None) -> dict[str, Any] | None:
    return mean and {"value": mean.value, "low": mean.low, "high": mean.high, "num": mean.num}


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _interval(mean: Mean, as_text: Any = _percent) -> str:
    return "" if mean.low is None or mean.high is None else f" [{as_text(mean.low)}, {as_text(mean.high)}]"


def _share(num: int, of: Sequence[Any], what: str) -> str:
    """How many seeds or pairs a row contains, where it does not contain all."""
    return "" if num == len(of) else f", {num} of {_count(of, what)}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _count(things: Sequence[Any] | dict[str, Any], what: str) -> str:
    return f"{len(things)} {what}{'s' if len(things) != 1 else ''}"


def _words(name: str) -> str:
    return name.replace("_", " ")
