"""Batches are decoded in order; broken samples are replaced by neighbours in training and left out in evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from fourds_dist.data import DataError
from fourds_dist.data.decode.threads import num_cores
from fourds_dist.data.stream.batch import Batch
from fourds_dist.data.stream.batches import BatchPlan, decoded, decoding_pool, num_threads
from fourds_dist.data.stream.decoder import DecodeOptions
from fourds_dist.data.stream.quarantine import Quarantine
from fourds_dist.data.stream.samples import Block, BrokenSample, EncodedSample
from tests.data.shards import SIDE, image_of, numbers_in, write_dataset
from tests.data.stream.test_stream import SIZES

OPTIONS = DecodeOptions(SIDE, SIDE, threads=2, in_processes=False, prefetch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    return write_dataset(tmp_path_factory.mktemp("data") / "set", SIZES)


def block_of(*numbers: int | None) -> Block:
    """A sample for each number; a sample that matches no checksum for None."""
    return [
        BrokenSample(f"s/{at}", "checksum")
        if n is None
        else EncodedSample(f"s/{at}", memoryview(image_of(n)), n % 3)
        for at, n in enumerate(numbers)
    ]


def plan(block: Block, *at: int, quarantine: Quarantine | None = None, may_replace: bool = True) -> BatchPlan:
    refs = [(block, n) for n in at]
    flip = np.array([n % 2 == 1 for n in at])
    quarantine = Quarantine("url", "train", 9) if quarantine is None else quarantine
    return BatchPlan(refs, np.full((len(refs), 2), 0.5), flip, [quarantine] * len(refs), may_replace)


def batches(*plans: BatchPlan, **how) -> list[Batch]:
    return list(decoded(iter(plans), OPTIONS, **how))


def test_batches_come_in_order_with_their_labels_and_keys() -> None:
    block = block_of(*range(30))
    parts = [range(20), [21, 20], [29]]  # several tasks, and one
    for part, batch in zip(parts, batches(*(plan(block, *part) for part in parts)), strict=True):
        assert numbers_in(batch.images) == list(part)
        assert batch.labels.tolist() == [n % 3 for n in part]
        assert batch.flip.tolist() == [n % 2 == 1 for n in part]
        assert batch.keys == [f"s/{n}" for n in part]
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


def test_a_broken_sample_is_replaced_by_the_next_good_one_of_its_block() -> None:
    block = block_of(10, 11, None, None)
    block[3] = EncodedSample("s/3", memoryview(b"no image"), 0)
    quarantine = Quarantine("url", "train", 9)
    (batch,) = batches(plan(block, 1, 2, 3, quarantine=quarantine))
    assert numbers_in(batch.images) == [11, 10, 10]
    assert batch.labels.tolist() == [2, 1, 1]
    assert quarantine.causes["s/2"] == "checksum"
    assert quarantine.causes["s/3"].startswith("not a readable image: ")
    (batch,) = batches(plan(block, 1, 2, 3, may_replace=False))
    assert (numbers_in(batch.images), batch.flip.tolist(), batch.keys) == ([11], [True], ["s/1"])


def test_errors_reach_the_caller() -> None:
    with pytest.raises(DataError, match=r"^url \(train\): s/1: all images of its block are broken; "):
        batches(plan(block_of(None, None), 1))
    with pytest.raises(DataError, match="read 1 broken samples; its budget is 0"):
        batches(plan(block_of(1, None), 1, quarantine=Quarantine("url", "train", 0)))

    def plans() -> Iterator[BatchPlan]:
        yield plan(block_of(5), 0)
        raise KeyError("reading")

    found = decoded(plans(), OPTIONS)
    assert numbers_in(next(found).images) == [5]
    with pytest.raises(KeyError, match="reading"):
        next(found)


def test_waiting_passes_through_the_caller_and_closing_ends_the_threads() -> None:
    before, waited = set(threading.enumerate()), []

    def waiting(get):
        waited.append(1)
        return get()

    found = decoded((plan(block_of(n), 0) for n in range(100)), OPTIONS, waiting=waiting)
    assert [numbers_in(next(found).images) for _ in range(3)] == [[0], [1], [2]]
    assert len(waited) == 3
    found.close()
    assert not [t.name for t in set(threading.enumerate()) - before if t.is_alive()]


def test_the_default_number_of_threads_is_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert num_threads(1) == max(1, int(num_cores()))
    assert num_threads(1000) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # one rank on this node
    assert num_threads(1000) == max(1, int(num_cores()))


def test_a_pool_leaves_the_caller_its_threads() -> None:
    before = torch.get_num_threads()
    pool = decoding_pool(2)
    assert {pool.submit(torch.get_num_threads).result() for _ in range(4)} == {1}
    assert torch.get_num_threads() == before
    pool.close()


def test_decoding_leaves_the_threads_of_others_alone(folder):
    """A new thread, such as autograd's, takes the number of threads that was set last in any thread."""
    found = subprocess.run(
        [sys.executable, "-c", THREADS, folder],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert found == ["2", "2", "1"]


THREADS = """
import sys, threading, torch
from fourds_dist.data import DataConfig, StreamConfig, TrainStream, open_split
from fourds_dist.data.stream.batches import decoding_pool
split = open_split(StreamConfig(url=sys.argv[1]), "train")
config = DataConfig(resize_px=8, crop_px=8, threads=2)
stream = TrainStream({"target": split}, config, global_batch_size=12, rank=0, world_size=1, seed=0)
batches = stream.batches(0)
next(batches)
found = []
thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
thread.start()
thread.join()
pool = decoding_pool(1)
print(torch.get_num_threads(), *found, pool.submit(torch.get_num_threads).result())
"""
