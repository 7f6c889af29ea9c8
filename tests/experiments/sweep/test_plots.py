"""Charts of a sweep, by what they say and by which of them there are."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from fourds_dist.experiments.sweep import plots
from fourds_dist.reports.charts import Chart
from tests.experiments.sweep.small import ledger_of, small_plan

LR, LOSS, GATE = "distill_stage.optim.lr", "method.phase_loss", "method.gate_reduction"
POINTS = [
    {LR: 0.01, LOSS: "circular"},
    {LR: 0.1, LOSS: "squared", GATE: 8},
    {LR: 0.5, LOSS: "circular"},
]


def texts(chart: Chart) -> set[str]:
    return {
        (node.text or "").strip() for node in ET.fromstring(chart.svg).iter() if node.tag.endswith("text")
    }


def test_progress_tells_the_best_and_how_many_came_to_their_end(tmp_path: Path) -> None:
    for mode, choose in (("max", max), ("min", min)):
        plan = small_plan(tmp_path, f"mode={mode}")
        trial_store = ledger_of(plan, POINTS)
        first, second, third = trial_store.trials.values()
        second.state, second.history = "stopped", second.history[:1]
        third.state, third.history = "failed", []
        best = choose(first.best(mode) or 0.0, second.history[0][1])
        history, curves = plots.progress(plan, trial_store)
        assert (history.name, history.words) == (
            "history", f"val/student of 2 configurations; best {best:.1%}",
        )  # fmt: skip
        assert (curves.name, curves.words) == ("learning_curves", "2 trials, 1 to the end")
        assert {"configuration", "stopped early", "val/student"} <= texts(history)
        assert "epoch" in texts(curves)


def test_importance_lists_the_shares() -> None:
    chart = plots.importance({LR: 0.75, LOSS: 0.25})
    assert chart.words == f"Importance: {LR} 75%, {LOSS} 25%"
    assert {LR, LOSS, "75%", "25%"} <= texts(chart)


def test_keys_with_one_value_have_no_chart(tmp_path: Path) -> None:
    plan = small_plan(tmp_path)
    configurations = ledger_of(plan, POINTS).configurations()
    chart = plots.response(plan, configurations, LOSS)
    assert chart is not None
    assert (chart.name, chart.title) == (f"response-{LOSS}", LOSS)
    assert chart.words == f"val/student over {LOSS}, 3 configurations"
    assert plots.response(plan, configurations, GATE) is None  # one configuration has it
    assert plots.response(plan, configurations[:1], LOSS) is None
    assert plots.parallel(plan, configurations[:1]) is None
    assert plots.parallel(plan, []) is None
    both = plots.parallel(plan, configurations)
    assert both is not None
    assert both.words == f"3 configurations over {LR}, {LOSS}, {GATE}"  # absence of a key is a value
