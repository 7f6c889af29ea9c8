"""The files that a sweep leaves, also where there is little to compare."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from rich.console import Console

from fourds_dist.experiments.sweep.report import write_results
from tests.experiments.sweep.small import ledger_of, small_plan


def test_nothing_to_compare_is_said_and_nothing_drawn(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    trial_store = ledger_of(plan, [])
    console = Console(file=io.StringIO())
    write_results(plan, trial_store, console)
    assert "nothing to compare" in console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert not Path(plan.url, "best.yaml").exists()


def test_charts_of_few_stopped_and_failed_trials(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    lr, loss, gate = plan.space.parameters
    points = [{lr: 0.01, loss: "circular"}, {lr: 0.02, loss: "squared", gate: 8}, {lr: 0.5, loss: "circular"}]
    trial_store = ledger_of(plan, points)
    _, stopped, failed = trial_store.trials.values()
    stopped.history, stopped.state, stopped.tested = stopped.history[:1], "stopped", None
    failed.history, failed.state, failed.tested = [], "failed", None
    before = dict(mpl.rcParams), mpl.get_backend()
    write_results(plan, trial_store, Console(file=io.StringIO()))
    assert (dict(mpl.rcParams), mpl.get_backend()) == before
    assert not plt.get_fignums()
    names = {path.name for path in Path(plan.url, "report").iterdir()}
    varied = {f"response-{lr}.png", f"response-{loss}.png"}  # the third key has one value
    assert names == {"history.png", "learning_curves.png", "parallel.png", *varied}
    page = Path(plan.url, "report.html").read_text()
    assert "stopped early" in page
    assert "mathdefault" not in page

    alone = small_plan(tmp_path, "name=alone")
    write_results(alone, ledger_of(alone, points[:1]), Console(file=io.StringIO()))
    assert {p.name for p in Path(alone.url, "report").iterdir()} == {"history.png", "learning_curves.png"}
    assert "No key has two values yet" in Path(alone.url, "report.html").read_text()


def test_trials_are_counted_by_state_and_failures_are_listed(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    lr, loss, _ = plan.space.parameters
    trial_store = ledger_of(plan, [{lr: 0.01 * (n + 1), loss: "circular"} for n in range(5)])
    _, stopped, failed, running, _ = trial_store.trials.values()
    stopped.state, stopped.history = "stopped", stopped.history[:2]
    failed.state, failed.history, failed.failures = "failed", [], ["the loss is <nan>", "again"]
    running.state, running.history = "running", running.history[:1]
    out = io.StringIO()
    write_results(plan, trial_store, Console(file=out, width=200))
    counts = (
        "small: 5 trials, 2 done, 1 stopped early, 1 left out, 1 not at their end; 11 of 20 epochs trained"
    )
    assert counts in out.getvalue()
    page = Path(plan.url, "report.html").read_text()
    assert counts in page
    assert "the loss is &lt;nan&gt;; again" in page
    best = max(t.history[-1][1] for t in trial_store.trials.values() if t.history)
    assert f"Best: configuration {trial_store.ranked()[0].number:04d} with val/student {best:.1%}" in page
