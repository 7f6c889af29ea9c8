"""Sweeps without Ray: the same trials, early stops, retries and files, through processes or in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.cli.tune import main
from fourds_dist.config.loading import to_yaml
from fourds_dist.config.section import ConfigError
from fourds_dist.experiments.executor.base import Outcome, RunTask, TaskResult
from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.plan import SweepPlan
from fourds_dist.experiments.sweep.task_trials import TaskTrials
from fourds_dist.experiments.sweep.trial_store import TrialStore
from fourds_dist.runs.accuracy import Accuracy
from fourds_dist.runs.events import EpochEnded, Validation, encode
from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.runs.run_folder import RunFolder
from fourds_dist.runs.summary import NetworkResult, RunSummary
from fourds_dist.stages.settings import Settings
from fourds_dist.training.stop_signals import Stopped
from tests.experiments.compare.small import CHANGES, write_domains
from tests.experiments.sweep.formula import NUM_EPOCHS, accuracy
from tests.experiments.sweep.small import small_plan

HERE = ("through=here", "launch.runner=inline", "student.start=random", "teacher.checkpoint=t")
LR = "distill_stage.optim.lr"


class Formula:
    """An executor whose runs report a formula. `fails` gives a run's failure and whether it is permanent, if any."""

    capacity = 2

    def __init__(
        self, fails: Callable[[str, int], tuple[str, bool] | None] = lambda name, attempt: None
    ) -> None:
        self._fails = fails
        self.trials: TaskTrials
        self.order: list[str] = []
        self._results: list[TaskResult] = []

    def start(self, task: RunTask) -> None:
        name = task.settings.run.name
        failure = self._fails(name, self.order.count(name))
        self.order.append(name)
        if failure is not None:
            self._results.append(TaskResult(task, Outcome(failure[0], is_permanent=failure[1])))
            return
        lr = {LR: task.settings.distill_stage.optim.lr}
        lines = []
        for epoch in range(1, NUM_EPOCHS + 1):
            value = Validation(accuracy(lr, epoch))
            event = EpochEnded(
                step=epoch, epoch=epoch, loss=1.0, images_per_s=1.0, validation={"student": value},
                num_evaluated=10, is_best=True, left_s=0.0,
            ).stamped("distill", 0)  # fmt: skip
            lines.append(encode(event))
            RunFolder(task.url).write_text("metrics.jsonl", "\n".join(lines) + "\n")
            if (reason := self.trials.after_epoch(task.url, event)) is not None:
                self._results.append(TaskResult(task, Outcome(stopped=reason)))
                return
        student = NetworkResult("student", 1, None, Accuracy(5, 10, 1.0))
        summary = RunSummary("x", (student,), 0.2, 4, 0.5, 32.0, 1)
        RunFolder(task.url).write_json("summary.json", summary.as_dict())
        self._results.append(TaskResult(task, Outcome()))

    def wait(self, timeout_s: float | None = None) -> TaskResult | None:
        return self._results.pop(0)

    def end(self, grace_s: float) -> None:
        self._results.clear()


def run(
    plan: SweepPlan, executor: Formula, *, seconds_left: float | None = None
) -> tuple[TrialStore, StopReason | None, list[Any]]:
    trial_store, shown = TrialStore.read(plan.url, plan.config.mode), []
    executor.trials = trials = TaskTrials(plan)
    trials.executor = executor
    controller = SweepController(plan, trial_store, trials.capacity, lambda what, trial: None)
    reason = trials.run(controller, shown.extend, lambda: None, seconds_left)
    return trial_store, reason, shown


def test_all_trials_of_the_budget_end(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, *HERE)
    trial_store, reason, _ = run(plan, Formula())
    assert reason is None
    trials = list(trial_store.trials.values())
    assert [t.state for t in trials] == ["done"] * 8
    assert all(t.history == [(e, accuracy({LR: t.params[LR]}, e)) for e in range(1, 5)] for t in trials)
    assert {t.tested for t in trials} == {0.5}
    assert TrialStore.read(plan.url, "max").trials == trial_store.trials


def test_asha_stops_bad_trials_also_after_a_new_start(tmp_path: Path) -> None:
    words = (
        *HERE,
        "scheduler={name: asha, reduction_factor: 2}",
        f"space={{{LR}: {{grid: [0.03, 0.3, 1.0, 0.001]}}}}",
    )
    first, _, _ = run(small_plan(tmp_path, *words, "budget.trials=2"), Formula())
    assert [(t.state, t.epoch) for t in first.trials.values()] == [("done", 4), ("stopped", 1)]
    both, _, _ = run(small_plan(tmp_path, *words, "budget.trials=4"), Formula())
    assert [(t.state, t.epoch) for t in both.trials.values()] == [("done", 4), *[("stopped", 1)] * 3]


def test_median_stopping(tmp_path: Path) -> None:
    words = (
        *HERE,
        "scheduler={name: median, min_trials: 1}",
        f"space={{{LR}: {{grid: [0.03, 1.0]}}}}",
        "budget.trials=2",
    )
    trial_store, _, _ = run(small_plan(tmp_path, *words), Formula())
    assert [t.state for t in trial_store.trials.values()] == ["done", "stopped"]


def test_failures_are_retried_unless_they_are_permanent(tmp_path: Path) -> None:
    failures = {
        "small-0001-s5": [("the disk is full", False)],
        "small-0002-s5": [("the disk is full", False)] * 2,
        "small-0003-s5": [("the loss is no number", True)],
    }

    def fails(name: str, attempt: int) -> tuple[str, bool] | None:
        return dict(enumerate(failures.get(name, []))).get(attempt)

    executor = Formula(fails)
    trial_store, _, _ = run(small_plan(tmp_path, *HERE, "budget.trials=5"), executor)
    trials = list(trial_store.trials.values())
    assert [t.state for t in trials] == ["done", "done", "failed", "failed", "done"]
    assert [len(t.failures) for t in trials] == [0, 1, 2, 1, 0]
    assert executor.order.count("small-0003-s5") == 1


def test_trials_share_a_teacher_and_one_that_fails_is_trained_again(tmp_path: Path) -> None:
    executor = Formula(
        lambda name, attempt: ("no room", False) if name.startswith("source-") and not attempt else None
    )
    plan = small_plan(tmp_path, "through=here", "launch.runner=inline", "budget.trials=3")
    trial_store, _, shown = run(plan, executor)
    source = executor.order[0]
    assert executor.order.count(source) == 2
    assert [event.text for name, event in shown if name == source and not isinstance(event, EpochEnded)] == [
        "no room"
    ]
    assert [t.state for t in trial_store.trials.values()] == ["done"] * 3
    assert [len(t.failures) for t in trial_store.trials.values()] == [1, 1, 0]


def test_a_budget_of_epochs_or_hours_leaves_trials_for_later(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, *HERE, "budget.epochs=6")
    one_at_a_time = Formula()
    one_at_a_time.capacity = 1
    trial_store, reason, _ = run(plan, one_at_a_time)
    assert reason == StopReason(StopKind.BUDGET_EPOCHS)
    assert [(t.state, t.epoch) for t in trial_store.trials.values()] == [("done", 4), ("waiting", 2)]
    trial_store, reason, _ = run(small_plan(tmp_path, *HERE), Formula(), seconds_left=-1.0)
    assert reason == StopReason(StopKind.BUDGET_HOURS)
    trial_store, reason, _ = run(small_plan(tmp_path, *HERE), Formula())
    assert reason is None
    assert [t.state for t in trial_store.trials.values()] == ["done"] * 8


def test_ctrl_c_leaves_trials_for_later(tmp_path: Path) -> None:
    class Interrupted(Formula):
        def wait(self, timeout_s: float | None = None) -> TaskResult | None:
            raise KeyboardInterrupt

    plan = small_plan(tmp_path, *HERE)
    trial_store, reason, _ = run(plan, Interrupted())
    assert reason == StopReason(StopKind.CTRL_C)
    assert [t.state for t in trial_store.trials.values()] == ["waiting"] * 2
    trial_store, _, _ = run(plan, Formula())
    assert [t.state for t in trial_store.trials.values()] == ["done"] * 8


def test_a_point_that_no_run_can_have_fails_by_name(tmp_path: Path) -> None:
    plan = small_plan(
        tmp_path, *HERE, "data={crop_px: 8, resize_px: 64}", "budget.trials=null",
        "space={data.crop_px: {grid: [8, 64]}, data.resize_px: {grid: [32, 64]}}",
    )  # fmt: skip
    trial_store, _, _ = run(plan, Formula())
    states = {tuple(t.params.values()): t.state for t in trial_store.trials.values()}
    assert states == {(8, 32): "done", (8, 64): "done", (64, 32): "failed", (64, 64): "done"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("through=here",), r"through=here: .*give launch.runner=inline$"),
        (("through=processes", "launch.workers=3"), r"give launch.runner=inline launch.workers=1$"),
        (("through=processes", "launch={runner: inline, workers: [1, 2]}"), r"give launch.workers=1$"),
        ((*HERE, "max_concurrent_trials=2"), "max_concurrent_trials: 2 needs through=ray or processes"),
        ((*HERE, "scheduler.name=hyperband"), "hyperband pauses trials, which through=here does not"),
        (("through=cluster",), "through: "),
    ],
)
def test_refused(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small_plan(tmp_path, *words)


def sweep_file(folder: Path, *, through: str) -> list[str]:
    """A sweep that trains: two learning rates, the second of which stops early."""
    domains = write_domains(folder, "a", "b")
    given = {
        "name": "small",
        "through": through,
        "changes": CHANGES | {"source": {"url": domains["a"]}, "target": {"url": domains["b"]}},
        "space": {LR: {"grid": [0.05, 1e-9]}},
        "scheduler": {"name": "none"},
    }
    (folder / "sweep.yaml").write_text(to_yaml(given))
    return [str(folder / "sweep.yaml"), f"run.dir={folder}/runs"]


def states(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        file.parent.name: (known["state"], len(known["history"]))
        for file in sorted(folder.glob("runs/small/trials/*/trial.json"))
        if (known := json.loads(file.read_text()))
    }


def test_a_sweep_that_trains_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = sweep_file(tmp_path, through="here")
    assert main([*words, "budget.trials=1"]) == 0
    out = capsys.readouterr().out
    assert "small-0000-s0: done, val/student" in out
    assert "a teacher" not in out
    folder = tmp_path / "runs" / "small"
    (teacher,) = (folder / "teachers").iterdir()
    assert f"{teacher.name}: epoch 1, validation teacher" in out
    assert main([*words, "budget.trials=2", "--resume"]) == 0
    assert states(tmp_path) == {"small-0000-s0": ("done", 1), "small-0001-s0": ("done", 1)}
    stages = {
        json.loads(line)["stage"]
        for line in (folder / "trials/small-0001-s0/metrics.jsonl").read_text().splitlines()
    }
    assert stages == {"distill"}
    assert not (folder / "trials/small-0001-s0/distill").exists()
    assert (folder / "best.yaml").exists()
    assert (folder / "report.html").exists()


def test_ctrl_c_ends_the_command_with_a_way_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(settings: Settings, **given: Any) -> None:
        raise Stopped(StopReason(StopKind.CTRL_C), 7)

    monkeypatch.setattr("fourds_dist.experiments.executor.base.run", stopped)
    assert main(sweep_file(tmp_path, through="here")) == 130
    out = capsys.readouterr().out
    assert "small-0000-s0: left after epoch 0, to go on later" in out
    assert "ended by Ctrl-C, 1 trial before the end; `python -m fourds_dist.tune --resume" in out
    assert states(tmp_path) == {"small-0000-s0": ("waiting", 0)}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_that_trains_in_processes(tmp_path: Path) -> None:
    words = [*sweep_file(tmp_path, through="processes"), "distill_stage.epochs=4"]
    words += ["scheduler={name: asha, reduction_factor: 2}", "max_concurrent_trials=1"]
    assert main([*words, "budget.trials=1"]) == 0
    first = tmp_path / "runs" / "small" / "trials" / "small-0000-s0" / "trial.json"
    known = json.loads(first.read_text())
    assert (known["state"], len(known["history"])) == ("done", 4)
    first.write_text(
        json.dumps(known | {"history": [[e, 0.95] for e in (1, 2, 3, 4)]})
    )  # which none will reach
    assert main([*words, "budget.trials=2", "--resume"]) == 0
    assert states(tmp_path)["small-0001-s0"] == ("stopped", 1)
