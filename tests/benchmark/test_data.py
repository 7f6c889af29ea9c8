"""`benchmark data`: contenders, tables and JSON; feeding a step."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fourds_dist.benchmark import data, decoders, feed, peers, photos
from fourds_dist.benchmark.__main__ import main
from fourds_dist.data import Batch
from fourds_dist.processes.parent_death import die_with_parent
from tests.training.tiny import tiny_four_ds


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    assert data.prepare(path, 24) == sum(p.stat().st_size for p in (path / "folder").glob("*/*.jpg"))
    return path


def test_photographs_are_like_photographs_and_no_two_alike(folder):
    files = [path.read_bytes() for path in (folder / "folder").glob("*/*.jpg")]
    assert len(set(files)) == 24
    assert 35_000 < np.mean([len(file) for file in files]) < 90_000
    assert {Image.open(io.BytesIO(file)).size for file in files} == {(500, 375)}
    assert list(photos.photos(2)) == list(photos.photos(2))


def test_photographs_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    sizes = [len(file) for file in photos.photos(6)]
    assert 35_000 < np.mean(sizes) < 90_000


def test_another_number_of_images_is_refused(folder):
    with pytest.raises(ValueError, match="holds 24 images, not 25"):
        data.prepare(folder, 25)


@pytest.mark.parametrize("name", [peers.OURS, peers.WEBDATASET, "ImageFolder"])
@pytest.mark.parametrize("start", [0.0, 0.5])
def test_contenders_give_batches(folder, monkeypatch, name, start):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    setup = peers.Setup(name, str(folder), batch_size=4, shuffle=8, start=start, cores=(0,))
    batches = peers.PEERS[name].batches(setup)
    assert [next(batches) for _ in range(8)] == [4] * 8
    batches.close()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_a_process_measures_and_leaves_nothing_behind(folder):
    setup = peers.Setup("ImageFolder", str(folder), batch_size=4, seconds=0.2, later_starts=(0.5,))
    figures = data._in_a_process(setup, os.environ)
    assert set(figures) == {
        "first_batch_s",
        "images_per_s",
        "images_per_core_s",
        "from_50%_s",
        "peak_bytes",
    }
    assert all(figure > 0 for figure in figures.values())
    assert figures["images_per_core_s"] < 5000


@pytest.mark.slow
def test_a_failure_is_reported(folder):
    with pytest.raises(RuntimeError, match=r"(?s)no_such_folder.*the measurement failed"):
        data._in_a_process(peers.Setup("ImageFolder", str(folder / "no_such_folder")), os.environ)


def test_decoders_agree(folder):
    file = next((folder / "folder").glob("*/*.jpg")).read_bytes()
    found = {name: decoders.cropped(decode(file)).float() for name, decode in decoders.decoders().items()}
    assert len(found) >= 2
    for name, pixels in found.items():
        assert pixels.shape == (3, 224, 224)
        assert (pixels - found["Pillow"]).abs().mean() < 1.5, name


def test_tables_take_ratios_within_rounds(capsys):
    rows = [
        {
            "peer": name,
            "rounds": [
                {
                    "images_per_core_s": speed * factor,
                    "images_per_s": speed,
                    "peak_bytes": 2**20,
                    "from_0%_s": 0.5,
                    "from_50%_s": 0.5,
                    "from_90%_s": 0.6 * factor,
                }
                for factor in (1.0, 3.0, 2.0)  # a machine that others use
            ],
        }
        for name, speed in ((peers.OURS, 900.0), (peers.WEBDATASET, 300.0))
    ]
    data._show("local files", rows, bytes_per_image=1e6, num_cores=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == [
        peers.OURS,
        *["1800", "900", "1800", "3.00", "0.50", "0.50", "0.60", "1.20", "1"],
    ]
    assert lines[-2].endswith("(webdataset): 3.00")


def test_memory_counts_a_process_and_its_children():
    import multiprocessing

    # Of a process of its own: this one's other children (Ray's among them) come and go.
    fork = multiprocessing.get_context("fork")
    gate = fork.Event()
    parent = fork.Process(target=_hold_in_child, args=(gate, os.getpid()))
    parent.start()
    try:
        assert gate.wait(300)
        assert parent.pid is not None
        (child,) = set(peers.family(parent.pid)) - {parent.pid}
        alone = peers.memory_bytes(child)
        assert alone > 60 << 20
        assert peers.memory_bytes(parent.pid) >= alone
    finally:
        parent.kill()
        parent.join()


def _hold_in_child(gate, parent: int) -> None:
    import multiprocessing

    die_with_parent(parent)
    child = multiprocessing.get_context("fork").Process(target=_hold, args=(gate, os.getpid()))
    child.start()
    child.join()


def _hold(gate, parent: int) -> None:
    die_with_parent(parent)
    held = np.ones(64 << 20, np.uint8)
    gate.set()
    __import__("time").sleep(1000 + int(held[0]))


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


def test_a_tiny_step_is_fed(tmp_path, monkeypatch, capsys):
    """All but the size of the networks as on a GPU."""
    monkeypatch.setattr(feed, "build_task", lambda *_: tiny_four_ds())
    monkeypatch.setattr(photos, "NUM_CLASSES", 5)
    arguments = (
        "data --feed --device cpu --feed-batch 2 --image-size 8 --feed-seconds 0.4 --images 12 --copies 2"
    )
    main([*arguments.split(), "--json", str(tmp_path / "out.json")])
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
