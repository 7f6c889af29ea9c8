"""Compare methods: every method on every pair of domains, with several seeds and few or all labels, side by side.

python -m fourds_dist.compare configs/compare/quickstart.yaml                 digits over photographs: minutes
python -m fourds_dist.compare configs/compare/icons.yaml seeds=[0]            keys of the comparison or of its runs
ray job submit --working-dir . -- python -m fourds_dist.compare configs/compare/office-31.yaml run.dir=s3://bucket/runs

The same command resumes a stopped comparison and repeats failed cells; with other methods, pairs or seeds the command
runs the new cells. --regime and --method select cells to run; the tables show all finished cells. The command writes
table.md, cells.csv, results.json and differences.png to run.dir/name, and weights and metrics of each cell; checkpoints
of finished cells are removed. With the key early_stopping, cells that are clearly worse than others stop early, and the
tables list them. Exit status: 0 all selected cells are done or stopped early, 1 refused, or some cells failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING

from rich.console import Console

from fourds_dist.cli.command import KEYS_BESIDES, ExitStatus, command_parser, keys, run_command
from fourds_dist.experiments.compare.config import CompareConfig
from fourds_dist.io.terminal import say, words
from fourds_dist.processes.signals import sigterm_as_ctrl_c

if TYPE_CHECKING:
    from fourds_dist.experiments.compare.plan import ComparisonPlan

TABLE, CELLS, RESULTS, PLOT = "table.md", "cells.csv", "results.json", "differences.png"


def main(arguments: list[str] | None = None) -> int:
    """Entry of `python -m fourds_dist.compare`; return the exit status."""
    return run_command(parser(), arguments, _compare)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = command_parser("python -m fourds_dist.compare", __doc__, keys(CompareConfig, KEYS_BESIDES))
    parser.add_argument("comparison", metavar="FILE", help="comparison file (.yaml)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="keys of the comparison or of its runs"
    )
    for what in ("regime", "method"):
        help_text = f"run only cells of this {what}; can be given several times"
        parser.add_argument(f"--{what}", action="append", metavar="NAME", help=help_text)
    parser.add_argument(
        "--table", action="store_true", help="run nothing; print the tables of finished cells"
    )
    return parser


def _compare(options: argparse.Namespace) -> ExitStatus:
    from fourds_dist.experiments.compare.plan import read_plan
    from fourds_dist.launch.base_folder import base_folder
    from fourds_dist.launch.torchrun import refuse_launcher
    from fourds_dist.runs.lease import held
    from fourds_dist.runs.run_folder import refuse_memory

    sigterm_as_ctrl_c()
    refuse_launcher("a comparison")
    console = Console()
    plan = read_plan(options.comparison, options.overrides, folder=base_folder())
    refuse_memory(plan.url, is_one_process=plan.config.through == "here")
    chosen = plan.among(regimes=options.regime, methods=options.method)
    with nullcontext() if options.table else held(plan.url):
        return _work(plan, None if options.table else chosen, console)


def _work(plan: ComparisonPlan, chosen: ComparisonPlan | None, console: Console) -> ExitStatus:
    """Run the unfinished cells of `chosen`, and show the tables of all finished cells."""
    from fourds_dist.experiments.compare.early_stopping import read_stop
    from fourds_dist.experiments.compare.pending import finished_runs, pending_tasks
    from fourds_dist.experiments.compare.plan import check_runs, refuse_others, representatives
    from fourds_dist.experiments.executor.base import TaskResult
    from fourds_dist.experiments.executor.open import check_imports, open_executor
    from fourds_dist.experiments.executor.run_tasks import remove_checkpoints, run_tasks
    from fourds_dist.launch.run import prepare

    refuse_others(plan)
    failures: dict[str, str] = {}
    if chosen is not None:
        tasks = pending_tasks(chosen)
        if tasks:
            check_imports(plan.config.through)
        prepare(plan.base, [chosen.given[cell] for cell in representatives(chosen)])
        check_runs(chosen)
        remove_checkpoints(finished_runs(chosen, tasks))
        num_ended = 0

        def report(end: TaskResult) -> None:
            nonlocal num_ended
            num_ended += 1
            state = "done"
            if end.outcome.failure is not None:
                failures[end.task.title] = end.outcome.failure
                state = f"failed: {end.outcome.failure}"
            else:
                remove_checkpoints([end.task.url])
                if end.outcome.stopped is not None:
                    state = str(read_stop(end.task.settings, plan.config.early_stopping))
            say(f"[{num_ended}/{len(tasks)}] {end.task.title}: {state}")

        if tasks:
            rule = plan.early_stopping()
            if rule is not None:
                rule.read(task.url for task in tasks)
            with open_executor(plan.config.through, plan.base, plan.config.parallel, rule) as executor:
                run_tasks(tasks, executor, report)
    _show(plan, failures, console)
    return 1 if failures else 0


def _failures_before(plan: ComparisonPlan) -> dict[str, str]:
    """Return the failures that the last tables list: title of a cell -> failure."""
    from fourds_dist.runs.run_folder import RunFolder

    folder = RunFolder(plan.url)
    try:
        return dict(folder.read_json(RESULTS)["failures"]) if folder.exists(RESULTS) else {}
    except (ValueError, KeyError, TypeError):  # the file was edited
        return {}


def _show(plan: ComparisonPlan, failures: dict[str, str], console: Console) -> None:
    """Print the tables, and write them to the comparison's folder."""
    from fourds_dist.experiments.compare.plot import differences_png
    from fourds_dist.experiments.compare.results import read_results
    from fourds_dist.experiments.compare.tables import MOST_PAIRS, as_csv, as_tree, headline, summary, tables
    from fourds_dist.io.storage import write_bytes
    from fourds_dist.runs.run_folder import RunFolder

    results, folder = read_results(plan), RunFolder(plan.url)
    missing = {str(cell) for cell in plan.runs if cell not in results.cells and cell not in results.stopped}
    failures = {t: why for t, why in _failures_before(plan).items() if t in missing} | failures
    first = headline(results)
    console.print(words(first))
    for table in tables(results, most_pairs=MOST_PAIRS):
        table.show(console)
    console.print(words(summary(results)), soft_wrap=True)
    remarks = [f"{cell}: {stop}" for cell, stop in results.stopped.items()]
    remarks += [f"left out: {title}: {why}" for title, why in failures.items()]
    for remark in remarks:
        console.print(words(remark), soft_wrap=True)
    left_out = "".join(f"- {remark}\n" for remark in remarks)
    text = "\n".join(table.markdown() for table in tables(results))
    folder.write_text(TABLE, f"# {plan.config.name}\n\n{first}\n\n{text}\n{summary(results)}\n{left_out}")
    folder.write_text(CELLS, as_csv(results))
    folder.write_text(RESULTS, json.dumps(as_tree(results, failures), indent=2) + "\n")
    png = differences_png(results)
    if png is not None:
        write_bytes(folder.path(PLOT), png)
    console.print(words(f"table and plot: {folder.path(TABLE)}, {PLOT}"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
