"""Compare methods: every method on every pair of domains, with several seeds and few or all labels, side by side.

python -m fourds_dist.compare configs/compare/quickstart.yaml                 digits over photographs: minutes
python -m fourds_dist.compare configs/compare/icons.yaml seeds=[0]            keys of the comparison or of its runs
ray job submit --working-dir . -- python -m fourds_dist.compare configs/compare/office-31.yaml run.dir=s3://bucket/runs

The same command again goes on where it was stopped, and tries again what failed; with other methods, pairs or seeds it
runs what is new. --regime and --method run a part; the tables show all that is done. It leaves table.md, cells.csv,
results.json and differences.png in run.dir/name, and of each cell weights and metrics; checkpoints go once it is done.
Exit status: 0 all that was to be run is done, 1 refused, or some cells failed and are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console

from fourds_dist.command import KEYS_BESIDES, Answer, answered, interrupt_at_sigterm, keys
from fourds_dist.compare.settings import CompareConfig
from fourds_dist.terminal import say, words

if TYPE_CHECKING:
    from fourds_dist.compare.plan import Plan

TABLE, CELLS, RESULTS, PLOT = "table.md", "cells.csv", "results.json", "differences.png"


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.compare`; gives the exit status."""
    return answered(parser(), arguments, _compare)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m fourds_dist.compare",
        description=__doc__,
        epilog=keys(CompareConfig, KEYS_BESIDES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("comparison", metavar="FILE", help="a comparison (.yaml)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys of the comparison or of its runs"
    )
    for what in ("regime", "method"):
        help_text = f"run only cells of this {what}; may be given several times"
        parser.add_argument(f"--{what}", action="append", metavar="NAME", help=help_text)
    parser.add_argument("--table", action="store_true", help="run nothing: tables of the cells that are done")
    parser.add_argument("--traceback", action="store_true", help="show where an error was raised")
    return parser


def _compare(options: argparse.Namespace) -> Answer:
    from fourds_dist.compare.plan import read_plan
    from fourds_dist.launch.ranks import refuse_launcher
    from fourds_dist.train import base_folder
    from fourds_dist.training.lease import held
    from fourds_dist.training.run_folder import refuse_memory

    interrupt_at_sigterm()
    refuse_launcher("a comparison")
    console = Console()
    plan = read_plan(options.comparison, options.overrides, folder=base_folder())
    refuse_memory(plan.url, is_one_process=plan.config.through == "here")
    chosen = plan.among(regimes=options.regime, methods=options.method)
    with nullcontext() if options.table else held(plan.url):
        return _work(plan, None if options.table else chosen, console)


def _work(plan: Plan, chosen: Plan | None, console: Console) -> Answer:
    """Run the cells of `chosen` that are not done, and tell all that are."""
    from fourds_dist.compare.plan import look_into, refuse_others, representatives
    from fourds_dist.compare.work import Ended, done_of, jobs_of, tidy, work, workplace
    from fourds_dist.train import prepare

    refuse_others(plan)
    failures: dict[str, str] = {}
    if chosen is not None:
        prepare(plan.base, [chosen.given[cell] for cell in representatives(chosen)])
        look_into(chosen)
        jobs = jobs_of(chosen)
        tidy(done_of(chosen, jobs))
        num_ended = 0

        def ended(end: Ended) -> None:
            nonlocal num_ended
            num_ended += 1
            if end.failure is None:
                tidy([end.job.url])
            else:
                failures[end.job.title] = end.failure
            told = "done" if end.failure is None else f"failed: {end.failure}"
            say(f"[{num_ended}/{len(jobs)}] {end.job.title}: {told}")

        if jobs:
            with workplace(plan) as place:
                work(jobs, place, ended)
    _tell(plan, failures, console)
    return 1 if failures else 0


def _failures_before(plan: Plan) -> dict[str, str]:
    """What the comparison's last tables left out."""
    from fourds_dist.training.run_folder import RunFolder

    folder = RunFolder(plan.url)
    try:
        return dict(folder.read_json(RESULTS)["failures"]) if folder.exists(RESULTS) else {}
    except (ValueError, KeyError, TypeError):  # no longer as we wrote it
        return {}


def _tell(plan: Plan, failures: dict[str, str], console: Console) -> None:
    """Print the tables, and leave them in the comparison's folder."""
    from fourds_dist.compare.plot import differences_png
    from fourds_dist.compare.results import read_results
    from fourds_dist.compare.tables import MOST_PAIRS, as_csv, as_tree, summary, tables
    from fourds_dist.storage import write_bytes
    from fourds_dist.training.run_folder import RunFolder

    results, folder = read_results(plan), RunFolder(plan.url)
    missing = {str(cell) for cell in plan.runs if cell not in results.cells}
    failures = {t: why for t, why in _failures_before(plan).items() if t in missing} | failures
    for table in tables(results, most_pairs=MOST_PAIRS):
        table.show(console)
    console.print(words(summary(results)), soft_wrap=True)
    for title, why in failures.items():
        console.print(words(f"left out: {title}: {why}"), soft_wrap=True)
    left_out = "".join(f"- left out: {title}: {why}\n" for title, why in failures.items())
    text = "\n".join(table.markdown() for table in tables(results))
    folder.write_text(TABLE, f"# {plan.config.name}\n\n{text}\n{summary(results)}\n{left_out}")
    folder.write_text(CELLS, as_csv(results))
    folder.write_text(RESULTS, json.dumps(as_tree(results, failures), indent=2) + "\n")
    png = differences_png(results)
    if png is not None:
        write_bytes(folder.path(PLOT), png)
    console.print(words(f"table and plot: {folder.path(TABLE)}, {PLOT}"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
