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


def test_shares_that_were_not_measured_are_dashes() -> None:
    row = scaling.ScalingResult("zero1", "strong", 4, 64, 1234.5, [1234.5], 3 << 30, efficiency=0.875)
    words = " ".join(scaling.shown(row).split())
    assert words == (
        "strong zero1 4 x 64 1234.5 images/s efficiency 87.5% communication - exposed - host - 3.00 GiB"
    )


def test_strong_scaling_shares_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Efficiencies refer to the one worker of the same strategy, whatever the order of --workers."""
    given: list[scaling.ScalingCase] = []

    def measured(case: scaling.ScalingCase) -> scaling.ScalingResult:
        given.append(case)
        rate = 100.0 * case.workers**0.5
        return scaling.ScalingResult(
            case.strategy, case.scaling, case.workers, case.batch_per_worker, rate, [rate], 0
        )

    monkeypatch.setattr(scaling, "measure", measured)
    parser = argparse.ArgumentParser()
    scaling.add_arguments(parser)
    words = "--workers 4 1 --batch 10 --scaling strong weak --teacher resnet10 --student resnet10 --cuda-graph false"
    scaling.run(parser.parse_args(words.split()))
    assert [(case.scaling, case.workers, case.batch_per_worker) for case in given] == [
        ("strong", 1, 10), ("strong", 4, 2), ("weak", 1, 10), ("weak", 4, 10),
    ]  # fmt: skip
    assert {case.cuda_graph for case in given} == {False}
    lines = capsys.readouterr().out.splitlines()
    assert ["100.0%" in line or "50.0%" in line for line in lines] == [True] * 4
    assert " 50.0%" in lines[1]
