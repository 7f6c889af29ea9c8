"""Tables, importance, the best configuration and the page, from trials whose answer is known."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fourds_dist.config.loading import load
from fourds_dist.experiments.sweep.plots import Scale
from fourds_dist.experiments.sweep.report import write_results
from fourds_dist.experiments.sweep.results import importance
from fourds_dist.experiments.sweep.space import SearchDimension
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


def test_places_on_an_axis() -> None:
    lr = Scale(SearchDimension(loguniform=(0.001, 1.0)))
    assert [lr.place(v) for v in (0.001, 0.0316227766, 1.0)] == pytest.approx([0, 0.5, 1])
    kind = Scale(SearchDimension(choice=(True, 1, "x")))
    assert [kind.place(v) for v in (True, 1, "x")] == [0, 0.5, 1]
