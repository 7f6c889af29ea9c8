"""The step that `benchmark scaling` measures: its batch, its rates, and the row of a worker."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fourds_dist.benchmark import scaling_step
from fourds_dist.benchmark.scaling import ScalingResult
from fourds_dist.benchmark.scaling_step import NUM_CLASSES, ScalingCase, build, rounds_of, work
from fourds_dist.training.distributed.world import World

ALONE = World(0, 1, torch.device("cpu"))
SMALL = ScalingCase("ddp", 1, 2, "resnet10", "resnet10", 32, "float32", num_steps=1)


def test_a_step_trains_on_its_batch() -> None:
    step, again = build(SMALL, ALONE), build(SMALL, ALONE)
    assert step.batch.images.shape == (2, 3, 32, 32)
    assert torch.equal(step.batch.images, again.batch.images)
    assert int(step.batch.labels.max()) < NUM_CLASSES

    def weights(one: scaling_step.StepOfRun) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in one.train_step._task.parameters()])

    before = weights(step).clone()
    assert torch.equal(before, weights(again))
    step()
    assert not torch.equal(before, weights(step))


def test_rates_count_the_images_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 0.5 s by the clock, of three workers with four images each."""
    now_s = [0.0]
    monkeypatch.setattr(scaling_step, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))

    class Step:
        train_step = SimpleNamespace(is_captured=False)
        num_calls = 0

        def __call__(self) -> None:
            self.num_calls += 1
            now_s[0] += 0.5

    step: Any = Step()
    case = ScalingCase("ddp", 3, 4, "", "", 32, "float32", num_steps=10)
    rates, host_shares = rounds_of(step, case, ALONE)
    assert rates == pytest.approx([3 * 4 / 0.5] * scaling_step.NUM_ROUNDS)
    assert host_shares == pytest.approx([1.0] * scaling_step.NUM_ROUNDS)
    assert step.num_calls == scaling_step.WARM_UP_STEPS + 10 * scaling_step.NUM_ROUNDS


def test_the_row_of_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling_step, "NUM_ROUNDS", 3)
    monkeypatch.setattr(scaling_step, "WARM_UP_STEPS", 0)
    work(SMALL, ALONE, str(tmp_path))
    row = ScalingResult(**json.loads((tmp_path / "row.json").read_text()))
    assert (row.strategy, row.scaling, row.workers, row.batch_per_worker) == ("ddp", "weak", 1, 2)
    assert row.images_per_s == sorted(row.rounds)[1]
    assert len(row.rounds) == 3
    assert row.communication_share is row.host_share is row.exposed_share is row.efficiency is None
    assert (row.peak_bytes_per_worker, row.is_captured) == (0, False)
