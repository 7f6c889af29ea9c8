"""The loop that starts tasks in order, several at once. A failed task does not end the loop.

A source stage precedes the runs that share it. The folders of the runs show what is done: the same command resumes
where it was stopped, and repeats what failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fourds_dist.experiments.executor.base import Executor, Outcome, RunTask, TaskResult
from fourds_dist.io.error_text import error_line
from fourds_dist.io.terminal import say
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.stages.stages import drop_checkpoints


def run_tasks(
    tasks: Iterable[RunTask],
    executor: Executor,
    ended: Callable[[TaskResult], None],
    *,
    more: Callable[[], Iterable[RunTask]] = tuple,
    poll_s: float | None = None,
    every: Callable[[], None] = lambda: None,
) -> None:
    """Execute all tasks, as many at once as the executor has room for.

    Args:
        ended: called with the result of each task.
        more: called before each round; returns further tasks. The loop ends when there are none and all have ended.
        poll_s: the longest time between two rounds; None: until a task ends.
        every: called in each round.
    """
    waiting: list[RunTask] = list(tasks)
    running: set[str] = set()
    unmet = {task.url for task in waiting}
    failed: dict[str, bool] = {}  # URL -> whether the failure is permanent
    while True:
        every()
        for task in more():
            waiting.append(task)
            unmet.add(task.url)
            failed.pop(task.url, None)
        if not waiting and not running:
            return
        for task in list(waiting):
            if task.needs in failed:
                waiting.remove(task)
                is_permanent = failed[task.needs]
                outcome = Outcome("skipped: its source stage failed", is_permanent=is_permanent)
                ended(TaskResult(task, outcome))
            elif task.needs not in unmet and len(running) < executor.capacity:
                waiting.remove(task)
                running.add(task.url)
                executor.start(task)
        if running and (result := executor.wait(poll_s)) is not None:
            running.remove(result.task.url)
            unmet.discard(result.task.url)
            if result.outcome.failure is not None:
                failed[result.task.url] = result.outcome.is_permanent
            ended(result)


def remove_checkpoints(urls: Sequence[str]) -> None:
    """Remove the checkpoints of runs that will not be resumed; print a line for each folder where that fails."""

    def remove(url: str) -> None:
        try:
            drop_checkpoints(RunFolder(url))
        except Exception as error:  # drivers of stores raise any type
            say(f"note: checkpoints under {url} could not be removed ({error_line(error)})")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(remove, urls))
