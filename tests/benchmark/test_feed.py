"""`benchmark data --feed`: time without a batch, and the figures of a step that is fed."""

from __future__ import annotations

import json
from itertools import repeat
from types import SimpleNamespace

import pytest
import torch

from fourds_dist.benchmark import feed, photos
from fourds_dist.benchmark.__main__ import main
from fourds_dist.benchmark.feed import FeedCase, FeedRow, Speed
from fourds_dist.data import Batch
from tests.training.tiny import tiny_four_ds


def test_feeding_tells_waiting_from_working(monkeypatch):
    monkeypatch.setattr(feed, "WARM_UP_STEPS", 1)
    no = torch.zeros(5, dtype=torch.bool)
    batch = Batch(torch.zeros(5, 3, 1, 1, dtype=torch.uint8), torch.zeros(5, dtype=torch.long), no, keys=[])
    now_s, waited_s = [0.0], [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now_s[0])
    monkeypatch.setattr(feed, "time", clock)
    monkeypatch.setattr(feed, "cpu_s", lambda: 0.5 * now_s[0])

    def slow():
        while True:
            now_s[0] += 0.03
            waited_s[0] += 0.03
            yield batch

    def work(_) -> None:
        now_s[0] += 0.01

    speed = feed.timed(slow(), work, torch.device("cpu"), 0.4, lambda: waited_s[0])
    assert speed.waiting == pytest.approx(0.75)
    assert speed.images_per_s == pytest.approx(5 / 0.04)
    assert speed.cores == pytest.approx(0.5)


def test_a_tiny_step_is_fed_from_each_source(tmp_path, monkeypatch, capsys):
    """All but the size of the networks as on a GPU."""
    monkeypatch.setattr(feed, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(feed, "build_task", lambda *_: tiny_four_ds())
    monkeypatch.setattr(photos, "NUM_CLASSES", 5)
    arguments = (
        "data --feed --device cpu --feed-batch 2 --image-size 8 --feed-seconds 0.2 --images 12 --copies 2"
    )
    arguments += " --feed-cores 1 --feed-from disk cache --decoders threads"
    main([*arguments.split(), "--json", str(tmp_path / "out.json")])
    figures = json.loads((tmp_path / "out.json").read_text())
    assert [row["case"]["source"] for row in figures["rows"]] == ["disk", "cache"]
    for row in figures["rows"]:
        assert row["fed"]["images_per_s"] > 0
        assert 0 < row["fed"]["waiting"] < 1
    assert "the step with one batch" in capsys.readouterr().out


def test_a_row_compares_the_step_with_and_without_data() -> None:
    fixed, fed = Speed(1000.0, 0.02, 1.0, step_ms=100.0), Speed(900.0, 0.1, 5.0, step_ms=103.0)
    row = FeedRow(FeedCase("disk", "auto", 4), fed, Speed(2000.0, 0.0, 4.0), fixed, "gpu")
    assert row.waiting == pytest.approx(0.08)
    assert row.slower == pytest.approx(0.03)
    assert row.text().split() == ["disk", "gpu", "4", "900", "0.900", "8.0%", "3.0%", "5.00", "2000"]


def test_a_generator_is_closed_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "WARM_UP_STEPS", 2)
    batch = Batch(torch.zeros(3, 3, 1, 1, dtype=torch.uint8), torch.zeros(3, dtype=torch.long),
                  torch.zeros(3, dtype=torch.bool), keys=[])  # fmt: skip
    closed, used = [], []

    def batches():
        try:
            yield from repeat(batch)
        finally:
            closed.append(True)

    feed.timed(batches(), used.append, torch.device("cpu"), 0.0, lambda: 0.0)
    assert closed == [True]
    assert len(used) == 3  # the warm-up, and one batch that ends the time
