"""The time of a question over several starts."""

from __future__ import annotations

import time
from pathlib import Path

from fourds_dist.experiments.advise.clock import RESERVE, BudgetClock
from fourds_dist.runs.run_folder import RunFolder


def test_time_counts_over_all_starts(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    clock = BudgetClock(folder, "spent.json", 100)
    with clock.running():
        time.sleep(0.05)
    again = BudgetClock(folder, "spent.json", 200)
    assert 0.05 <= again.spent_s < 100
    assert 200 * (1 - RESERVE) - 100 < again.left_s < 200 * (1 - RESERVE) - 0.05
    folder.write_json("spent.json", {"seconds": 500})
    assert BudgetClock(folder, "spent.json", 100).left_s < 0
    assert BudgetClock(folder, "spent.json", 100).end_s < time.time()
