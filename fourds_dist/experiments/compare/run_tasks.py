"""Runs the cells that are not done, several at once; one that fails is told and left out, the others go on.

A source stage comes before the cells that share it. What is done is known by the runs' folders alone: the same command
again goes on where it was stopped, and tries again what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

from fourds_dist.experiments.compare.executor import GRACE_S, Executor, RunTask, TaskResult
from fourds_dist.experiments.compare.in_process import InProcess
from fourds_dist.experiments.compare.plan import ComparisonPlan
from fourds_dist.io.retry import error_line
from fourds_dist.io.terminal import say
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.stages import drop_checkpoints


def pending_tasks(plan: ComparisonPlan) -> list[RunTask]:
    """All that is not done, seed by seed, so that a table of one seed is there early; in each, source stages first.

    On a cluster, where all wait in its queue, a cell comes as its source stage ends.
    """
    missing = [cell for cell, settings in plan.runs.items() if not RunTask("", settings).is_done]
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
    """Folders of all runs that are done: those that are no job."""
    runs = [*plan.runs.values(), *plan.sources.values()]
    return sorted({run.run_url for run in runs} - {task.url for task in tasks})


def remove_checkpoints(urls: Sequence[str]) -> None:
    """Remove the checkpoints of runs that are done; where that fails, a line says so."""

    def tidy_one(url: str) -> None:
        try:
            drop_checkpoints(RunFolder(url))
        except Exception as error:  # whatever a store's driver raises
            say(f"note: checkpoints under {url} could not be removed ({error_line(error)})")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(tidy_one, urls))


def run_tasks(tasks: list[RunTask], executor: Executor, ended: Callable[[TaskResult], None]) -> None:
    """Do all jobs, as many at once as there is room; `ended` hears of each."""
    waiting, running = list(tasks), set[str]()
    unmet = {task.url for task in tasks}
    failed: set[str] = set()
    while waiting or running:
        for task in list(waiting):
            if task.needs in failed:
                waiting.remove(task)
                ended(TaskResult(task, "skipped: its source stage failed"))
            elif task.needs not in unmet and len(running) < executor.capacity:
                waiting.remove(task)
                running.add(task.url)
                executor.start(task)
        if running:
            end = executor.wait()
            running.remove(end.task.url)
            unmet.discard(end.task.url)
            if end.failure is not None:
                failed.add(end.task.url)
            ended(end)


@contextmanager
def open_executor(plan: ComparisonPlan) -> Iterator[Executor]:
    """Where the plan's runs are done, as long as the context lasts; Ctrl-C and SIGTERM leave checkpoints."""
    with _make_executor(plan) as executor:
        try:
            yield executor
        except KeyboardInterrupt:
            executor.end(GRACE_S)
            raise


@contextmanager
def _make_executor(plan: ComparisonPlan) -> Iterator[Executor]:
    launch, parallel = plan.base.launch, plan.config.parallel
    match plan.config.through:
        case "here":
            yield InProcess()
        case "processes":
            from fourds_dist.experiments.compare.process_pool import ProcessPool

            with closing(ProcessPool(launch, parallel)) as process_pool:
                yield process_pool
        case "ray":
            from fourds_dist.experiments.compare.ray_tasks import RayTasks
            from fourds_dist.launch.ray.cluster import cluster
            from fourds_dist.launch.ray.train import sigterm_interrupts

            with cluster(plan.base), sigterm_interrupts():
                yield RayTasks(launch, parallel)
