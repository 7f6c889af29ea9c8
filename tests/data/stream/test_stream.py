"""Streams: the same batches for any number of ranks and after any stop; every evaluated sample once."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourds_dist.benchmark.photos import photos_by_all_cores
from fourds_dist.benchmark.photos import write_dataset as write_photographs
from fourds_dist.data import (
    DataConfig,
    DataError,
    StreamConfig,
    TrainStream,
    evaluation_batches,
    open_split,
)
from fourds_dist.data.stream.stream import fits_in_memory
from tests.data.shards import SIDE, numbers_in, write_dataset

SIZES = [17, 1, 40, 9, 23]
IN_MEMORY = DataConfig(resize_px=SIDE, crop_px=SIDE, threads=2, read_threads=2)
FROM_DISK = IN_MEMORY.model_copy(update={"shuffle_mib": 0.05})
MODES = pytest.mark.parametrize("config", [IN_MEMORY, FROM_DISK], ids=["in memory", "from disk"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SIZES)


def stream(
    folder: str, config: DataConfig, rank=0, world_size=1, global_batch_size=12, **choice
) -> TrainStream:
    split = open_split(StreamConfig(url=folder, **choice), "train")
    return TrainStream(
        {"target": split},
        config,
        global_batch_size=global_batch_size,
        rank=rank,
        world_size=world_size,
        seed=3,
    )


def shown(folder: str, config: DataConfig, start: int, stop: int, world_size: int = 1) -> list[list[tuple]]:
    """(number, label, mirrored) of every image of steps start..stop, ranks one after the other."""
    steps: list[list[tuple]] = [[] for _ in range(start, stop)]
    for rank in range(world_size):
        batches = stream(folder, config, rank, world_size).batches(start)
        for step, batch in zip(steps, islice(batches, stop - start), strict=True):
            step += zip(numbers_in(batch.images), batch.labels.tolist(), batch.flip.tolist(), strict=True)
        batches.close()
    return steps


def test_the_two_modes_are_what_they_say(folder):
    split = open_split(StreamConfig(url=folder), "train")
    assert fits_in_memory(split, IN_MEMORY)
    assert not fits_in_memory(split, FROM_DISK)


@MODES
def test_an_epoch_shows_each_sample_once_with_its_label(folder, config):
    num_steps = stream(folder, config).num_steps_per_epoch
    assert num_steps == sum(SIZES) // 12
    first, second = (
        [sample for step in shown(folder, config, a, a + num_steps) for sample in step]
        for a in (0, num_steps)
    )
    for epoch in (first, second):
        numbers = [number for number, _, _ in epoch]
        assert len(set(numbers)) == len(numbers) == 12 * num_steps
        assert all(label == number % 3 for number, label, _ in epoch)
    assert [n for n, _, _ in first] != [n for n, _, _ in second]
    assert 0.2 < sum(flip for _, _, flip in first) / len(first) < 0.8


@MODES
@given(world_size=st.integers(1, 12), start=st.integers(0, 15), length=st.integers(1, 9))
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
def test_any_world_size_and_any_start_give_the_same_batches(folder, config, world_size, start, length):
    whole = shown(folder, config, 0, 24)
    assert shown(folder, config, start, start + length, world_size) == whole[start : start + length]


@MODES
def test_a_world_that_changes_in_mid_epoch_misses_and_repeats_nothing(folder, config):
    whole = shown(folder, config, 0, 7)
    pieces = [shown(folder, config, a, b, n) for a, b, n in ((0, 2, 4), (2, 3, 1), (3, 5, 3), (5, 7, 12))]
    assert [step for piece in pieces for step in piece] == whole


def test_two_domains_share_batches_with_separate_orders(folder, tmp_path):
    other = write_dataset(tmp_path / "other", [30])
    config = FROM_DISK.model_copy(update={"source_fraction": 0.25})

    def mixed(rank: int, world_size: int) -> TrainStream:
        splits = {
            name: open_split(StreamConfig(url=url), "train")
            for name, url in (("target", folder), ("source", other))
        }
        return TrainStream(splits, config, global_batch_size=16, rank=rank, world_size=world_size, seed=0)

    def numbers(batch) -> tuple[list[int], list[int]]:
        """Images of the target, which come first, and of the source."""
        found = numbers_in(batch.images)
        num_target = len(found) - batch.num_source
        assert num_target == len(found) * 3 // 4
        return found[:num_target], found[num_target:]

    whole = [numbers(batch) for batch in islice(mixed(0, 1).batches(0), 14)]
    assert all(len(source) == 4 and max(source) < 30 for _, source in whole)
    assert max(number for target, _ in whole for number in target) >= 30
    for seen in zip(*whole[:7], strict=True):
        together = [number for part in seen for number in part]
        assert len(set(together)) == len(together)
    parts = [numbers(next(mixed(rank, 2).batches(9))) for rank in range(2)]
    assert whole[9] == tuple(first + second for first, second in zip(*parts, strict=True))


@pytest.mark.parametrize("world_size", [1, 2, 4, 5, 100])
def test_every_sample_is_evaluated_once_at_any_number_of_workers(folder, world_size):
    split = open_split(StreamConfig(url=folder), "test")
    seen = []
    for rank in range(world_size):
        for batch in evaluation_batches(
            split, FROM_DISK, batch_size_per_rank=8, rank=rank, world_size=world_size
        ):
            assert not batch.flip.any()
            seen += zip(numbers_in(batch.images), batch.labels.tolist(), strict=True)
    assert seen == [(number, number % 3) for number in range(sum(SIZES))]


def test_a_stream_ends_its_threads(folder):
    import threading

    before = set(threading.enumerate())
    batches = stream(folder, FROM_DISK).batches(0)
    next(batches)
    batches.close()
    left = [t for t in set(threading.enumerate()) - before if t.is_alive()]
    for thread in left:
        thread.join(timeout=5)
    assert not [t.name for t in left if t.is_alive()]


def test_waiting_is_measured(folder):
    s = stream(folder, FROM_DISK)
    list(islice(s.batches(0), 3))
    assert s.wait_s > 0
    assert s.counts["bytes"] > 0


def test_few_labels(folder):
    numbers = {}
    for seed in (0, 1):
        split = open_split(StreamConfig(url=folder, labels_per_class=4), "train", seed=seed)
        s = TrainStream({"target": split}, IN_MEMORY, global_batch_size=10, rank=0, world_size=1, seed=0)
        seen = list(islice(s.batches(0), s.num_steps_per_epoch))
        labels = torch.cat([b.labels for b in seen]).tolist()
        assert [labels.count(c) for c in range(3)] == [4, 4, 4]
        assert labels.count(-1) == 90 - 12
        numbers[seed] = {n for b in seen for n in numbers_in(b.images[b.labels >= 0])}
    assert numbers[0] != numbers[1]
    other = open_split(StreamConfig(url=folder, labels_per_class=4), "train", seed=1)
    assert other.fingerprint != open_split(StreamConfig(url=folder), "train").fingerprint


def test_unlabelled_images_can_be_dropped(folder):
    split = open_split(StreamConfig(url=folder, labels_per_class=4, unlabelled="drop"), "train")
    assert split.num_samples == 12
    s = TrainStream({"target": split}, FROM_DISK, global_batch_size=6, rank=0, world_size=1, seed=0)
    assert s.num_steps_per_epoch == 2
    labels = torch.cat([b.labels for b in islice(s.batches(0), 2)]).tolist()
    assert sorted(labels) == [0] * 4 + [1] * 4 + [2] * 4


def test_balance_shows_classes_equally_often(tmp_path):
    labels = [0] * 60 + [1] * 25 + [2] * 5
    folder = write_dataset(tmp_path / "skewed", [50, 40], labels=labels)
    split = open_split(StreamConfig(url=folder, class_balance=1.0), "train")
    s = TrainStream({"target": split}, FROM_DISK, global_batch_size=4, rank=0, world_size=1, seed=0)
    seen = list(islice(s.batches(0), s.num_steps_per_epoch))
    counts = torch.bincount(torch.cat([b.labels for b in seen]), minlength=3)
    assert counts.sum() == 88
    assert (counts - 30).abs().max() <= 3


def test_labels_of_validation_are_never_hidden(folder):
    split = open_split(StreamConfig(url=folder, labels_per_class=0), "val")
    (batch,) = evaluation_batches(split, FROM_DISK, batch_size_per_rank=100, rank=0, world_size=1)
    assert (batch.labels >= 0).all()


class TestBrokenSamples:
    """A sample that is broken on disk: left out, reported, replaced the same way on all ranks, up to a budget."""

    @pytest.fixture
    def broken(self, tmp_path) -> str:
        folder = write_dataset(tmp_path / "broken", SIZES)
        for split in ("train", "test"):
            self.overwrite(Path(folder) / f"{split}-00002.tar", b"IHDR")
        return folder

    @staticmethod
    def overwrite(path: Path, mark: bytes) -> None:
        content = bytearray(path.read_bytes())
        at = content.find(mark, len(content) // 2)
        content[at : at + 4] = b"\0\0\0\0"
        path.write_bytes(content)

    @MODES
    def test_a_broken_sample_is_replaced_by_a_neighbour(self, broken, config, caplog):
        config = config.model_copy(update={"max_bad_fraction": 0.02})
        whole = shown(broken, config, 0, 7)
        assert all(len(step) == 12 for step in whole)
        assert [step for a in range(7) for step in shown(broken, config, a, a + 1, 3)] == whole
        assert "left out train-00002.tar/" in caplog.text
        assert "checksum" in caplog.text

    def test_evaluation_leaves_it_out(self, broken):
        config = FROM_DISK.model_copy(update={"max_bad_fraction": 0.02})
        split = open_split(StreamConfig(url=broken), "test")
        batches = evaluation_batches(split, config, batch_size_per_rank=8, rank=0, world_size=1)
        numbers = [number for batch in batches for number in numbers_in(batch.images)]
        assert len(numbers) == len(set(numbers)) == 89

    def test_the_budget_ends(self, broken):
        config = FROM_DISK.model_copy(update={"max_bad_fraction": 0.0})
        with pytest.raises(
            DataError, match=r"(?s)max_bad_fraction.*train-00002.tar/\d+: checksum.*pack verify"
        ):
            shown(broken, config, 0, 7)

    def test_an_image_that_cannot_be_decoded_counts_too(self, tmp_path, monkeypatch):
        from tests.data import shards

        good = shards.image_of
        monkeypatch.setattr(shards, "image_of", lambda n: b"no image" if n == 30 else good(n))
        folder = write_dataset(tmp_path / "undecodable", SIZES)
        config = FROM_DISK.model_copy(update={"max_bad_fraction": 0.02})
        s = stream(folder, config)
        numbers = [n for b in islice(s.batches(0), 7) for n in numbers_in(b.images)]
        assert 30 not in numbers
        assert len(s.bad_samples) in (0, 1)
        assert len(s.bad_samples) == (len(set(numbers)) < len(numbers))


def test_too_small_a_split_is_refused(folder):
    with pytest.raises(ValueError, match="90 train images, fewer than the 91"):
        stream(folder, FROM_DISK, global_batch_size=91)


def test_a_shard_that_vanishes_ends_the_run_with_its_name(tmp_path):
    folder = write_dataset(tmp_path / "set", SIZES)
    s = stream(folder, FROM_DISK)
    (Path(folder) / "train-00002.tar").unlink()
    with pytest.raises(DataError, match=r"train-00002.tar cannot be read: FileNotFoundError"):
        list(islice(s.batches(0), 7))


@pytest.mark.slow
def test_memory_stays_within_what_is_stated(tmp_path):
    """Batches of 64 at 224 px, from 60 MiB of photographs of which 16 MiB are shuffled."""
    write_photographs(tmp_path, photos_by_all_cores(256) * 4, num_shards=4)
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    above_mib, encoded_mib, batch_mib = 175 + 50, 2 * 16, 64 * 3 * 224**2 / 2**20
    assert float(found.stdout) < above_mib + encoded_mib + (4 + 2) * batch_mib


MEMORY = """
import itertools, sys, torchvision
from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
def mib(name):
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith(name))
split = open_split(StreamConfig(url=sys.argv[1]), "train")
config = DataConfig(shuffle_mib=16, threads=2)
stream = TrainStream({"target": split}, config, global_batch_size=64, rank=0, world_size=1, seed=0)
before = mib("VmRSS")
for _ in itertools.islice(stream.batches(0), 48):
    pass
print(mib("VmHWM") - before)
"""
