"""A stage as a Ray Train run, and its end with whoever drives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fourds_dist.config import load
from fourds_dist.settings import Settings
from tests.compare.small import CHANGES, write_domains


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_the_workers_of_a_trial_that_its_scheduler_stops_go_with_it(local_ray: None, tmp_path: Path) -> None:
    from fourds_dist.launch.ray_train import run_stage_on_ray

    source = write_domains(tmp_path, "source")["source"]
    words = [f"{key}={value}" for key, value in CHANGES.items() if key != "launch"]
    words += [f"source.url={source}", "source_stage.epochs=100000", "run.until=source", f"run.dir={tmp_path}"]
    rows: list[dict[str, Any]] = []

    def meanwhile() -> None:
        if any(row["event"] == "saved" for row in rows):
            raise SystemExit  # as Ray Tune does in a report

    with pytest.raises(SystemExit):
        run_stage_on_ray("source", load(Settings, None, words), rows.append, meanwhile)
    events = [json.loads(x)["event"] for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert events.count("start") == 1
    assert events[-1] == "stopped"
