"""Which trials a sweep begins, ends and goes on with; without Ray."""

from __future__ import annotations

from pathlib import Path

from fourds_dist.runs.failures import StopKind, StopReason
from fourds_dist.sweep.course import Course
from fourds_dist.sweep.ledger import Ledger, Trial
from tests.sweep.formula import accuracy
from tests.sweep.small import small_plan


class Driver:
    """Plays Ray Tune: asks for trials, and tells what became of them."""

    def __init__(self, plan, concurrency: int = 2, ledger: Ledger | None = None) -> None:
        self.told: list[tuple[str, str]] = []
        self.ledger = ledger or Ledger(plan.url, plan.config.mode)
        self.course = Course(
            plan, self.ledger, concurrency, lambda what, trial: self.told.append((what, trial.name))
        )
        self.open: dict[str, Trial] = {}

    def begin(self) -> str | None:
        tune_id = f"tune{len(self.told)}-{len(self.open)}"
        if self.course.is_over or (trial := self.course.next(tune_id)) is None:
            return None
        self.course.started(tune_id)
        self.open[tune_id] = trial
        return tune_id

    def end(self, tune_id: str, *, epochs: int = 4, error: str | None = None) -> None:
        trial = self.open.pop(tune_id)
        for epoch in range(1, epochs + 1):
            value = accuracy(trial.point, epoch)
            self.course.epoch(tune_id, epoch, value, value if epoch == trial.num_epochs else None)
        self.course.ended(tune_id, error)

    def run(self) -> None:
        while True:
            while self.begin():
                pass
            if not self.open:
                return
            self.end(next(iter(self.open)))


def test_as_many_trials_as_the_budget_and_never_more_at_once_than_told(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path, "seeds=2"), concurrency=3)
    first = [driver.begin() for _ in range(5)]
    assert sum(i is not None for i in first) == 3
    driver.run()
    trials = list(driver.ledger.trials.values())
    assert [t.name for t in trials[:3]] == ["small-0000-s5", "small-0000-s6", "small-0001-s5"]
    assert len(trials) == 8
    assert {t.state for t in trials} == {"done"}
    assert trials[0].point == trials[1].point != trials[2].point


def test_the_ledger_holds_what_a_dead_driver_knew(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "seeds=2")
    driver = Driver(plan, concurrency=3)
    ids = [driver.begin() for _ in range(3)]
    driver.end(ids[0])  # the others were running when it died
    points = {t.name: t.point for t in driver.ledger.trials.values()}

    again = Driver(plan, ledger=Ledger.read(plan.url, "max"))
    assert [t.state for t in again.ledger.trials.values()] == ["done", "waiting", "waiting"]
    again.run()
    assert [name for what, name in again.told if what == "started"][:3] == [
        "small-0000-s6",
        "small-0001-s5",
        "small-0001-s6",  # its second seed, which the dead driver did not come to
    ]
    assert len(again.ledger.trials) == 8
    whole = Driver(small_plan(tmp_path, "seeds=2", "name=other"))
    whole.run()
    assert [t.point for t in whole.ledger.trials.values()] == [t.point for t in again.ledger.trials.values()]
    assert all(again.ledger.trials[name].point == point for name, point in points.items())


def test_trials_are_added_to_a_sweep_that_is_done(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path))
    driver.run()
    more = Driver(small_plan(tmp_path, "budget.trials=10"), ledger=Ledger.read(driver.ledger.url, "max"))
    more.run()
    assert len(more.ledger.trials) == 10
    assert len([1 for what, _ in more.told if what == "started"]) == 2


def test_how_trials_end(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path), concurrency=5)
    done, stopped, failed, hopeless, left = (driver.begin() for _ in range(5))
    names = [driver.open[i].name for i in (done, stopped, failed, hopeless, left)]
    driver.end(done)
    driver.end(stopped, epochs=2)
    driver.course.recovers(failed, "was killed")
    driver.end(failed, epochs=1, error="was killed again")
    driver.course.failed(hopeless, "loss is no number")
    driver.end(hopeless, epochs=0)
    driver.course.close(StopReason(StopKind.CTRL_C))
    driver.course.left(left)
    driver.end(left, epochs=1)
    read = Ledger.read(driver.ledger.url, "max")
    assert [read.trials[name].state for name in names] == ["done", "stopped", "failed", "failed", "waiting"]
    assert read.trials[names[2]].failures == ["was killed", "was killed again"]
    assert driver.begin() is None
    assert read.ranked()[0].number == 0  # what ran to its end stands before what did not
    assert {c.number for c in read.ranked()} == {0, 1, 4}


def test_epochs_done_again_count_once() -> None:
    trial = Trial("a", 0, 0, {}, 4, history=[(1, 0.2), (2, 0.5), (3, 0.4)])
    trial.add(2, 0.6)
    assert trial.history == [(1, 0.2), (2, 0.6)]
    assert trial.best("max") == 0.6


def test_optuna_learns_from_what_is_over_also_after_a_stop(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "search=optuna", "budget.trials=30")
    driver = Driver(plan, concurrency=2)
    ids = [driver.begin() for _ in range(2)]
    driver.end(ids[0])
    again = Driver(plan, ledger=Ledger.read(plan.url, "max"))
    again.run()
    configurations = again.ledger.configurations()
    assert len(configurations) == 30

    def distance(numbers: range) -> float:
        best = 1 - 0.5**4
        return sum(best - configurations[n].values[0] for n in numbers) / len(numbers)

    assert distance(range(20, 30)) < 0.6 * distance(range(10))


def test_grids_are_gone_through_once(tmp_path: Path) -> None:
    plan = small_plan(
        tmp_path,
        "space={method.temperature: {grid: [1, 2, 4]}, distill.optim.lr: {grid: [0.1, 0.01]}}",
        "budget.trials=null",
    )
    assert plan.num_trials() == 6
    driver = Driver(plan)
    while tune_id := driver.begin():
        driver.course.failed(tune_id, "not run")
        driver.course.ended(tune_id)
    points = [tuple(t.point.values()) for t in driver.ledger.trials.values()]
    assert len(set(points)) == len(points) == 6
