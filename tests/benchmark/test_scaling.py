"""The scaling benchmark: its figures hang together."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from fourds_dist.benchmark import scaling


@pytest.mark.slow
def test_one_and_two_workers_on_gloo(tmp_path: Path, capsys) -> None:
    parser = argparse.ArgumentParser()
    scaling.add_arguments(parser)
    networks = "--teacher resnet10 --student resnet10 --image-px 32"
    given = f"{networks} --workers 1 2 --batch 4 --steps 2 --strategies ddp zero1"
    scaling.run(parser.parse_args([*given.split(), "--json", str(tmp_path / "s.json")]))
    found = json.loads((tmp_path / "s.json").read_text())
    rows = found["rows"]
    assert [(r["strategy"], r["workers"]) for r in rows] == [
        ("ddp", 1),
        ("ddp", 2),
        ("zero1", 1),
        ("zero1", 2),
    ]
    for row in rows:
        one = next(r for r in rows if r["strategy"] == row["strategy"])
        assert row["efficiency"] == pytest.approx(row["images_per_s"] / row["workers"] / one["images_per_s"])
        assert min(row["rounds"]) <= row["images_per_s"] <= max(row["rounds"])
    assert rows[0]["communication_share"] is None
    assert rows[0]["host_share"] is None  # GPUs alone
    assert 0 <= rows[1]["communication_share"] < 1
    assert "efficiency" in capsys.readouterr().out
