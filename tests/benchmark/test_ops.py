"""`benchmark ops`: the table, the JSON beside it, and what its figures mean."""

import json
from pathlib import Path

import pytest

from fourds_dist.benchmark.__main__ import main

SMALL = [
    "ops",
    "--device",
    "cpu",
    "--batch",
    "1",
    "--sizes",
    "2x7x7",
    "--dtypes",
    "float32",
    "--repeats",
    "2",
]


def test_every_form_of_every_operator_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--json", str(tmp_path / "ops.json")])
    shown = capsys.readouterr().out
    record = json.loads((tmp_path / "ops.json").read_text())
    assert record["device"] in shown
    forms = {(row["operator"], row["form"]) for row in record["rows"]}
    operators = ("fourier_mix", "pooled_phase", "phase_distance")
    assert forms == {(o, f) for o in operators for f in ("released form", "half spectrum", "floor (copies)")}
    for row in record["rows"]:
        assert row["operator"] in shown
        assert row["hot_ms"] > 0
        if row["form"] == "floor (copies)":
            assert row["times_floor_hot"] == row["times_floor_cold"] == pytest.approx(1.0)
        if row["form"] == "released form":
            assert row["speedup_hot"] == pytest.approx(1.0)


def test_an_unknown_benchmark_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["operators"])
    assert "ops" in capsys.readouterr().err
