"""`benchmark data --feed`: time without a batch, and the figures of a step that is fed."""

from __future__ import annotations

import argparse
import json
from itertools import repeat
from types import SimpleNamespace

import pytest
import torch

from fourds_dist.benchmark import feed, photos
from fourds_dist.benchmark.__main__ import main
from fourds_dist.benchmark.feed import Speed
from fourds_dist.data import Batch
from tests.training.tiny import tiny_four_ds


def test_feeding_tells_waiting_from_working(monkeypatch):
    monkeypatch.setattr(feed, "WARM_UP_STEPS", 1)
    no = torch.zeros(5, dtype=torch.bool)
    batch = Batch(torch.zeros(5, 3, 1, 1, dtype=torch.uint8), torch.zeros(5, dtype=torch.long), no, keys=[])
    now_s, waited_s = [0.0], [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now_s[0], process_time=lambda: 0.5 * now_s[0])
    monkeypatch.setattr(feed, "time", clock)

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


@pytest.mark.parametrize("cache", ["", " --decoded-cache"])
def test_a_tiny_step_is_fed(tmp_path, monkeypatch, capsys, cache):
    """All but the size of the networks as on a GPU."""
    monkeypatch.setattr(feed, "build_task", lambda *_: tiny_four_ds())
    monkeypatch.setattr(photos, "NUM_CLASSES", 5)
    arguments = (
        "data --feed --device cpu --feed-batch 2 --image-size 8 --feed-seconds 0.4 --images 12 --copies 2"
    )
    main([*(arguments + cache).split(), "--json", str(tmp_path / "out.json")])
    figures = json.loads((tmp_path / "out.json").read_text())
    assert 0 < figures["feed"]["fed from disk"]["waiting"] < 1
    assert figures["fed_over_fixed"] > 0
    assert "the step needs" in capsys.readouterr().out


@pytest.mark.slow
def test_the_step_is_fed_and_its_figures_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(feed, "WARM_UP_STEPS", 1)
    arguments = (
        "data --feed --device cpu --feed-batch 2 --image-size 32 --feed-seconds 0.1 --images 12 --copies 1"
    )
    main([*arguments.split(), "--json", str(tmp_path / "out.json")])
    figures = json.loads((tmp_path / "out.json").read_text())
    assert set(figures["feed"]) == {"one batch on the device", "fed from disk", "loader alone"}
    assert all(speed["images_per_s"] > 0 for speed in figures["feed"].values())
    assert "fed over fixed" in capsys.readouterr().out


def test_figures_are_ratios_to_the_step_with_one_batch(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        "one batch on the device": Speed(1000.0, 0.0, 1.0),
        "fed from disk": Speed(900.0, 0.1, 5.0),
        "loader alone": Speed(2000.0, 0.0, 4.0),
    }
    stream = SimpleNamespace(counts={"broken": 2})
    shown = feed._shown(rows, stream, argparse.Namespace(feed_batch=256))  # pyright: ignore[reportArgumentType]
    assert shown["fed_over_fixed"] == pytest.approx(0.9)
    assert shown["loader_over_step"] == pytest.approx(2.0)
    assert shown["cpu_ms_per_image"] == pytest.approx(2.0)  # 4 cores, 2,000 images/s
    assert (shown["faults"], shown["batch"]) == ({"broken": 2}, 256)
    told = capsys.readouterr().out
    assert "fed over fixed 0.900, waiting 10.0%" in told
    assert "the step needs 2.0 cores of decoding" in told


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
