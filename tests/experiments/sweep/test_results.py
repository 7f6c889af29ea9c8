"""Tables, importance, the best configuration and the page, from trials whose answer is known."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot as plt
from rich.console import Console

from fourds_dist.config.loading import load
from fourds_dist.experiments.sweep.report import write_results
from fourds_dist.experiments.sweep.results import importance
from fourds_dist.experiments.sweep.trial_store import Configuration, Trial
from fourds_dist.stages.settings import Settings
from tests.experiments.sweep.small import ledger_of, small_plan


def test_mean_and_spread_over_seeds() -> None:
    trials = tuple(
        Trial(f"a{i}", 0, i, {}, 2, state="done", history=[(1, v), (2, v - 0.1)])
        for i, v in enumerate((0.5, 0.6, 0.7))
    )
    failed = Trial("b", 0, 3, {}, 2, state="failed", history=[(1, 0.1)])
    both = Configuration(0, (*trials, failed), "max")
    assert both.mean == pytest.approx(0.6)
    assert both.spread == pytest.approx(0.1)
    assert Configuration(0, (failed,), "max").mean is None
    cut = Trial("c", 0, 4, {}, 2, state="stopped", history=[(1, 0.9)])
    assert Configuration(0, (*trials, cut), "max").mean == pytest.approx(
        0.6
    )  # one that was not trained to its end


def test_what_a_sweep_leaves(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    rng = np.random.default_rng(3)
    trial_store = ledger_of(plan, [plan.space.draw(rng) for _ in range(24)], seeds=2)
    shares = importance(plan, trial_store.configurations())
    assert next(iter(shares)) == "distill_stage.optim.lr"
    assert shares["distill_stage.optim.lr"] > 0.8
    assert set(shares) == set(plan.space.parameters)  # also the key that only some configurations have

    console = Console(file=io.StringIO(), width=160)
    write_results(plan, trial_store, console)
    folder = Path(plan.url)
    told = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    best = trial_store.ranked()[0]
    assert f"{best.number:04d}" in told
    assert "± 0.0" in told
    assert f"python -m fourds_dist.train {folder}/best.yaml" in told

    settings = load(Settings, folder / "best.yaml")
    assert settings.distill_stage.optim.lr == best.params["distill_stage.optim.lr"]
    assert settings.run.name == "small-best"
    assert settings.distill_stage.epochs == 4

    rows = list(csv.DictReader(io.StringIO((folder / "trials.csv").read_text())))
    assert len(rows) == 48
    assert {row["state"] for row in rows} == {"done"}
    page = (folder / "report.html").read_text()
    assert f"configuration {best.number:04d}" in page
    charts = {path.name for path in (folder / "report").iterdir()}
    assert charts == {
        "history.png",
        "learning_curves.png",
        "importance.png",
        "parallel.png",
        *(f"response-{key}.png" for key in plan.space.parameters),
    }


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
