"""The order of tasks: teachers first, as many at once as fit, failures reported and not fatal."""

from __future__ import annotations

from fourds_dist.experiments.executor.base import Outcome, RunTask, TaskResult
from fourds_dist.experiments.executor.run_tasks import run_tasks
from fourds_dist.runs.run_folder import RunConfig
from fourds_dist.stages.settings import Settings


def task(name: str, needs: str | None = None) -> RunTask:
    return RunTask(name, Settings(run=RunConfig(name=name, dir="runs")), f"runs/{needs}" if needs else None)


class Place:
    """Ends runs in the order in which they began."""

    def __init__(self, capacity: int, failing: tuple[str, ...] = ()) -> None:
        self.capacity, self.failing = capacity, failing
        self.running: list[RunTask] = []
        self.most = 0
        self.order: list[str] = []

    def start(self, task: RunTask) -> None:
        self.running.append(task)
        self.order.append(task.title)
        self.most = max(self.most, len(self.running))

    def wait(self, timeout_s: float | None = None) -> TaskResult:
        done = self.running.pop(0)
        return TaskResult(done, Outcome("broken" if done.title in self.failing else None))


JOBS = [task("t1"), task("t2"), task("c1", "t1"), task("c2", "t1"), task("c3", "t2"), task("c4", "elsewhere")]


def test_teachers_come_before_their_cells() -> None:
    executor, ended = Place(capacity=2), list[TaskResult]()
    run_tasks(JOBS, executor, ended.append)
    assert sorted(executor.order) == sorted(task.title for task in JOBS)
    assert executor.most == 2
    for cell, teacher in (("c1", "t1"), ("c2", "t1"), ("c3", "t2")):
        titles = [end.task.title for end in ended]
        assert titles.index(teacher) < titles.index(cell)
    assert not any(end.outcome.failure for end in ended)


def test_a_failure_takes_with_it_what_needs_it_alone() -> None:
    executor, ended = Place(capacity=3, failing=("t1", "c3")), list[TaskResult]()
    run_tasks(JOBS, executor, ended.append)
    failed = {end.task.title: end.outcome.failure for end in ended if end.outcome.failure}
    assert failed == {
        "t1": "broken", "c1": "skipped: its source stage failed", "c2": "skipped: its source stage failed",
        "c3": "broken",
    }  # fmt: skip
    assert len(ended) == len(JOBS)
