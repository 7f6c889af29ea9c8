"""Calibration of `fourds advise`: its picks and intervals against finished comparisons, at a part of their cost.

python -m fourds_dist.compare configs/compare/calibration.yaml
python -m fourds_dist.benchmark advise configs/compare/calibration.yaml --share 0.1 --json calibration.json

FILE is a comparison whose cells are done. A case is one of its pairs of domains in one of its regimes of labels. For
each case advice is given on the methods of the comparison, with a budget of `--share` of the seconds that the case's
trainings took, over all seeds. The truth is the mean test accuracy of each method over seeds. With `--no-priors` the
advice uses the trainings alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from fourds_dist.experiments.advise.advice import Advice
from fourds_dist.experiments.advise.candidates import UNKNOWN
from fourds_dist.experiments.advise.plan import AdviseConfig, AdvisePlan
from fourds_dist.experiments.advise.run import advise
from fourds_dist.experiments.base_run import flat, read_experiment, with_absolute_base_paths
from fourds_dist.experiments.compare.config import Changes, CompareConfig
from fourds_dist.experiments.compare.plan import read_plan
from fourds_dist.experiments.compare.results import Results, read_results
from fourds_dist.io.storage import join
from fourds_dist.io.terminal import say

CLOSE_POINTS = 1.0
"""A pick within so many points of the best method counts as right."""
LEAST_BUDGET_S = 20.0


@dataclass(frozen=True)
class Case:
    """Advice on one pair of domains in one regime, and the truth.

    Args:
        accuracies: method -> mean test accuracy over seeds.
        pick: the recommended method.
        regret_points: accuracy of the best method minus that of the pick.
        expected, low, high: the forecast of the pick's accuracy; None: there was none.
        full_s: seconds of training of the comparison's cells.
        spent_s: seconds of the advice.
    """

    pair: str
    regime: str
    accuracies: dict[str, float]
    pick: str
    regret_points: float
    expected: float | None
    low: float | None
    high: float | None
    full_s: float
    spent_s: float
    ahead: float
    seen: tuple[tuple[float, float], ...]
    """(fraction of the full length, validation accuracy) of the pick."""

    @property
    def is_close(self) -> bool:
        """Whether the pick is the best method, or within CLOSE_POINTS of it."""
        return self.regret_points <= CLOSE_POINTS

    @property
    def is_covered(self) -> bool | None:
        """Whether the interval of the forecast has the pick's accuracy; None without a forecast."""
        if self.low is None or self.high is None:
            return None
        return self.low <= self.accuracies[self.pick] <= self.high


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this benchmark."""
    parser.add_argument("comparison", metavar="FILE", help="comparison file whose cells are done")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys of the comparison, as in `compare`"
    )
    parser.add_argument(
        "--share", type=float, default=0.1, help="budget, as a share of the comparison (default 0.1)"
    )
    parser.add_argument("--no-priors", action="store_true", help="give advice from the trainings alone")
    parser.add_argument(
        "--name", default="advice", help="folder of the advice in the comparison's (default: advice)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every case to this file")


def run(options: argparse.Namespace) -> None:
    """Give advice on every case, and print the table.

    Raises:
        ValueError: no case of the comparison is done.
    """
    plan = read_plan(options.comparison, options.overrides)
    results = read_results(plan)
    config, base = read_experiment(options.comparison, options.overrides, CompareConfig)
    base = with_absolute_base_paths(base, Path.cwd(), "the comparison")
    found: list[Case] = []
    refused = 0
    for regime, changes in config.regimes.items():
        for source, target in config.all_pairs:
            pair = f"{source} -> {target}"
            truth = _truth(results, regime, pair)
            if len(truth) < len(config.methods):
                say(f"{pair}, {regime}: left out, since not all methods are done")
                continue
            full_s = _seconds(results, regime, pair)
            keys: Changes = {
                "source.url": config.domains[source],
                "target.url": config.domains[target],
                "run.dir": join(plan.url, options.name),
                **flat(changes),
            }
            asked = AdvisePlan(
                AdviseConfig(
                    name=f"{source}-to-{target}.{regime}",
                    budget_s=max(LEAST_BUDGET_S, options.share * full_s),
                    methods={name: flat(method) for name, method in config.methods.items()},
                ),
                with_absolute_base_paths(base.changed(keys, "the case"), Path.cwd(), "the case"),
            )
            if options.no_priors:
                asked = _without_priors(asked)
            say(f"{pair}, {regime}: {asked.config.budget_s:.0f} s")
            try:
                advice = advise(asked, Console(quiet=True))
            except ValueError as error:
                say(f"{pair}, {regime}: no advice: {error}")
                refused += 1
                continue
            found.append(_case(pair, regime, truth, full_s, advice))
            say(_row(found[-1]))
    if not found:
        why = (
            "none of its cases has advice"
            if refused
            else "it has no case whose cells are all done; run the comparison"
        )
        raise ValueError(f"{plan.url}: {why}")
    if refused:
        print(f"{refused} cases had no advice.")
    print(markdown(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")


def markdown(found: Sequence[Case]) -> str:
    """Return the table of all cases in Markdown, and what they say together."""
    lines = [
        "| pair | labels | pick | best method | regret, points | expected | measured | time |",
        "|---|---|---|---|---:|---|---:|---:|",
        *(_row(case) for case in found),
    ]
    close = sum(case.is_close for case in found)
    covered = [case.is_covered for case in found if case.is_covered is not None]
    lines += [
        "",
        f"Pick within {CLOSE_POINTS:g} point of the best: {close} of {len(found)}; mean regret "
        f"{statistics.fmean(case.regret_points for case in found):.1f} points; intervals that have the accuracy: "
        f"{sum(covered)} of {len(covered)}.",
    ]
    return "\n".join(lines)


def _row(case: Case) -> str:
    best = max(case.accuracies, key=lambda name: case.accuracies[name])
    expected = (
        "-"
        if case.expected is None or case.low is None or case.high is None
        else f"{100 * case.expected:.1f} [{100 * case.low:.1f}, {100 * case.high:.1f}]"
    )
    cells = (
        case.pair,
        case.regime,
        case.pick,
        f"{best} {100 * case.accuracies[best]:.1f}",
        f"{case.regret_points:.1f}",
        expected,
        f"{100 * case.accuracies[case.pick]:.1f}",
        f"{case.spent_s:.0f} of {case.full_s:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def _case(pair: str, regime: str, truth: dict[str, float], full_s: float, advice: Advice) -> Case:
    expected = advice.expected
    return Case(
        pair,
        regime,
        truth,
        advice.best,
        100 * (max(truth.values()) - truth[advice.best]),
        expected and expected.value,
        expected and expected.low,
        expected and expected.high,
        full_s,
        advice.spent_s,
        advice.ahead,
        advice.ranking[0].accuracies,
    )


def _truth(results: Results, regime: str, pair: str) -> dict[str, float]:
    means = {name: results.of_pair(regime, name, pair) for name in results.plan.config.methods}
    return {name: mean.value for name, mean in means.items() if mean is not None}


def _seconds(results: Results, regime: str, pair: str) -> float:
    """Return the device seconds of a case: its cells, and the source stage of each seed once."""
    cells = {
        cell: result for cell, result in results.cells.items() if (cell.regime, cell.pair) == (regime, pair)
    }
    sources = {cell.seed: result.source_s for cell, result in cells.items()}
    return sum(result.train_s for result in cells.values()) + sum(sources.values())


def _without_priors(plan: AdvisePlan) -> AdvisePlan:
    """Return the plan with one weak prior for all methods."""
    flat_prior = replace(UNKNOWN, points=0.0, sd=20.0)
    plan.__dict__["candidates"] = [replace(each, prior=flat_prior) for each in plan.candidates]
    return plan
