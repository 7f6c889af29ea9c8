"""The cells of a comparison that have to run, as tasks, and the runs that are done."""

from __future__ import annotations

from collections.abc import Sequence

from fourds_dist.experiments.compare.plan import ComparisonPlan
from fourds_dist.experiments.executor.base import RunTask


def pending_tasks(plan: ComparisonPlan) -> list[RunTask]:
    """Tasks of all runs that are neither done nor stopped early; source stages come before the cells that need them.

    One seed comes after the other, so that a table of one seed is there early. On a cluster, where all tasks wait in
    the queue, a cell is submitted when its source stage has ended.
    """
    missing = [
        cell
        for cell, settings in plan.runs.items()
        if not RunTask("", settings).is_done and plan.stop_of(cell) is None
    ]
    sources = {plan.sources[cell].run_url: plan.sources[cell] for cell in missing if cell in plan.sources}
    titles = {plan.sources[cell].run_url: cell.source for cell in missing if cell in plan.sources}
    first = [RunTask(f"teacher for {titles[url]}, seed {s.run.seed}", s) for url, s in sources.items()]
    cells = [
        RunTask(str(cell), plan.runs[cell], plan.sources[cell].run_url if cell in plan.sources else None)
        for cell in missing
    ]
    tasks = [*(task for task in first if not task.is_done), *cells]
    return sorted(tasks, key=lambda task: plan.config.seeds.index(task.settings.run.seed))


def finished_runs(plan: ComparisonPlan, tasks: Sequence[RunTask]) -> list[str]:
    """Folders of all runs that are done or stopped early, which are those without a task."""
    runs = [*plan.runs.values(), *plan.sources.values()]
    return sorted({run.run_url for run in runs} - {task.url for task in tasks})
