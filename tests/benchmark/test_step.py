"""`benchmark step` and `benchmark profile`: lines, JSON and what their figures mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fourds_dist.benchmark.__main__ import main
from fourds_dist.benchmark.step import FORMS, StepResult, build_task, compared
from fourds_dist.method.adapter import FourierAdapter
from fourds_dist.ops import use_backend

SMALL = ["--device", "cpu", "--image-size", "32", "--steps", "1"]


def row(form: str, images_per_s: float, peak_bytes: int) -> StepResult:
    rounds = [images_per_s]
    return StepResult(
        form, 8, images_per_s, rounds, host_ms=1.0, peak_bytes=peak_bytes, tensor_bytes=peak_bytes // 2
    )


def test_ratios_refer_to_the_released_form_and_to_the_ceiling_of_the_same_kind() -> None:
    rows = [row("released", 10, 300), row("ceiling", 50, 90), row("ceiling-compiled", 80, 80)]
    others = {r.form: r for r in rows}
    fast, compiled = (compared(row(form, 40, 100), others) for form in ("fast", "fast-compiled"))
    assert (fast.speed_over_released, fast.speed_over_ceiling) == (4.0, 0.8)
    assert compiled.speed_over_ceiling == 0.5
    assert fast.memory_over_released == pytest.approx(1 / 3)
    assert fast.tensors_over_released == pytest.approx(1 / 6)
    alone = compared(row("fast", 40, 100), {})
    assert alone.speed_over_released is alone.speed_over_ceiling is alone.memory_over_released is None


def test_the_ceiling_has_the_adapters_convolutions_and_no_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, ceiling = (build_task(FORMS[name], 32) for name in ("fast", "ceiling"))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in ceiling.parameters()]

    def forbidden(*_: object) -> None:
        raise AssertionError("a transform")

    monkeypatch.setattr("fourds_dist.ops.half_spectrum.spectrum", forbidden)
    monkeypatch.setattr("fourds_dist.ops.reference.spectrum", forbidden)
    batch = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    ceiling(*batch).loss.backward()
    assert all(p.grad is not None for p in ceiling.adapters.parameters())
    with pytest.raises(AssertionError, match="a transform"), use_backend("reference"):
        ours(*batch)
    assert type(ours.adapters[0]) is FourierAdapter


@pytest.mark.slow
def test_every_row_is_timed_and_written_as_it_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["step", *SMALL, "--batches", "2", "--json", str(tmp_path / "step.json")])
    record = json.loads((tmp_path / "step.json").read_text())
    shown = capsys.readouterr().out
    assert [r["form"] for r in record["rows"]] == ["released", "ceiling", "fast"]
    for measured in record["rows"]:
        assert FORMS[measured["form"]].shown in shown
        assert measured["images_per_s"] > 0
        assert measured["speed_over_released"] > 0
    assert record["device"] in shown
