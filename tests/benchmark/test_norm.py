"""`benchmark norm`: the tables, the JSON, and what the figures mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fourds_dist.benchmark import norm
from fourds_dist.benchmark.__main__ import main
from fourds_dist.benchmark.profile import kind_of

SMALL = ["norm", "--device", "cpu", "--repeats", "2", "--batches", "2", "--dtype", "float32"]


def test_every_form_is_timed_beside_the_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forms = ["--forms", "torch", "cudnn", "eager", "fused"]
    main(
        [*SMALL, "--sizes", "8x7x7", "16x2x3", *forms, "--steps", "0", "--json", str(tmp_path / "norm.json")]
    )
    shown, record = capsys.readouterr().out, json.loads((tmp_path / "norm.json").read_text())
    assert record["device"] in shown
    found = {(r["size"], r["residual"], r["form"]) for r in record["rows"]}
    on_cpu = ("torch", "eager", norm.FLOOR)  # cuDNN and the kernels need a GPU
    assert found == {(s, r, f) for s in ("8x7x7", "16x2x3") for r in (False, True) for f in on_cpu}
    for row in record["rows"]:
        assert row["forward_hot_ms"] > 0
        if row["form"] == norm.FLOOR:
            assert row["forward_times_floor"] == row["total_times_floor"] == pytest.approx(1.0)
            maps = (4, 6) if row["residual"] else (3, 5)
            assert row["forward_hot_ms"] / row["backward_hot_ms"] == pytest.approx(maps[0] / maps[1])
    assert record["steps"] == []


def test_all_forms_compute_the_same() -> None:
    layer = norm.Layer((2, 8, 5, 5), torch.float32, torch.device("cpu"))
    for residual in (False, True):
        results = [layer.both(form, residual=residual)() for form in ("torch", "eager")]
        for x, y in zip(*results, strict=True):  # pyright: ignore[reportArgumentType]
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_steps_and_the_teacher_are_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--sizes", "--image-size", "32", "--steps", "1", "--json", str(tmp_path / "norm.json")])
    shown, record = capsys.readouterr().out, json.loads((tmp_path / "norm.json").read_text())
    assert [row["form"] for row in record["steps"]] == list(norm.STEP_ROWS)
    assert all(row["images_per_s"] > 0 for row in record["steps"])
    assert record["steps"][3]["speed_over_ceiling"] == pytest.approx(
        record["steps"][3]["images_per_s"] / record["steps"][1]["images_per_s"]
    )
    assert set(record["teacher_ms"]["2"]) == {"torch", "fused", "folded"}
    assert "frozen ResNet34" in shown


@pytest.mark.parametrize(
    "kernel",
    ["statistics", "merge_statistics", "normalise", "sum_gradients", "merge_gradients", "input_gradient"],
)
def test_the_profile_knows_the_kernels(kernel: str) -> None:
    assert kind_of(kernel) == kind_of("fourds::norm_act") == "BatchNorm"
    assert kind_of("fourds::fourier_mix") == "Fourier"
