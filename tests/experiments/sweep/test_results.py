"""Tables, importance, the best configuration and the page, from trials whose answer is known."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from rich.console import Console

from fourds_dist.config.loading import load
from fourds_dist.experiments.sweep.report import write_results
from fourds_dist.experiments.sweep.results import importance
from fourds_dist.stages.settings import Settings
from tests.experiments.sweep.small import ledger_of, small_plan


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
