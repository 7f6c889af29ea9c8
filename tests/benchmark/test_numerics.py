"""`benchmark numerics`: the criterion accepts a run that learns the same and rejects one that does not."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fourds_dist.benchmark.__main__ import main
from fourds_dist.benchmark.numerics import FAST, NUDGED, ORDERS, REFERENCE, Curve, Images, distance, judge

FALLING = [4.0, 3.0, 2.0, 1.0]


def curves(fast: Curve) -> dict[str, Curve]:
    reference = Curve(FALLING, {"student": 0.80})
    first, second = ORDERS
    return {
        REFERENCE: reference,
        FAST: fast,
        NUDGED: reference,
        first: Curve([x * 1.04 for x in FALLING], {"student": 0.81}),
        second: Curve([x * 0.96 for x in FALLING], {"student": 0.79}),
    }


def test_windows_and_distances() -> None:
    reference = Curve([1.0, 3.0, 5.0], {})
    assert reference.windows(2) == [2.0, 5.0]
    assert distance(Curve([1.5, 3.5, 5.0], {}), reference, 2) == (0.125, 0.25)


def test_the_criterion_can_fail_either_way() -> None:
    near = Curve([x * 1.02 for x in FALLING], {"student": 0.79})
    verdict = judge(curves(near), 10_000, window=2)
    assert verdict.holds
    assert verdict.loss_allowed == pytest.approx(0.04)
    assert not judge(curves(replace(near, losses=[x * 1.06 for x in FALLING])), 10_000, 2).holds
    assert not judge(curves(replace(near, accuracies={"student": 0.76})), 10_000, 2).holds
    assert not judge(curves(replace(near, losses=[float("nan")] * 4)), 10_000, 2).holds


def test_an_order_is_a_function_of_its_number_and_covers_the_images() -> None:
    images = Images(
        torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 1, 1), torch.arange(10)
    )
    first, again, other = ([b.labels for b in images.batches(5, 4, order)] for order in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
    assert not all(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    assert sorted(torch.cat(first[:2]).tolist()) == list(range(10))
    assert all(torch.equal(b.images[:, 0, 0, 0].long(), b.labels) for b in images.batches(5, 2, 0))


@pytest.mark.slow
def test_both_modes_are_trained_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--device", "cpu", "--steps", "3", "--source-steps", "2", "--batch", "8", "--window", "2"]
    networks = ["--teacher", "resnet10", "--student", "resnet10"]
    with suppress(SystemExit):  # so few steps may or may not meet the criterion
        main(["numerics", *small, *networks, "--json", str(tmp_path / "numerics.json")])
    record = json.loads((tmp_path / "numerics.json").read_text())
    shown = capsys.readouterr().out
    assert set(record["curves"]) == {REFERENCE, FAST, NUDGED, *ORDERS}
    first = {name: curve["losses"][0] for name, curve in record["curves"].items()}
    assert first[FAST] == pytest.approx(first[REFERENCE], rel=0.05)
    assert first[FAST] != first[REFERENCE]
    assert first[NUDGED] == pytest.approx(first[REFERENCE], rel=1e-3)
    assert "CRITERION" in shown.upper()
