"""The tasks of a comparison, in their order, and its finished runs."""

from __future__ import annotations

from pathlib import Path

from fourds_dist.experiments.compare.pending import finished_runs, pending_tasks
from fourds_dist.runs.run_folder import RunFolder
from tests.experiments.compare.small import comparison


def test_one_seed_comes_before_the_next(tmp_path: Path) -> None:
    tasks = pending_tasks(comparison(tmp_path, {"a": "shards/a", "b": "shards/b"}, seeds=[5, 3]))
    assert [task.settings.run.seed for task in tasks] == [5] * 8 + [3] * 8
    assert [task.needs is None for task in tasks] == 2 * ([True] * 2 + [False] * 6)


def test_runs_that_are_done_have_no_task(tmp_path: Path) -> None:
    plan = comparison(tmp_path, {"a": "shards/a", "b": "shards/b"}, pairs=[["a", "b"]])
    (source,) = {run.run_url for run in plan.sources.values()}
    first, second, third = (run.run_url for run in plan.runs.values())
    tasks = pending_tasks(plan)
    assert [(task.url, task.needs) for task in tasks] == [
        (source, None),
        *((cell, source) for cell in (first, second, third)),
    ]
    assert [task.title for task in tasks[:2]] == ["teacher for a, seed 0", "a -> b, all, seed 0, 4ds"]
    assert finished_runs(plan, tasks) == []

    RunFolder(source).write_json("source.json", {})
    RunFolder(second).write_json("summary.json", {})
    tasks = pending_tasks(plan)
    assert [task.url for task in tasks] == [first, third]
    assert finished_runs(plan, tasks) == sorted([source, second])


def test_a_source_stage_of_finished_cells_does_not_run(tmp_path: Path) -> None:
    plan = comparison(tmp_path, {"a": "shards/a", "b": "shards/b"})
    for cell, run in plan.runs.items():
        if cell.source == "a":
            RunFolder(run.run_url).write_json("summary.json", {})
    assert {plan.sources[cell].run_url for cell in plan.runs if cell.source == "b"} == {
        task.url for task in pending_tasks(plan) if task.title.startswith("teacher")
    }
