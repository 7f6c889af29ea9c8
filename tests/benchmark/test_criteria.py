"""The regret of criteria, from runs whose numbers are known."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from fourds_dist.benchmark import criteria
from fourds_dist.runs.events import EpochEnded, Validation
from tests.reports.written_run import write_run


def epoch(number: int, accuracy: float | None, **values: float) -> EpochEnded:
    return EpochEnded(
        step=number, epoch=number, loss=1.0, images_per_s=1.0, num_evaluated=40, is_best=True, left_s=0.0,
        validation={"student": Validation(accuracy, criteria=values)},
    ).stamped("distill", 0)  # fmt: skip


def test_regrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = tmp_path / "comparison" / "cells"
    write_run(cells / "a", {"student": 20}, [
        epoch(1, 0.5, entropy=-2.0, snd=1.0), epoch(2, 0.7, entropy=-1.0, snd=3.0),
        epoch(3, 0.6, entropy=-1.0, snd=4.0),
    ])  # fmt: skip
    write_run(
        cells / "b", {"student": 20}, [epoch(1, 0.9, entropy=-1.0, snd=1.0), epoch(2, 0.8, entropy=-1.5)]
    )
    write_run(cells / "labelled", {"student": 20}, [epoch(1, 0.9)])  # computed no criteria
    write_run(cells / "unlabelled", {"student": 20}, [epoch(1, None, entropy=-1.0)])
    options = argparse.Namespace(folder=str(tmp_path / "comparison"), json=tmp_path / "out.json")
    criteria.run(options)
    found = {(each["run"], each["criterion"]): each for each in json.loads(options.json.read_text())}
    assert {name for name, _ in found} == {"a", "b"}
    # The first of equal values; a value that is missing is the lowest.
    chosen = {key: (each["epoch"], pytest.approx(each["regret"])) for key, each in found.items()}
    assert chosen == {
        ("a", "entropy"): (2, 0.0),
        ("a", "snd"): (3, 0.1),
        ("a", criteria.LAST): (3, 0.1),
        ("b", "entropy"): (1, 0.0),
        ("b", "snd"): (1, 0.0),
        ("b", criteria.LAST): (2, 0.1),
    }
    assert found["a", "snd"]["correlation"] == pytest.approx(0.5)
    table = capsys.readouterr().out.splitlines()
    assert table[2] == "| `entropy` | 0.00 | 0.00 | 2 of 2 | +0.93 |"
    assert table[3].startswith("| `snd` | 5.00 | 10.00 | 1 of 2 |")
    assert table[4].startswith("| last epoch | 10.00 |")
    with pytest.raises(ValueError, match=r"no run with validation accuracies .* set run\.criteria=all"):
        criteria.run(argparse.Namespace(folder=str(cells / "labelled"), json=None))
