"""Trials that a sweep starts, stops and resumes; without Ray."""

from __future__ import annotations

from pathlib import Path

from fourds_dist.experiments.sweep.controller import SweepController
from fourds_dist.experiments.sweep.trial_store import Trial, TrialStore
from fourds_dist.runs.failures import StopKind, StopReason
from tests.experiments.sweep.formula import accuracy
from tests.experiments.sweep.small import small_plan


class Driver:
    """Stands in for Ray Tune: requests trials and reports their results."""

    def __init__(self, plan, max_concurrent_trials: int = 2, trial_store: TrialStore | None = None) -> None:
        self.told: list[tuple[str, str]] = []
        self.trial_store = trial_store or TrialStore(plan.url, plan.config.mode)
        self.controller = SweepController(
            plan,
            self.trial_store,
            max_concurrent_trials,
            lambda what, trial: self.told.append((what, trial.name)),
        )
        self.open: dict[str, Trial] = {}

    def begin(self) -> str | None:
        tune_id = f"tune{len(self.told)}-{len(self.open)}"
        if self.controller.is_over or (trial := self.controller.next(tune_id)) is None:
            return None
        self.controller.started(tune_id)
        self.open[tune_id] = trial
        return tune_id

    def end(self, tune_id: str, *, epochs: int = 4, error: str | None = None) -> None:
        trial = self.open.pop(tune_id)
        for epoch in range(1, epochs + 1):
            value = accuracy(trial.params, epoch)
            self.controller.epoch(tune_id, epoch, value, value if epoch == trial.num_epochs else None)
        self.controller.ended(tune_id, error)

    def run(self) -> None:
        while True:
            while self.begin():
                pass
            if not self.open:
                return
            self.end(next(iter(self.open)))


def test_a_trial_without_test_labels_is_done_after_its_last_epoch(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path))
    tune_id = driver.begin()
    assert tune_id is not None
    driver.controller.epoch(tune_id, 4, -0.5, None, is_last=True)
    trial = driver.open[tune_id]
    assert (trial.state, trial.tested, trial.history) == ("done", None, [(4, -0.5)])


def test_number_of_trials_and_of_concurrent_trials(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path, "seeds=2"), max_concurrent_trials=3)
    first = [driver.begin() for _ in range(5)]
    assert sum(i is not None for i in first) == 3
    driver.run()
    trials = list(driver.trial_store.trials.values())
    assert [t.name for t in trials[:3]] == ["small-0000-s5", "small-0000-s6", "small-0001-s5"]
    assert len(trials) == 8
    assert {t.state for t in trials} == {"done"}
    assert trials[0].params == trials[1].params != trials[2].params


def test_the_trial_store_holds_the_state_of_a_dead_driver(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "seeds=2")
    driver = Driver(plan, max_concurrent_trials=3)
    ids = [driver.begin() for _ in range(3)]
    driver.end(ids[0])  # the others were running when it died
    points = {t.name: t.params for t in driver.trial_store.trials.values()}

    again = Driver(plan, trial_store=TrialStore.read(plan.url, "max"))
    assert [t.state for t in again.trial_store.trials.values()] == ["done", "waiting", "waiting"]
    again.run()
    assert [name for what, name in again.told if what == "started"][:3] == [
        "small-0000-s6",
        "small-0001-s5",
        "small-0001-s6",  # its second seed, which the dead driver did not come to
    ]
    assert len(again.trial_store.trials) == 8
    whole = Driver(small_plan(tmp_path, "seeds=2", "name=other"))
    whole.run()
    assert [t.params for t in whole.trial_store.trials.values()] == [
        t.params for t in again.trial_store.trials.values()
    ]
    assert all(again.trial_store.trials[name].params == params for name, params in points.items())


def test_trials_are_added_to_a_sweep_that_is_done(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path))
    driver.run()
    more = Driver(
        small_plan(tmp_path, "budget.trials=10"), trial_store=TrialStore.read(driver.trial_store.url, "max")
    )
    more.run()
    assert len(more.trial_store.trials) == 10
    assert len([1 for what, _ in more.told if what == "started"]) == 2


def test_how_trials_end(tmp_path: Path) -> None:
    driver = Driver(small_plan(tmp_path), max_concurrent_trials=5)
    done, stopped, failed, hopeless, left = (driver.begin() for _ in range(5))
    names = [driver.open[i].name for i in (done, stopped, failed, hopeless, left)]
    driver.end(done)
    driver.end(stopped, epochs=2)
    driver.controller.recovers(failed, "was killed")
    driver.end(failed, epochs=1, error="was killed again")
    driver.controller.failed(hopeless, "loss is no number")
    driver.end(hopeless, epochs=0)
    driver.controller.close(StopReason(StopKind.CTRL_C))
    driver.controller.left(left)
    driver.end(left, epochs=1)
    read = TrialStore.read(driver.trial_store.url, "max")
    assert [read.trials[name].state for name in names] == ["done", "stopped", "failed", "failed", "waiting"]
    assert read.trials[names[2]].failures == ["was killed", "was killed again"]
    assert driver.begin() is None
    assert read.ranked()[0].number == 0  # what ran to its end stands before what did not
    assert {c.number for c in read.ranked()} == {0, 1, 4}


def test_optuna_learns_from_what_is_over_also_after_a_stop(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, "search=optuna", "budget.trials=30")
    driver = Driver(plan, max_concurrent_trials=2)
    ids = [driver.begin() for _ in range(2)]
    driver.end(ids[0])
    again = Driver(plan, trial_store=TrialStore.read(plan.url, "max"))
    again.run()
    configurations = again.trial_store.configurations()
    assert len(configurations) == 30

    def distance(numbers: range) -> float:
        best = 1 - 0.5**4
        return sum(best - configurations[n].values[0] for n in numbers) / len(numbers)

    assert distance(range(20, 30)) < 0.6 * distance(range(10))


def test_grids_are_gone_through_once(tmp_path: Path) -> None:
    plan = small_plan(
        tmp_path,
        "space={method.temperature: {grid: [1, 2, 4]}, distill_stage.optim.lr: {grid: [0.1, 0.01]}}",
        "budget.trials=null",
    )
    assert plan.num_trials() == 6
    driver = Driver(plan)
    while tune_id := driver.begin():
        driver.controller.failed(tune_id, "not run")
        driver.controller.ended(tune_id)
    points = [tuple(t.params.values()) for t in driver.trial_store.trials.values()]
    assert len(set(points)) == len(points) == 6
