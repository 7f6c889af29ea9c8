"""Regret of the label-free criteria: the accuracy that is lost if a criterion selects the epoch.

python -m fourds_dist.benchmark criteria runs/digits-zero-label --json criteria.json

FOLDER is the folder of a comparison, or a folder of runs, whose targets have validation labels that selected nothing
(`target.validation_labels: ignore`) or that were there anyway (`run.criteria: all`). For every run and criterion the
table compares the student's validation accuracy of the epoch with the highest value to that of the best epoch. The best
epoch is chosen with the labels, so its accuracy is optimistic by the error of the validation split; criteria are
compared with each other, and with the last epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import spearmanr

from fourds_dist.runs.accuracy import LABEL_FREE, MEASURE_NAMES
from fourds_dist.runs.events import EpochEnded
from fourds_dist.runs.layout import Network
from fourds_dist.stages.finished_run import Run, find_runs

LAST = "last epoch"
"""The baseline that needs no criterion."""


@dataclass(frozen=True)
class Selection:
    """What one criterion selects in one run.

    Args:
        regret: accuracy of the best epoch minus that of the selected epoch, in [0, 1].
        correlation: Spearman's rank correlation of criterion and accuracy over epochs; None where either is constant.
    """

    run: str
    criterion: str
    epoch: int
    accuracy: float
    regret: float
    correlation: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this benchmark."""
    parser.add_argument("folder", metavar="FOLDER", help="folder of a comparison, or of runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every selection to this file")


def run(options: argparse.Namespace) -> None:
    """Print the table.

    Raises:
        ValueError: no run of the folder has epochs with an accuracy and criteria.
    """
    found = selections(_runs(options.folder))
    if not found:
        raise ValueError(
            f"{options.folder} has no run with validation accuracies and label-free criteria; set run.criteria=all, or "
            "target.validation_labels=ignore with a target whose validation split has labels"
        )
    print(markdown(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


def selections(runs: Sequence[Run]) -> list[Selection]:
    """Return what each criterion selects in each run that has accuracies and criteria in all epochs."""
    return [each for run in runs for each in _of_run(run.name, run.epochs("distill"))]


def markdown(found: Sequence[Selection]) -> str:
    """Return the table of all criteria in Markdown, the lowest mean regret first."""
    by_name: dict[str, list[Selection]] = {}
    for each in found:
        by_name.setdefault(each.criterion, []).append(each)
    lines = [
        "| criterion | regret in points, mean | largest | runs without regret | rank correlation with accuracy |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, of in sorted(by_name.items(), key=lambda item: statistics.fmean(e.regret for e in item[1])):
        regrets = [100 * each.regret for each in of]
        correlations = [each.correlation for each in of if each.correlation is not None]
        label = f"`{name}`" if name in MEASURE_NAMES else name
        shown = f"{statistics.fmean(correlations):+.2f}" if correlations else "-"
        lines.append(
            f"| {label} | {statistics.fmean(regrets):.2f} | {max(regrets):.2f} | "
            f"{sum(regret == 0 for regret in regrets)} of {len(regrets)} | {shown} |"
        )
    return "\n".join(lines)


def _of_run(name: str, epochs: Sequence[EpochEnded]) -> list[Selection]:
    students = [epoch.validation[Network.STUDENT] for epoch in epochs if Network.STUDENT in epoch.validation]
    accuracies = [student.accuracy for student in students]
    if not students or any(value is None for value in accuracies) or not all(s.criteria for s in students):
        return []
    known = [value for value in accuracies if value is not None]
    values = {by: [s.criteria.get(by, float("-inf")) for s in students] for by in LABEL_FREE}
    values[LAST] = [float(epoch.epoch) for epoch in epochs]
    return [_selection(name, by, of, known) for by, of in values.items() if max(of) > float("-inf")]


def _selection(name: str, by: str, values: Sequence[float], accuracies: Sequence[float]) -> Selection:
    chosen = max(range(len(values)), key=values.__getitem__)  # the first of equal values, as in training
    is_constant = len(set(values)) == 1 or len(set(accuracies)) == 1
    correlation = None if is_constant else float(spearmanr(values, accuracies)[0])  # pyright: ignore[reportArgumentType]
    regret = max(accuracies) - accuracies[chosen]
    return Selection(name, by, chosen + 1, accuracies[chosen], regret, correlation)


def _runs(folder: str) -> list[Run]:
    try:
        return find_runs([f"{folder}/cells"])
    except ValueError:
        return find_runs([folder])
